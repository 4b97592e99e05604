"""Sizes as people write them."""

from __future__ import annotations

import re

from floatllm_build.errors import UsageFaultError

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
_FACTORS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes in `512M`, `2GiB`, `1.5g` or a plain number; K, M, G and T are powers of 1024.

    Raises UsageFaultError for anything else, and for a size of less than one byte.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*(?:([kmgt])(?:ib)?|b)?", text.strip().lower())
    size = int(float(match[1]) * _FACTORS[match[2] or ""]) if match else 0
    if size < 1:
        raise UsageFaultError(
            f"`{text}` is not a size. Write bytes or a number with K, M, G or T: 512M, 2GiB."
        )
    return size


def show_size(size: int) -> str:
    """`size` bytes in the largest unit that keeps the number at 1 or more."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
