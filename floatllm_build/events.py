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
    """done of total units are built; `current` is the unit that was started or finished last."""

    done: int
    total: int
    current: str
    seconds: float


@dataclass(frozen=True)
class Said:
    """A line of a child that the user should see as it is."""

    line: str


@dataclass(frozen=True)
class Hint:
    text: str


Event = StepStarted | StepDone | UnitProgress | Said | Hint
Listener = Callable[[Event], None]
