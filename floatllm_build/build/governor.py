"""How many jobs may run, in which order, and what to give up when memory was not enough. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from floatllm_build.build.peaks import Cost
from floatllm_build.values import MemoryFacts

# Stays free while compilers run: for the page cache, and for what others start meanwhile.
_RESERVE = 40 << 20
# GCC that gives memory back early compiles this much longer.
_RECLAIM_TIME = 1.3


def spare(memory: MemoryFacts, used: int, most: int | None, reserve: int = _RESERVE) -> int:
    """Bytes that may still be taken, while the build takes `used` and may take `most` where that is set.

    Less than 0 where others took of what is to stay free. Where nothing bounds the memory, nothing is known.
    """
    there = memory.room if memory.bounds else sys.maxsize
    return min(there, most - used if most else there) - reserve


@dataclass(frozen=True)
class Phase:
    """One run of ninja. No units: all that is left."""

    units: tuple[str, ...]
    jobs: int


def phases(left: Mapping[str, Cost], limit: int, room: int) -> tuple[Phase, ...]:
    """The runs in which `left` (unit -> cost) is built with at most `limit` jobs in `room` bytes.

    Where any `limit` units fit beside each other there is one. Else those too large for that come first, as
    many at once as fit however they are drawn: what is left for the end is then small.
    """
    largest = sorted((cost.peak for cost in left.values()), reverse=True)[:limit]
    if not left or sum(largest) <= room:
        return (Phase((), limit),)
    heavy = {unit: cost for unit, cost in left.items() if cost.peak > room // limit}
    first = jobs_that_fit((cost.peak for cost in heavy.values()), limit, room)
    return Phase(tuple(heavy), first), Phase((), limit)


def jobs_that_fit(peaks: Iterable[int], limit: int, room: int) -> int:
    """How many of any units fit at once, at least 1: the largest ones are taken."""
    largest = sorted(peaks, reverse=True)[:limit]
    fitting = sum(1 for taken in accumulate(largest) if taken <= room)
    return limit if fitting == len(largest) else max(fitting, 1)


def admitted(running: Sequence[tuple[int, int]], next_peak: int, room: int, limit: int) -> int:
    """Jobs that may run now, at least 1. `running` holds (resident, expected peak) of each job.

    What is there must hold what the running ones will still grow by, and then each further one. Where it does
    not, or there is less than nothing because others took what was to stay free, some that end are not
    followed by new ones.
    """
    growth = sum(max(0, peak - resident) for resident, peak in running)
    more = (room - growth) // max(next_peak, 1)
    return max(1, min(limit, len(running) + more))


def time_for(left: Mapping[str, Cost], limit: int, room: int) -> float:
    """A number that grows with the time that `phases` need: seconds where all are known, else a likeness."""
    known = all(cost.seconds for cost in left.values())
    weights = {unit: cost.seconds if known else cost.peak for unit, cost in left.items()}
    total, rest = 0.0, dict(weights)
    for phase in phases(left, limit, room):
        units = phase.units or tuple(rest)
        total += sum(rest.pop(unit) for unit in units) / phase.jobs
    return total


def reclaiming_pays(plain: Mapping[str, Cost], reclaimed: Mapping[str, Cost], limit: int, room: int) -> bool:
    """Whether GCC should give memory back early: each unit slower, but more at once, or it would not fit."""
    if max((cost.peak for cost in plain.values()), default=0) > room:
        return True
    # The likeness of seconds is taken from the same costs for both, or less memory would look like less time.
    slower = {
        unit: Cost(cost.peak, plain[unit].seconds or plain[unit].peak) for unit, cost in reclaimed.items()
    }
    normal = {unit: Cost(cost.peak, cost.seconds or cost.peak) for unit, cost in plain.items()}
    return _RECLAIM_TIME * time_for(slower, limit, room) < time_for(normal, limit, room)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What was given up so far to make the build fit."""

    jobs: int
    reclaiming: bool
    smaller: bool
    """Optimised for size."""
    sparing: bool = False
    """GCC reclaims all the time."""
    flash_attention: bool = True
    """Of a GPU backend's kernels."""


def next_rung(rung: Rung, compiler: str, backend: str, *, alone: bool) -> tuple[Rung, str] | None:
    """The rung below, and what is given up in words; None where there is none.

    `alone`: what was ended had run without another job beside it, so that fewer jobs would not help.
    """
    if compiler == "gcc" and not rung.reclaiming:
        return replace(rung, reclaiming=True), "GCC gives memory back early, and compiles a third longer"
    if rung.jobs > 1 and not alone:
        jobs = max(1, rung.jobs // 2)
        return replace(rung, jobs=jobs), "one job at a time" if jobs == 1 else f"{jobs} jobs at a time"
    if not rung.smaller:
        return replace(rung, smaller=True), "what is left is optimised for size, which needs less memory"
    if compiler == "gcc" and not rung.sparing:
        words = "GCC gives memory back all the time, and compiles half as long again"
        return replace(rung, sparing=True), words
    if backend in {"cuda", "hip"} and rung.flash_attention:
        return replace(rung, flash_attention=False), f"{backend} without its flash attention kernels"
    return None
