"""A model's vocabulary: its tokens, what kind each is, and which of them have a meaning of their own."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from floatllm.errors import ModelError
from floatllm.metadata import StringArray

# tokenizer.ggml.token_type; https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6

# Tokens that end generation whatever else the file says of them (llama.cpp, llama_vocab's list).
_ENDS = (
    *("</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<|end|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|im_end|>", "<end_of_turn>", "<turn|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>"),
    *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>"),
    "<\uff5cend▁of▁sentence\uff5c>",
)
# The code models' marks for padding, repository and file: the first that is there ends generation too.
_MARKS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
# Control tokens whatever type the file gives them.
_FILL_IN_MARKS = (
    *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"),
    *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"),
    *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"),
    *("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),
)

Metadata = Mapping[str, Any]


class Index:
    """Finds a string's place in a StringArray: open addressing, 8 to 16 bytes for each string.

    A dict of the same strings would take about ten times as much. Of equal strings the first is found.
    """

    __slots__ = ("_mask", "_slots", "strings")

    def __init__(self, strings: StringArray) -> None:
        size = 1 << (2 * len(strings)).bit_length()
        mask = size - 1
        slots = array("i", [-1]) * size
        raw = strings.raw
        for index in range(len(strings)):
            text = raw(index)
            slot = hash(text) & mask
            while slots[slot] >= 0:
                if raw(slots[slot]) == text:
                    break
                slot = (slot + 1) & mask
            else:
                slots[slot] = index
        self._mask, self._slots, self.strings = mask, slots, strings

    def find(self, text: bytes) -> int:
        """Place of `text`, or -1."""
        slots, mask, raw = self._slots, self._mask, self.strings.raw
        slot = hash(text) & mask
        while (index := slots[slot]) >= 0:
            if raw(index) == text:
                return index
            slot = (slot + 1) & mask
        return -1


class Vocabulary:
    """Tokens and their kinds. The ids with a meaning are None where the vocabulary has no such token."""

    def __init__(self, metadata: Metadata, *, bos: int, eos: int, unknown: int | None) -> None:
        """`bos`, `eos` and `unknown` are what the family of tokenizers takes where the file names none."""
        self._metadata = metadata
        self.tokens = strings(metadata, "tokens")
        self.index = Index(self.tokens)
        self.types = _types(metadata, len(self.tokens))
        self.bos = self._special("bos", bos)
        self.eos = self._special("eos", eos)
        self.unknown = self._special("unknown", unknown)
        self.padding = self._special("padding", None)
        controls = self._places(_ENDS) | self._places(_FILL_IN_MARKS) | self._marks()
        for token in controls:
            self.types[token] = CONTROL
        #: Tokens that end generation.
        self.ends = self._find_ends()

    def special(self) -> list[int]:
        """Tokens that are looked for in a text as a whole, the longest first."""
        found = [i for i, kind in enumerate(self.types) if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
        return sorted(found, key=lambda token: -len(self.tokens.raw(token)))

    def _special(self, name: str, default: int | None) -> int | None:
        token = self._metadata.get(f"tokenizer.ggml.{name}_token_id")
        if not isinstance(token, int) or not 0 <= token < len(self.tokens):
            token = default
        return token if token is not None and token < len(self.tokens) else None

    def _places(self, texts: Iterable[str]) -> frozenset[int]:
        return frozenset(place for text in texts if (place := self.index.find(text.encode())) >= 0)

    def _marks(self) -> frozenset[int]:
        """The code models' marks that the file does not name: the first of each kind."""
        unnamed = (texts for name, texts in _MARKS.items() if self._special(name, None) is None)
        firsts = (next((text for text in texts if self._places([text])), None) for texts in unnamed)
        return self._places(text for text in firsts if text is not None)

    def _find_ends(self) -> frozenset[int]:
        named = (self.eos, *(self._special(name, None) for name in ("eot", "eom", *_MARKS)))
        return self._places(_ENDS) | self._marks() | {token for token in named if token is not None}


def strings(metadata: Metadata, name: str) -> StringArray:
    """`tokenizer.ggml.<name>`. Raises ModelError where it is not a list of text."""
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if not isinstance(value, StringArray):
        msg = f"The model's {key} is not a list of text, so nothing can be encoded: use another file."
        raise ModelError(msg)
    return value


def scores(metadata: Metadata, count: int) -> array[float]:
    """`tokenizer.ggml.scores` as float32, 0 for each where there are none. Raises ModelError for too few."""
    key = "tokenizer.ggml.scores"
    if key not in metadata:
        return array("f", bytes(4 * count))
    value = metadata[key]
    if not isinstance(value, array) or len(value) < count or value.typecode not in "fi":
        msg = f"The model's {key} does not give a number for each of its {count} tokens: use another file."
        raise ModelError(msg)
    return value if value.typecode == "f" else array("f", value)


def _types(metadata: Metadata, count: int) -> array[int]:
    key = "tokenizer.ggml.token_type"
    if key not in metadata:
        return array("i", [NORMAL]) * count
    types = metadata[key]
    if not isinstance(types, array) or len(types) < count or types.typecode not in "iI":
        msg = f"The model's {key} does not give a type for each of its {count} tokens: use another file."
        raise ModelError(msg)
    # Some change, and the array is the caller's. What is beyond the vocabulary belongs to no token.
    return types[:count]
