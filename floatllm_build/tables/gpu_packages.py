"""What Debian's and Ubuntu's releases have packages of for CUDA and ROCm; derivatives have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Packages:
    gcc: int
    """Major version of the default compiler."""
    cuda: tuple[int, int]
    """Of the package nvidia-cuda-toolkit."""
    rocm: tuple[int, int]
    """Of the package hipcc; (0, 0) if there is none."""


# As the distributions' package pages have them, November 2026; `apt policy` says it exactly.
UBUNTU: Mapping[tuple[int, int], Packages] = {
    (20, 4): Packages(gcc=9, cuda=(10, 1), rocm=(0, 0)),
    (22, 4): Packages(gcc=11, cuda=(11, 5), rocm=(5, 0)),
    (23, 4): Packages(gcc=12, cuda=(11, 8), rocm=(5, 2)),
    (23, 10): Packages(gcc=13, cuda=(12, 0), rocm=(5, 2)),
    (24, 4): Packages(gcc=13, cuda=(12, 0), rocm=(5, 7)),
    (25, 4): Packages(gcc=14, cuda=(12, 2), rocm=(6, 1)),
    (25, 10): Packages(gcc=15, cuda=(12, 4), rocm=(6, 4)),
}
DEBIAN: Mapping[int, Packages] = {
    10: Packages(gcc=8, cuda=(9, 2), rocm=(0, 0)),
    11: Packages(gcc=10, cuda=(11, 2), rocm=(0, 0)),
    12: Packages(gcc=12, cuda=(11, 8), rocm=(5, 2)),
    13: Packages(gcc=14, cuda=(12, 4), rocm=(6, 1)),
}
