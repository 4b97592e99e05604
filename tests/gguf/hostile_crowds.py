"""Files that are wrong by their numbers: more entries, or longer ones, than anybody could mean."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from hostile import ARRAY, STRING, TYPE_F32, U8, File, array, pair, tensor, text

# The most that the engine reads.
KEYS, TENSORS = 131072, 65536
_BROKEN = tensor("broken", (0,), TYPE_F32, 0)


def _file(path: Path, pairs: list[bytes], tensors: list[bytes]) -> None:
    path.write_bytes(File(pairs=pairs, tensors=tensors).build())


def many_keys(count: int) -> bytes:
    """`count` keys, all different: what a quadratic search for duplicates drowns in."""
    return File(pairs=[pair(f"k{i}", U8, 0) for i in range(count)]).build()


def one_hash(count: int) -> Iterator[bytes]:
    """`count` different names of 16 bytes for which libstdc++'s std::hash gives one and the same number.

    It is MurmurHash64A with a fixed seed: h = (h ^ f(block)) * m for each block of eight bytes, where f can
    be undone. So the second block is chosen to take back what the first one did.
    """
    m, mask, half = 0xC6A4A7935BD1E995, 2**64 - 1, 47
    undo = pow(m, -1, 2**64)

    def mix(block: int) -> int:
        block = block * m & mask
        return (block ^ block >> half) * m & mask

    def unmix(value: int) -> int:
        value = value * undo & mask
        return (value ^ value >> half) * undo & mask

    start = 0xC70F6907 ^ (16 * m & mask)
    first = 0x0101010101010101
    while count:
        first += 1
        name = struct.pack("<QQ", first, unmix((start ^ mix(first)) * m & mask))
        if b"\0" not in name:
            yield name
            count -= 1


def _sparse(pairs: list[bytes], size: int) -> Callable[[Path], None]:
    """A file that goes on in zeros, which take no room on the disk."""

    def write(path: Path) -> None:
        path.write_bytes(File(pairs=pairs, tensors=[], data=b"").build())
        os.truncate(path, size)

    return write


# What must be refused all the same within a second and 64 MB.
CROWDS: dict[str, Callable[[Path], None]] = {
    "an array that claims a gigabyte of strings, and has it": _sparse(
        [array("a", STRING, 2**27 - 1, b"")], 1 << 30
    ),
    "256 MiB of empty strings": _sparse([array("a", STRING, 2**25 - 1024, b"")], 1 << 30),
    "a string of 1 GiB": _sparse([text("a") + struct.pack("<iQ", STRING, (1 << 30) - 100)], 1 << 30),
    "an array of 2^28 bytes": _sparse([text("a") + struct.pack("<iiQ", ARRAY, U8, 2**28)], 1 << 30),
    "a million keys": lambda path: path.write_bytes(many_keys(1_000_000)) and None,
    "as many keys as are read": lambda path: _file(
        path, [pair(f"{i:012}", U8, 0) for i in range(KEYS)], [_BROKEN]
    ),
    "keys of one hash": lambda path: _file(path, [pair(key, U8, 0) for key in one_hash(KEYS)], [_BROKEN]),
    "a thousand keys of the greatest length": lambda path: _file(
        path, [pair(f"{i:065535}", U8, 0) for i in range(1000)], []
    ),
    "as many tensors as are read, of the longest names": lambda path: _file(
        path, [], [tensor(f"{i:063}", (1,), TYPE_F32, 0) for i in range(TENSORS)]
    ),
    "tensors of one hash": lambda path: _file(
        path, [], [tensor(name, (1,), TYPE_F32, 0) for name in one_hash(TENSORS)]
    ),
    "more tensors than are read": lambda path: _file(
        path, [], [tensor(f"{i}", (1,), TYPE_F32, 0) for i in range(TENSORS + 1)]
    ),
}
