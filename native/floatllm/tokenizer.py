"""Text to token ids and back, from a model's own metadata. Agrees with llama.cpp (tests/native/data)."""

from __future__ import annotations

import codecs
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from floatllm.bpe import BytePairs, Index, token_bytes
from floatllm.errors import ModelError
from floatllm.metadata import StringArray
from floatllm.pretokenize import RULES, Rule, split

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

# Tokens that end generation whatever else the file says of them (llama.cpp, llama_vocab's list).
_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
)
# The code models' marks for padding, repository and file: the first that is there ends generation too.
_MARKS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Control tokens whatever type the file gives them.
_FILL_IN_MARKS = (
    *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "<|code_prefix|>"),
    *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "<|code_suffix|>"),
    *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "<|code_middle|>"),
)
# GPT-2's own end of text, which its files need not name.
_DEFAULT_SPECIAL = 11

Metadata = Mapping[str, Any]


class Tokenizer:
    """Byte-level BPE (`tokenizer.ggml.model` = `gpt2`) with the pre-tokenizers named in pretokenize.RULES."""

    def __init__(self, metadata: Metadata, rule: Rule) -> None:
        """Reads what `from_metadata` has checked."""
        self._tokens = _strings(metadata, "tokens")
        tokens = Index(self._tokens)
        self._rule = rule
        self._pairs = BytePairs(tokens, Index(_strings(metadata, "merges")), whole_words=rule.whole_words)
        self._types = _types(metadata, len(self._tokens))
        self.bos = self._special(metadata, "bos", _DEFAULT_SPECIAL)
        self.eos = self._special(metadata, "eos", _DEFAULT_SPECIAL)
        self.add_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", rule.add_bos))
        self.add_eos = bool(metadata.get("tokenizer.ggml.add_eos_token", False))
        #: Tokens that end generation.
        self.end_ids = self._find_ends(metadata, tokens)
        for token in self.end_ids | _places(tokens, _FILL_IN_MARKS):
            self._types[token] = _CONTROL
        special = (i for i, kind in enumerate(self._types) if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED))
        # The longest is looked for first, through the whole text, then the next.
        self._parsed = sorted(special, key=lambda token: -len(self._tokens.raw(token)))

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> Tokenizer:
        """The tokenizer of a model. Raises ModelError, by name, for a kind that is not supported."""
        model = metadata.get("tokenizer.ggml.model")
        if model is None:
            msg = "The model file holds no tokenizer, so text cannot be encoded: use a file that has one."
            raise ModelError(msg)
        if model != "gpt2":
            msg = f"The model's tokenizer is {model!r}; only 'gpt2' (byte-level BPE) is supported."
            raise ModelError(msg)
        name = metadata.get("tokenizer.ggml.pre")
        known = ", ".join(RULES)
        if name not in RULES:
            found = "is not named" if name is None else f"is {name!r}"
            msg = f"The model's pre-tokenizer {found}, and only these are supported: {known}."
            raise ModelError(msg)
        return cls(metadata, RULES[name])

    def __len__(self) -> int:
        """Tokens in the vocabulary."""
        return len(self._tokens)

    def encode(self, text: str, *, parse_special: bool = False, add_special: bool = True) -> list[int]:
        """Token ids of `text`.

        User-defined tokens are always found in the text, control tokens only with `parse_special` (a chat
        template needs that; raw text must not be able to give orders). `add_special` adds what the model
        wants at the beginning and the end.
        """
        out = []
        if add_special and self.add_bos and self.bos is not None:
            out.append(self.bos)
        for piece in self._partition(_without_surrogates(text), parse_special):
            if isinstance(piece, int):
                out.append(piece)
            else:
                for word in split(piece, self._rule):
                    out += self._pairs.encode(word)
        if add_special and self.add_eos and self.eos is not None:
            out.append(self.eos)
        return out

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`, without control tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(self.piece(token) for token in tokens).decode("utf-8", "replace")

    def decoder(self) -> Decoder:
        """For text that comes token by token."""
        return Decoder(self)

    def piece(self, token: int) -> bytes:
        """The bytes of one token: nothing for control and unused ones. Raises ModelError for none of ours."""
        if not 0 <= token < len(self._tokens):
            msg = f"Token {token} is not in the vocabulary of {len(self)}: pass ids of this model."
            raise ModelError(msg)
        kind = self._types[token]
        if kind == _USER_DEFINED:
            return self._tokens.raw(token)
        return token_bytes(self._tokens[token]) if kind == _NORMAL else b""

    def _partition(self, text: str, parse_special: bool) -> list[str | int]:
        pieces: list[str | int] = [text] if text else []
        for token in self._parsed:
            if not parse_special and self._types[token] != _USER_DEFINED:
                continue
            mark = self._tokens[token]
            if mark and mark in text:
                pieces = [part for piece in pieces for part in _cut(piece, mark, token)]
        return pieces

    def _special(self, metadata: Metadata, name: str, default: int | None) -> int | None:
        token = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if not isinstance(token, int) or not 0 <= token < len(self._tokens):
            token = default
        return token if token is not None and token < len(self._tokens) else None

    def _find_ends(self, metadata: Metadata, tokens: Index) -> frozenset[int]:
        named = [self.eos, self._special(metadata, "eot", None), self._special(metadata, "eom", None)]
        for name, texts in _MARKS.items():
            token = self._special(metadata, name, None)
            there = (text for text in texts if tokens.find(text.encode()) >= 0)
            first = next(there, None)
            named.append(tokens.find(first.encode()) if token is None and first is not None else token)
        return _places(tokens, _ENDS) | {token for token in named if token is not None}


class Decoder:
    """Holds back the bytes of a character until it is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that `token` completes, which may be empty."""
        return self._utf8.decode(self._tokenizer.piece(token))

    def finish(self) -> str:
        """What was held back; U+FFFD for a character that never became whole."""
        return self._utf8.decode(b"", True)


def _cut(piece: str | int, mark: str, token: int) -> list[str | int]:
    if isinstance(piece, int) or mark not in piece:
        return [piece]
    out: list[str | int] = []
    for index, part in enumerate(piece.split(mark)):
        if index:
            out.append(token)
        if part:
            out.append(part)
    return out


def _without_surrogates(text: str) -> str:
    """Each byte of a command line that was not UTF-8 arrives as a lone surrogate; it reads as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def _places(tokens: Index, texts: Iterable[str]) -> frozenset[int]:
    return frozenset(place for text in texts if (place := tokens.find(text.encode())) >= 0)


def _strings(metadata: Metadata, name: str) -> StringArray:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if not isinstance(value, StringArray):
        msg = f"The model's {key} is not a list of text, so nothing can be encoded: use another file."
        raise ModelError(msg)
    return value


def _types(metadata: Metadata, count: int) -> array[int]:
    key = "tokenizer.ggml.token_type"
    if key not in metadata:
        return array("i", [_NORMAL]) * count
    types = metadata[key]
    if not isinstance(types, array) or len(types) < count or types.typecode not in "iI":
        msg = f"The model's {key} does not give a type for each of its {count} tokens: use another file."
        raise ModelError(msg)
    return types[:]  # some change below, and the array is the caller's
