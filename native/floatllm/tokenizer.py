"""Text to token ids and back, from a model's own metadata. Agrees with llama.cpp (tests/native/data)."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Protocol

from floatllm.bpe import BytePairs
from floatllm.errors import ModelError
from floatllm.pretokenize import RULES
from floatllm.spm import ScoredPieces
from floatllm.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Index, Metadata, Vocabulary, scores, strings

# What a SentencePiece model has at the beginning of its vocabulary: <unk>, <s>, </s>.
_SPM_UNKNOWN, _SPM_BOS, _SPM_EOS = 0, 1, 2
# GPT-2's own end of text, which its files need not name.
_BPE_SPECIAL = 11
# Phi-3's special tokens take the white space behind them along; its files cannot say so (llama.cpp knows them
# by the model's name, too).
_STRIPPING_MODELS = ("phi-3", "phi3")
_NEVER_STRIPPING = (b"<unk>", b"<s>", b"<|endoftext|>")
_STRIPPED = " \t\n\v\f\r"


class Algorithm(Protocol):
    """What differs between the families of tokenizers."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens: the whole, or what stands between two."""

    def piece(self, token: bytes, kind: int) -> bytes:
        """The bytes that an ordinary token of that kind stands for."""


class Tokenizer:
    """The tokenizer of a model: `from_metadata` makes it."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        algorithm: Algorithm,
        *,
        add_bos: bool,
        add_eos: bool,
        stripping: frozenset[int] = frozenset(),
    ) -> None:
        """`stripping` tokens take the white space behind them along."""
        self._vocabulary, self._algorithm, self._stripping = vocabulary, algorithm, stripping
        self._tokens, self._types = vocabulary.tokens, vocabulary.types
        self.bos, self.eos = vocabulary.bos, vocabulary.eos
        self.add_bos, self.add_eos = add_bos, add_eos
        #: Tokens that end generation.
        self.end_ids = vocabulary.ends
        # The longest is looked for first, through the whole text, then the next.
        self._special = vocabulary.special()
        self._user_defined = [token for token in self._special if self._types[token] == USER_DEFINED]

    @classmethod
    def from_metadata(cls, metadata: Metadata) -> Tokenizer:
        """The tokenizer of a model. Raises ModelError, by name, for a kind that is not supported."""
        model = metadata.get("tokenizer.ggml.model")
        if model is None:
            msg = "The model file holds no tokenizer, so text cannot be encoded: use a file that has one."
            raise ModelError(msg)
        if model == "llama":
            return _scored_pieces(metadata)
        if model == "gpt2":
            return _byte_pairs(metadata)
        msg = (
            f"The model's tokenizer is {model!r}, and only two are supported: "
            "'llama' (SentencePiece's pieces) and 'gpt2' (byte-level BPE)."
        )
        raise ModelError(msg)

    def __len__(self) -> int:
        """Tokens in the vocabulary."""
        return len(self._tokens)

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = True, ignore: str = ""
    ) -> list[int]:
        """Token ids of `text`.

        User-defined tokens are always found in the text, control tokens only with `parse_special` (a chat
        template needs that; raw text must not be able to give orders). `add_special` adds what the model
        wants at the beginning and the end. The characters `ignore` are taken out after special tokens were
        looked for: put inside the name of one, they make plain text of it.
        """
        out = []
        if add_special and self.add_bos and self.bos is not None:
            out.append(self.bos)
        for piece in self._partition(_without_surrogates(text), parse_special):
            if isinstance(piece, int):
                out.append(piece)
            elif plain := piece.replace(ignore, "") if ignore else piece:
                out += self._algorithm.encode(plain)
        if add_special and self.add_eos and self.eos is not None:
            out.append(self.eos)
        return out

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`, without control tokens; bytes that are not UTF-8 become U+FFFD.

        A model that puts a space before a text gives it back with that space.
        """
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
        raw = self._tokens.raw(token)
        return raw if kind == USER_DEFINED else self._algorithm.piece(raw, kind)

    def special_texts(self) -> dict[str, str]:
        """The texts of the tokens that chat templates know by name: `bos_token` and the like."""
        named = self._vocabulary
        tokens = {"bos": named.bos, "eos": named.eos, "unk": named.unknown, "pad": named.padding}
        return {f"{name}_token": self._tokens[token] for name, token in tokens.items() if token is not None}

    def control_texts(self) -> list[str]:
        """The names that `parse_special` finds in a text and nothing else does, the longest first."""
        return [self._tokens[token] for token in self._special if self._types[token] != USER_DEFINED]

    def _partition(self, text: str, parse_special: bool) -> list[str | int]:
        pieces: list[str | int] = [text] if text else []
        for token in self._special if parse_special else self._user_defined:
            mark = self._tokens[token]
            if mark and mark in text:
                strip = _STRIPPED if token in self._stripping else None
                pieces = [part for piece in pieces for part in _cut(piece, mark, token, strip)]
        return pieces


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


def _byte_pairs(metadata: Metadata) -> Tokenizer:
    name = metadata.get("tokenizer.ggml.pre")
    if name not in RULES:
        found = "is not named" if name is None else f"is {name!r}"
        msg = f"The model's pre-tokenizer {found}, and only these are supported: {', '.join(RULES)}."
        raise ModelError(msg)
    rule = RULES[name]
    vocabulary = Vocabulary(metadata, bos=_BPE_SPECIAL, eos=_BPE_SPECIAL, unknown=None)
    algorithm = BytePairs(vocabulary.index, Index(strings(metadata, "merges")), rule)
    return _tokenizer(metadata, vocabulary, algorithm, add_bos=rule.add_bos)


def _scored_pieces(metadata: Metadata) -> Tokenizer:
    vocabulary = Vocabulary(metadata, bos=_SPM_BOS, eos=_SPM_EOS, unknown=_SPM_UNKNOWN)
    algorithm = ScoredPieces(
        vocabulary.index,
        scores(metadata, len(vocabulary.tokens)),
        space_prefix=bool(metadata.get("tokenizer.ggml.add_space_prefix", True)),
        unknown=vocabulary.unknown,
    )
    return _tokenizer(metadata, vocabulary, algorithm, add_bos=True)


def _tokenizer(
    metadata: Metadata, vocabulary: Vocabulary, algorithm: Algorithm, *, add_bos: bool
) -> Tokenizer:
    name = metadata.get("general.name")
    stripping: frozenset[int] = frozenset()
    if isinstance(name, str) and any(model in name.lower() for model in _STRIPPING_MODELS):
        kinds, raw = vocabulary.types, vocabulary.tokens.raw
        special = (i for i, kind in enumerate(kinds) if kind in (UNKNOWN, CONTROL, USER_DEFINED))
        stripping = frozenset(token for token in special if raw(token) not in _NEVER_STRIPPING)
    return Tokenizer(
        vocabulary,
        algorithm,
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", add_bos)),
        add_eos=bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
        stripping=stripping,
    )


def _cut(piece: str | int, mark: str, token: int, strip: str | None) -> list[str | int]:
    if isinstance(piece, int) or mark not in piece:
        return [piece]
    out: list[str | int] = []
    for index, part in enumerate(piece.split(mark)):
        text = part
        if index:
            out.append(token)
            text = part if strip is None else part.lstrip(strip)
        if text:
            out.append(text)
    return out


def _without_surrogates(text: str) -> str:
    """Each byte of a command line that was not UTF-8 arrives as a lone surrogate; it reads as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return text
