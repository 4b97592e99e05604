"""Sizes as people write them. K, M, G and T are powers of 1024, with or without `iB`: 48M is 48 MiB."""

from __future__ import annotations

import re
from fractions import Fraction

from floatllm.errors import UsageError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB)?|B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes in `text`: `1048576`, `512M`, `2GiB`, `1.5G`.

    `M` and `MiB` both mean 2**20, and K, G and T go the same way. Raises UsageError for anything else,
    for zero, and for more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        msg = f"{text!r} is not a size: write bytes or a number with K, M, G or T, such as 512M or 2GiB."
        raise UsageError(msg)
    size = int(Fraction(match[1]) * _UNITS[(match[2] or "").upper()])
    if not 0 < size < 2**63:
        msg = f"{text!r} is out of range for a size: write at least one byte and less than 8388608T."
        raise UsageError(msg)
    return size


def as_bytes(size: int | str | None) -> int:
    """A size given as bytes, as text or not at all; None is 0, which the engine reads as "choose"."""
    if size is None:
        return 0
    if isinstance(size, str):
        return parse_size(size)
    if not 0 < size < 2**63:
        msg = f"{size} is out of range for a size in bytes."
        raise UsageError(msg)
    return size


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that leaves at least 1: `98362432` is `93.8 MiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
