"""How far a build is, and how long what is left will take. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# Seconds before which the time left would be a wild guess.
_FIRST_GUESS = 3.0


@dataclass
class Pace:
    """What is done of a build, weighed by the seconds that each unit took in former builds.

    A unit that is not known weighs as much as the known ones do on average.
    """

    total: int
    """Units in all."""
    seconds: Mapping[str, float]
    """Unit -> seconds, of those that are known."""
    ended: set[str] = field(default_factory=set)
    last: float = 0.0
    """When the last unit ended, in seconds since the start."""

    def end(self, unit: str, now: float) -> None:
        self.ended.add(unit)
        self.last = now

    def again(self, units: Iterable[str]) -> None:
        """These are still to be built after all."""
        self.ended.difference_update(units)

    def left(self, now: float) -> float:
        """Seconds; 0 where nobody knows.

        The pace is that up to the last end, so it counts down while a long unit runs.
        """
        average = sum(self.seconds.values()) / len(self.seconds) if self.seconds else 1.0
        done = sum(self.seconds.get(unit, average) for unit in self.ended)
        whole = sum(self.seconds.values()) + (self.total - len(self.seconds)) * average
        if not done or self.last < _FIRST_GUESS:
            return 0.0
        return max(0.0, self.last / done * (whole - done) - (now - self.last))
