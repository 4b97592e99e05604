r"""Cuts text into the words that byte-level BPE merges within, by the pre-tokenizer that a model names.

The published rules use \p{L}, \p{N} and \s, which `re` does not have. So the text is translated,
character by character, into a shadow of the same length, of ASCII and one character for every other letter;
the rule runs on the shadow, and its spans cut the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from floatllm._unicode import LETTER, shadow_of


@dataclass(frozen=True)
class Rule:
    """A pre-tokenizer: the words it finds in a shadow, and what its name implies for the whole tokenizer.

    `whole_words`: a word that is itself a token is not merged from its parts. `add_bos`: unless the file says
    otherwise.
    """

    words: re.Pattern[str]
    whole_words: bool = False
    add_bos: bool = False


def _rule(pattern: str, *, whole_words: bool = False, add_bos: bool = False) -> Rule:
    r"""In `pattern`, L, U and W in angle brackets are letters: all, not lower case, not upper case."""
    for name, letters in {"<L>": "A-Za-z", "<U>": "A-Z", "<W>": "a-z"}.items():
        pattern = pattern.replace(name, letters + LETTER)
    return Rule(re.compile(pattern, re.ASCII), whole_words, add_bos)


_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_REST = r" ?[^\s<L>0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA = _ANY_CASE + r"|[^\r\n<L>0-9]?[<L>]+|[0-9]{1,3}|" + _REST
_QWEN = _ANY_CASE + r"|[^\r\n<L>0-9]?[<L>]+|[0-9]|" + _REST
_GPT2 = _CONTRACTIONS + r"| ?[<L>]+| ?[0-9]+| ?[^\s<L>0-9]+|\s+(?!\S)|\s+"
# Each number is cut out first, so white space before one ends where a text would end.
_ONE_DIGIT = _CONTRACTIONS + r"| ?[<L>]+|[0-9]| ?[^\s<L>0-9]+|\s+(?![^\s0-9])|\s+"
# A word begins at each change from lower to upper case; letters beyond ASCII are of both.
_CASED = r"[^\r\n<L>0-9]?[<U>]*[<W>]+{end}|[^\r\n<L>0-9]?[<U>]+[<W>]*{end}|[0-9]{digits}|"
_CASED_REST = r" ?[^\s<L>0-9]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = _CASED.format(end="", digits="") + _CASED_REST
_GPT4O = _CASED.format(end=f"(?:{_ANY_CASE})?", digits="{1,3}") + _CASED_REST

_LLAMA_RULE = _rule(_LLAMA, whole_words=True, add_bos=True)
_LLAMA_PLAIN_RULE = _rule(_LLAMA)
_QWEN_RULE = _rule(_QWEN)
_GPT2_RULE = _rule(_GPT2)
_ONE_DIGIT_RULE = _rule(_ONE_DIGIT)
_GPT4O_RULE = _rule(_GPT4O)

#: `tokenizer.ggml.pre` to its rule: what files of the architectures that the engine computes name.
RULES = {
    "gpt-2": _GPT2_RULE,
    "phi-2": _GPT2_RULE,
    "mellum": _GPT2_RULE,
    "gigachat": _GPT2_RULE,
    "a.x-4.0": _GPT2_RULE,
    "trillion": _GPT2_RULE,
    "smollm": _ONE_DIGIT_RULE,
    "starcoder": _ONE_DIGIT_RULE,
    "refact": _ONE_DIGIT_RULE,
    "command-r": _ONE_DIGIT_RULE,
    "minerva-7b": _ONE_DIGIT_RULE,
    "llama-bpe": _LLAMA_RULE,
    "llama3": _LLAMA_RULE,
    "llama-v3": _LLAMA_RULE,
    "falcon3": _LLAMA_RULE,
    "pixtral": _LLAMA_RULE,
    "midm-2.0": _LLAMA_RULE,
    "dbrx": _LLAMA_PLAIN_RULE,
    "smaug-bpe": _LLAMA_PLAIN_RULE,
    "qwen2": _QWEN_RULE,
    "deepseek-r1-qwen": _QWEN_RULE,
    "stablelm2": _QWEN_RULE,
    "megrez": _QWEN_RULE,
    "tekken": _rule(_TEKKEN, whole_words=True, add_bos=True),
    "gpt-4o": _GPT4O_RULE,
    "llama4": _GPT4O_RULE,
    "kanana2": _GPT4O_RULE,
}


class _Shadow(dict[int, str]):
    """Filled as characters are met; ASCII stands for itself."""

    def __missing__(self, codepoint: int) -> str:
        shadow = chr(codepoint) if codepoint < 128 else shadow_of(codepoint)
        self[codepoint] = shadow
        return shadow


_SHADOW = _Shadow()


def split(text: str, rule: Rule) -> list[str]:
    """The words of `text`; joined, they are `text` again."""
    shadow = text if text.isascii() else text.translate(_SHADOW)
    return [text[match.start() : match.end()] for match in rule.words.finditer(shadow)]
