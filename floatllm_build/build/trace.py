"""The build as a timeline in Chrome's trace format, which Perfetto opens: a lane for each job, and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from floatllm_build.build.ninja_log import Span

_BUILD = 1


@dataclass(frozen=True)
class Moment:
    """What was seen at a time: seconds since the build started, bytes, and jobs that were allowed."""

    time: float
    used: int
    room: int
    jobs: int


def lanes(spans: Iterable[Span]) -> list[tuple[int, Span]]:
    """Each span with the first lane that is free when it starts."""
    free_at: list[float] = []
    placed = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        lane = next((number for number, end in enumerate(free_at) if end <= span.start), len(free_at))
        if lane == len(free_at):
            free_at.append(0.0)
        free_at[lane] = span.end
        placed.append((lane, span))
    return placed


def trace(spans: Sequence[Span], moments: Sequence[Moment], peaks: dict[str, int]) -> dict[str, Any]:
    """The trace's JSON. `peaks`: bytes by unit. Times in it are microseconds."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": _BUILD, "name": "process_name", "args": {"name": "floatllm-build"}}
    ]
    placed = lanes(spans)
    events += [
        {
            "ph": "M",
            "pid": _BUILD,
            "tid": lane + 1,
            "name": "thread_name",
            "args": {"name": f"job {lane + 1}"},
        }
        for lane in sorted({lane for lane, _ in placed})
    ]
    events += [
        {
            "ph": "X",
            "pid": _BUILD,
            "tid": lane + 1,
            "name": span.unit.rpartition("/")[2],
            "cat": "unit",
            "ts": round(span.start * 1e6),
            # Of rounded ends, or two in a lane could overlap.
            "dur": round(span.end * 1e6) - round(span.start * 1e6),
            "args": {"output": span.unit, "peak_mib": peaks.get(span.unit, 0) >> 20},
        }
        for lane, span in placed
    ]
    for moment in moments:
        values = {"memory in use": moment.used >> 20, "memory free": max(0, moment.room) >> 20}
        events += [
            {
                "ph": "C",
                "pid": _BUILD,
                "name": f"{name} (MiB)",
                "ts": round(moment.time * 1e6),
                "args": {"MiB": size},
            }
            for name, size in values.items()
        ]
        jobs = {"jobs": moment.jobs}
        events.append(
            {"ph": "C", "pid": _BUILD, "name": "jobs allowed", "ts": round(moment.time * 1e6), "args": jobs}
        )
    return {"displayTimeUnit": "ms", "traceEvents": events}
