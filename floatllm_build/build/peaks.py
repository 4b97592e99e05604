"""How much memory and time each unit takes: known from measuring, learned on this machine from each build."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from floatllm_build.files import write_whole
from floatllm_build.sizes import MIB

_VERSION = 1
# Peaks of the largest units in MiB, by (compiler, optimised for): GCC 12, clang 14, nvcc 13 on ggml 0.15.3.
# The second number is with GCC's --param ggc-*, where that is another one.
_HEAVY: tuple[tuple[str, Mapping[tuple[str, str], tuple[int, int]]], ...] = (
    (
        r"ggml-cpu/(ops|repack|vec|binary-ops|unary-ops|llamafile/sgemm|arch/\w+/repack|arch/\w+/quants)\.c",
        {
            ("gcc", "speed"): (400, 165),
            ("gcc", "size"): (275, 140),
            ("clang", "speed"): (175, 175),
            ("clang", "size"): (175, 175),
        },
    ),
    (
        r"ggml-vulkan\.cpp",
        {
            ("gcc", "speed"): (1600, 800),
            ("gcc", "size"): (1150, 700),
            ("clang", "speed"): (900, 900),
            ("clang", "size"): (900, 900),
        },
    ),
    (
        # 85 MiB of shaders as numbers: no flag saves any of it.
        r"mul_mm\.comp\.cpp",
        {
            ("gcc", "speed"): (3500, 3500),
            ("gcc", "size"): (3500, 3500),
            ("clang", "speed"): (2800, 2800),
            ("clang", "size"): (2800, 2800),
        },
    ),
)
# All others: without and with --param ggc-*.
_OTHER = (200, 140)
_CUDA = 720
_UNKNOWN = 420


@dataclass(frozen=True)
class Cost:
    """Peak in bytes; seconds, 0 where unknown."""

    peak: int
    seconds: float


@dataclass(frozen=True)
class Costs:
    """What units cost with one compiler and one preset. Units are outputs as the build file has them."""

    compiler: str
    """gcc, clang, ..."""
    aim: str
    """speed or size: what the compiler optimises for."""
    reclaiming: bool
    """GCC gives memory back early (--param ggc-*)."""
    learned: Mapping[str, Cost]

    def of(self, unit: str) -> Cost:
        """What was learned of the unit, or else what is known of such units."""
        known = self.learned.get(unit)
        return known or Cost(peak=self._guess(unit) * MIB, seconds=0.0)

    def _guess(self, unit: str) -> int:
        if unit.endswith((".cu.o", ".cu.obj")):
            return _CUDA
        for pattern, table in _HEAVY:
            if re.search(pattern, unit):
                # appleclang is one of them.
                kind = "clang" if "clang" in self.compiler else self.compiler
                plain, reclaimed = table.get((kind, self.aim), (_UNKNOWN, _UNKNOWN))
                return reclaimed if self.reclaiming else plain
        return _OTHER[self.reclaiming and self.compiler == "gcc"]


def load_learned(path: Path) -> dict[str, Cost]:
    """What former builds took; empty where the file is not there or makes no sense."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != _VERSION:
            return {}
        learned = {
            str(unit): Cost(peak=int(cost["peak"]), seconds=float(cost["seconds"]))
            for unit, cost in content["units"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return {}
    sensible = all(cost.peak >= 0 and 0 <= cost.seconds < math.inf for cost in learned.values())
    return learned if sensible else {}


def save_learned(path: Path, learned: Mapping[str, Cost]) -> None:
    units = {unit: {"peak": cost.peak, "seconds": round(cost.seconds, 2)} for unit, cost in learned.items()}
    text = json.dumps({"schema_version": _VERSION, "units": dict(sorted(units.items()))}, indent=1)
    write_whole(path, text.encode())
