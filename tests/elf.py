"""What a 64-bit little-endian ELF library says to the loader."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LOAD, _DYNAMIC, _STACK, _RELRO = 1, 2, 0x6474E551, 0x6474E552
_NEEDED, _STRTAB, _SYMTAB, _FLAGS, _FLAGS_1 = 1, 5, 6, 30, 0x6FFFFFFB
_BIND_NOW, _NOW = 8, 1
_EXECUTABLE = 1


@dataclass(frozen=True)
class Library:
    """`relro`: relocations are write-protected; `now`: all are done first; `stack`: it may hold code.

    `needed` are the libraries that it wants, `wanted` the functions of others, `given` its own.
    """

    relro: bool
    now: bool
    stack: bool
    needed: tuple[str, ...]
    wanted: frozenset[str]
    given: frozenset[str]


def read(content: bytes) -> Library:
    """Of a library's whole content."""
    assert content[:6] == b"\x7fELF\x02\x01"
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    heads = [struct.unpack_from("<IIQQQQ", content, offset + size * i) for i in range(count)]
    loads = [(address, place, length) for kind, _, place, address, _, length in heads if kind == _LOAD]

    def place_of(address: int) -> int:
        return next(at + address - begin for begin, at, length in loads if begin <= address < begin + length)

    _, _, begin, _, _, length = next(head for head in heads if head[0] == _DYNAMIC)
    dynamic = [struct.unpack_from("<QQ", content, begin + at) for at in range(0, length, 16)]
    first = dict(reversed(dynamic))
    names, symbols = place_of(first[_STRTAB]), place_of(first[_SYMTAB])

    def text(at: int) -> str:
        return content[names + at : content.index(b"\0", names + at)].decode()

    # Linkers put the names right behind the symbols.
    table = [struct.unpack_from("<IBBHQQ", content, at) for at in range(symbols + 24, names - 23, 24)]
    stacks = [flags for kind, flags, *_ in heads if kind == _STACK]
    return Library(
        relro=any(kind == _RELRO for kind, *_ in heads),
        now=bool(first.get(_FLAGS, 0) & _BIND_NOW or first.get(_FLAGS_1, 0) & _NOW),
        # Without a word about it old kernels make it executable.
        stack=not stacks or bool(stacks[0] & _EXECUTABLE),
        needed=tuple(text(value) for tag, value in dynamic if tag == _NEEDED),
        wanted=frozenset(text(name) for name, _, _, section, _, _ in table if section == 0),
        given=frozenset(text(name) for name, _, _, section, _, _ in table if section != 0),
    )
