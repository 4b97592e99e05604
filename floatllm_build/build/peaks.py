"""How much memory and time each unit takes: known from measuring, learned on this machine from each build."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from floatllm_build.files import write_whole
from floatllm_build.rules import unit_memory
from floatllm_build.sizes import MIB
from floatllm_build.trust import make_private

_VERSION = 1
# Peaks of the largest units by (compiler, optimised for): without and with GCC's --param ggc-*.
_HEAVY: tuple[tuple[str, Mapping[tuple[str, str], tuple[int, int]]], ...] = (
    (
        r"ggml-cpu/(ops|repack|vec|binary-ops|unary-ops|llamafile/sgemm|arch/\w+/repack|arch/\w+/quants)\.c",
        {
            ("gcc", "speed"): (unit_memory.GCC, unit_memory.GCC_RECLAIMED),
            ("gcc", "size"): (275 * MIB, 140 * MIB),
            ("clang", "speed"): (unit_memory.CLANG,) * 2,
            ("clang", "size"): (unit_memory.CLANG,) * 2,
        },
    ),
    (
        r"ggml-vulkan\.cpp",
        {
            ("gcc", "speed"): (unit_memory.VULKAN, 800 * MIB),
            ("gcc", "size"): (1150 * MIB, 700 * MIB),
            ("clang", "speed"): (900 * MIB,) * 2,
            ("clang", "size"): (900 * MIB,) * 2,
        },
    ),
    (
        r"mul_mm\.comp\.cpp",
        {
            ("gcc", "speed"): (unit_memory.SHADERS_GCC,) * 2,
            ("gcc", "size"): (unit_memory.SHADERS_GCC,) * 2,
            ("clang", "speed"): (unit_memory.SHADERS_CLANG,) * 2,
            ("clang", "size"): (unit_memory.SHADERS_CLANG,) * 2,
        },
    ),
)
# All others: without and with --param ggc-*.
_OTHER = (200 * MIB, 140 * MIB)


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
        return known or Cost(peak=self._guess(unit), seconds=0.0)

    def _guess(self, unit: str) -> int:
        if unit.endswith((".cu.o", ".cu.obj")):
            return unit_memory.NVCC
        for pattern, table in _HEAVY:
            if re.search(pattern, unit):
                # appleclang is one of them.
                kind = "clang" if "clang" in self.compiler else self.compiler
                plain, reclaimed = table.get((kind, self.aim), (unit_memory.GCC,) * 2)
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
    make_private(path.parent)
    write_whole(path, text.encode())
