"""Models in several files whose files do not belong together, on top of `hostile`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hostile import I32, STRING, TYPE_F32, U16, U32, File, pair, tensor

PARTS = 3


@dataclass(frozen=True)
class Wrong:
    """Files of a model by their number from 1, and what is said of them: a part of the reason, and where."""

    files: Callable[[], dict[int, bytes]]
    reason: str
    part: int = 1
    #: Whether the wrong thing stands at a byte of the file.
    placed: bool = True


def keys(number: int, count: int = PARTS, tensors: int = PARTS) -> list[bytes]:
    """What a part says of itself; `number` from 0."""
    return [
        pair("split.no", U16, number),
        pair("split.count", U16, count),
        pair("split.tensors.count", I32, tensors),
    ]


def part(number: int, pairs: list[bytes] | None = None, name: str | None = None) -> bytes:
    """Part `number` from 1, with one tensor of its own."""
    said = keys(number - 1) if pairs is None else pairs
    if number == 1:
        said = [pair("general.architecture", STRING, "llama"), *said]
    return File(pairs=said, tensors=[tensor(name or f"t{number}", (32,), TYPE_F32, 0)]).build()


def good() -> dict[int, bytes]:
    """Three files of one tensor each."""
    return {number: part(number) for number in range(1, PARTS + 1)}


def bare_first() -> dict[int, bytes]:
    """The first file holds metadata alone."""
    first = [pair("general.architecture", STRING, "llama"), *keys(0, tensors=2)]
    return {
        1: File(pairs=first, tensors=[], data=b"").build(),
        2: part(2, keys(1, tensors=2)),
        3: part(3, keys(2, tensors=2)),
    }


def write(folder: Path, files: dict[int, bytes], count: int = PARTS) -> Path:
    """Writes the files under the names that belong to them; returns the first."""
    for number, data in files.items():
        name(folder, number, count).write_bytes(data)
    return name(folder, 1, count)


def name(folder: Path, number: int, count: int = PARTS) -> Path:
    """Where part `number` lies."""
    return folder / f"model-{number:05}-of-{count:05}.gguf"


def _with(number: int, data: bytes) -> Callable[[], dict[int, bytes]]:
    return lambda: {**good(), number: data}


WRONG: dict[str, Wrong] = {
    "a part is missing": Wrong(lambda: {1: part(1), 2: part(2)}, "Part 3 of the 3", 3, placed=False),
    "a part is empty": Wrong(_with(2, b""), "not a GGUF", 2),
    "a part is text": Wrong(_with(2, b"hello" * 100), "not a GGUF", 2),
    "a part is cut short": Wrong(_with(3, part(3)[:-1]), "cut short", 3),
    "two parts are swapped": Wrong(lambda: {1: part(1), 2: part(3), 3: part(2)}, "split.no is 2", 2),
    "the same part twice": Wrong(_with(3, part(2)), "split.no is 1", 3),
    "the first again as the second": Wrong(_with(2, part(1)), "split.no is 0", 2),
    "a part of a split in four": Wrong(_with(2, part(2, keys(1, count=4))), "split.count is 4", 2),
    "a part of another number of tensors": Wrong(
        _with(2, part(2, keys(1, tensors=7))), "split.tensors.count is 7", 2
    ),
    "a part that says nothing of itself": Wrong(_with(2, part(2, [])), "split.count is missing", 2),
    "a part that says it in words": Wrong(
        _with(2, part(2, [pair("split.count", STRING, "3")])), "not a number", 2
    ),
    "a tensor in two parts": Wrong(_with(3, part(3, name="t1")), "t1 appears twice", 3),
    "data that only the first part has": Wrong(
        lambda: {
            **good(),
            1: part(1) + bytes(1 << 16),
            2: File(pairs=keys(1), tensors=[tensor("t2", (1 << 12,), TYPE_F32, 0)]).build(),
        },
        "cut short",
        2,
    ),
    "more tensors than there are": Wrong(
        lambda: {number: part(number, keys(number - 1, tensors=4)) for number in (1, 2, 3)},
        "hold 3 tensors",
    ),
    "a part with a broken table": Wrong(
        _with(2, File(pairs=keys(1), tensors=[tensor("t2", (32, 0), TYPE_F32, 0)]).build()),
        "dimension of 0",
        2,
    ),
    "parts beyond number": Wrong(_with(1, part(1, [pair("split.count", U32, 2**31)])), "2147483648 files"),
    "parts below zero": Wrong(_with(1, part(1, [pair("split.count", I32, -3)])), "whole number"),
    "a name of another count": Wrong(_with(1, part(1, keys(0, count=2))), "-00001-of-00002.gguf"),
}
