"""Limits that the probes' own programs and threads ran into."""

from __future__ import annotations

from collections.abc import Mapping

from floatllm_build.system import System
from floatllm_build.values import Limit


def probe_limits(system: System) -> tuple[Limit, ...]:
    """To be asked after all other probes have answered."""
    told = system.native("limits_met")
    rows = [row for row in told if isinstance(row, Mapping)] if isinstance(told, list) else []
    found = ((str(row.get("name", ""))[:40], row.get("value")) for row in rows[:16])
    return tuple(Limit(name=name, value=value) for name, value in found if name and isinstance(value, int))
