"""Byte-level byte-pair encoding over a vocabulary kept in the bytes that the file holds."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from floatllm.pretokenize import Rule, split
from floatllm.vocabulary import NORMAL

if TYPE_CHECKING:
    from floatllm.vocabulary import Index

# A word longer than this is rare enough that keeping its tokens would only cost memory.
_CACHED_WORD = 48
_CACHED_WORDS = 8192


def _byte_symbols() -> list[str]:
    """GPT-2's printable character for each byte: itself where printable, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


_SYMBOLS = _byte_symbols()
_ENCODED = [symbol.encode() for symbol in _SYMBOLS]
_BYTES = {symbol: bytes([byte]) for byte, symbol in enumerate(_SYMBOLS)}


class BytePairs:
    """Text to token ids and tokens to bytes, for `tokenizer.ggml.model` = `gpt2`."""

    def __init__(self, tokens: Index, merges: Index, rule: Rule) -> None:
        """`merges` holds "left right" strings, the most wanted first; `rule` is the pre-tokenizer."""
        self._tokens, self._merges, self._rule = tokens, merges, rule
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text that holds no special token. A byte that the vocabulary lacks gives none."""
        out: list[int] = []
        for word in split(text, self._rule):
            out += self._word(word)
        return out

    def piece(self, token: bytes, kind: int) -> bytes:
        """The bytes that an ordinary token stands for; characters outside the alphabet are themselves."""
        if kind != NORMAL:
            return b""
        symbols = token.decode("utf-8", "replace")
        return b"".join(_BYTES.get(symbol) or symbol.encode() for symbol in symbols)

    def _word(self, word: str) -> tuple[int, ...]:
        found = self._cache.get(word)
        if found is None:
            found = self._encode(word)
            if len(word) <= _CACHED_WORD:
                if len(self._cache) >= _CACHED_WORDS:
                    self._cache.clear()
                self._cache[word] = found
        return found

    def _encode(self, word: str) -> tuple[int, ...]:
        symbols = [_ENCODED[byte] for byte in word.encode()]
        find = self._tokens.find
        if self._rule.whole_words and (whole := find(b"".join(symbols))) >= 0:
            return (whole,)
        out = []
        for symbol in self._merge(symbols):
            token = find(symbol)
            if token >= 0:
                out.append(token)
            else:
                out += [part for byte in symbol if (part := find(bytes([byte]))) >= 0]
        return tuple(out)

    def _merge(self, symbols: list[bytes]) -> list[bytes]:
        """Joins neighbours, the best ranked pair first and of equals the leftmost; n log n in the length."""
        count = len(symbols)
        if count < 2:
            return symbols
        rank = self._merges.find
        after = list(range(1, count + 1))
        before = list(range(-1, count - 1))
        # (rank, left, right, joined length): a stale entry is one whose symbols have grown or gone since.
        queue = []
        for left in range(count - 1):
            pair = rank(symbols[left] + b" " + symbols[left + 1])
            if pair >= 0:
                queue.append((pair, left, left + 1, len(symbols[left]) + len(symbols[left + 1])))
        heapify(queue)
        while queue:
            _, left, right, length = heappop(queue)
            if not symbols[left] or not symbols[right] or len(symbols[left]) + len(symbols[right]) != length:
                continue
            symbols[left] += symbols[right]
            symbols[right] = b""
            behind, ahead = before[left], after[right]
            after[left] = ahead
            if ahead < count:
                before[ahead] = left
            for first, second in ((behind, left), (left, ahead)):
                if first >= 0 and second < count:
                    pair = rank(symbols[first] + b" " + symbols[second])
                    if pair >= 0:
                        heappush(queue, (pair, first, second, len(symbols[first]) + len(symbols[second])))
        return [symbol for symbol in symbols if symbol]
