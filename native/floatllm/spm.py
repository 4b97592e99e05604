"""SentencePiece-style pieces: neighbours are joined by score, and what no piece covers is spelt in bytes."""

from __future__ import annotations

import re
from heapq import heappop, heappush
from itertools import accumulate
from typing import TYPE_CHECKING

from floatllm.vocabulary import BYTE, NORMAL

if TYPE_CHECKING:
    from array import array

    from floatllm.vocabulary import Index

# Stands for a space inside tokens.
_SPACE = "\u2581"
_RAW_SPACE = _SPACE.encode()

# As in bpe.py: a longer word is too rare to keep.
_CACHED_WORD = 48
_CACHED_WORDS = 8192


class ScoredPieces:
    """Text to token ids and tokens to bytes, for `tokenizer.ggml.model` = `llama`."""

    def __init__(
        self, tokens: Index, scores: array[float], *, space_prefix: bool, unknown: int | None
    ) -> None:
        """`space_prefix` puts a space before each text, so also before what follows a special token.

        `unknown` is given for a character that has neither a piece nor bytes.
        """
        self._tokens, self._scores = tokens, scores
        self._space_prefix, self._unknown = space_prefix, unknown
        self._bytes = [_byte_token(tokens, byte) for byte in range(256)]
        self._words = _word_start(tokens)
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that holds no special token: the whole, or what stands between two."""
        if self._space_prefix:
            text = " " + text
        out: list[int] = []
        cache = self._cache
        for word in self._words.split(text.replace(" ", _SPACE)):
            found = cache.get(word)
            if found is None:
                found = self._merge(word)
                if len(word) <= _CACHED_WORD:
                    if len(cache) >= _CACHED_WORDS:
                        cache.clear()
                    cache[word] = found
            out += found
        return out

    def piece(self, token: bytes, kind: int) -> bytes:
        """The bytes that an ordinary token stands for."""
        if kind == NORMAL:
            return token.replace(_RAW_SPACE, b" ")
        if kind == BYTE:
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                return b""
        return b""

    def _merge(self, word: str) -> tuple[int, ...]:
        text = word.encode()
        find = self._tokens.find
        out: list[int] = []
        for start, end in self._spans(text, [len(character.encode()) for character in word]):
            token = find(text[start:end])
            out += [token] if token >= 0 else self._spelt(text[start:end])
        return tuple(out)

    def _spans(self, text: bytes, sizes: list[int]) -> list[tuple[int, int]]:
        """Joins neighbours into pieces, the best score first and of equals the leftmost.

        `sizes` are those of the characters; a symbol that is joined to the one before it gets 0.
        """
        count = len(sizes)
        find, scores = self._tokens.find, self._scores
        starts = [0, *accumulate(sizes)]
        after = list(range(1, count + 1))
        before = list(range(-1, count - 1))
        # (worst first, left, joined size, right): stale where a symbol has grown or gone since.
        queue: list[tuple[float, int, int, int]] = []

        def consider(left: int, right: int) -> None:
            size = sizes[left] + sizes[right]
            token = find(text[starts[left] : starts[left] + size])
            if token >= 0:
                heappush(queue, (-scores[token], left, size, right))

        for left in range(count - 1):
            consider(left, left + 1)
        while queue:
            _, left, size, right = heappop(queue)
            if not sizes[left] or not sizes[right] or sizes[left] + sizes[right] != size:
                continue
            sizes[left], sizes[right] = size, 0
            behind, ahead = before[left], after[right]
            after[left] = ahead
            if behind >= 0:
                consider(behind, left)
            if ahead < count:
                before[ahead] = left
                consider(left, ahead)
        return [(start, start + size) for start, size in zip(starts, sizes, strict=False) if size]

    def _spelt(self, symbol: bytes) -> list[int]:
        tokens = [self._bytes[byte] for byte in symbol]
        if min(tokens) >= 0:
            return tokens
        return [] if self._unknown is None else [self._unknown]


def _byte_token(tokens: Index, byte: int) -> int:
    named = tokens.find(b"<0x%02X>" % byte)
    return named if named >= 0 else tokens.find(bytes([byte]))


def _word_start(tokens: Index) -> re.Pattern[str]:
    """Where a text can be cut without changing its pieces: before a space that no token has inside.

    A piece can grow over such a place only into a token that holds the character there and the space behind
    it. Nearly no vocabulary has one, so words can be looked up instead of merged again.
    """
    data = tokens.strings.data
    joined = {"\0"}  # the bytes between two strings look like it
    for match in re.finditer(rb"[^\0](?=" + _RAW_SPACE + rb")", data):
        joined.add(data[max(0, match.end() - 4) : match.end()].decode("utf-8", "replace")[-1])
    return re.compile(f"(?<=[^{''.join(map(re.escape, sorted(joined)))}])(?={_SPACE})")
