"""What happens during a flow, told to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepStarted:
    step: str


@dataclass(frozen=True)
class StepDone:
    step: str
    detail: str


@dataclass(frozen=True)
class UnitProgress:
    """done of total units are built; `current` is the unit that has run for longest.

    Bytes: `used` by the build's processes of the `room` there is for them. `left` seconds, 0 unknown.
    """

    done: int
    total: int
    current: str
    seconds: float
    used: int = 0
    room: int = 0
    jobs: int = 0
    left: float = 0.0


@dataclass(frozen=True)
class BuildSummary:
    """The units that took longest (name, seconds) and those that took most memory (name, bytes)."""

    slowest: tuple[tuple[str, float], ...]
    hungriest: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Said:
    """A line of a child that the user should see as it is."""

    line: str


@dataclass(frozen=True)
class Proving:
    """A line of a self-test: many, and of interest where it fails."""

    line: str


@dataclass(frozen=True)
class Hint:
    text: str


Event = StepStarted | StepDone | UnitProgress | BuildSummary | Said | Proving | Hint
Listener = Callable[[Event], None]


def unheard(_event: Event) -> None:
    """For whoever listens to nothing."""
