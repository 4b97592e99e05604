r"""Cuts text into the words that byte-level BPE merges within, by the pre-tokenizer that a model names.

The published rules use \p{L}, \p{N} and \s, which `re` does not have. So the text is translated,
character by character, into an ASCII shadow of the same length; the rule runs on the shadow, and its spans
cut the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from floatllm._unicode import shadow_of

_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_ANY_CASE = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_NEWER = (
    _ANY_CASE
    + r"|[^\r\nA-Za-z0-9]?[A-Za-z]+|%s| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # %s: numbers
)


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
    return Rule(re.compile(pattern, re.ASCII), whole_words, add_bos)


RULES = {
    "gpt-2": _rule(_CONTRACTIONS + r"| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"),
    # Each number is cut out first, so white space before one ends where a text would end.
    "smollm": _rule(_CONTRACTIONS + r"| ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+(?![^\s0-9])|\s+"),
    "llama-bpe": _rule(_NEWER % "[0-9]{1,3}", whole_words=True, add_bos=True),
    "qwen2": _rule(_NEWER % "[0-9]"),
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
