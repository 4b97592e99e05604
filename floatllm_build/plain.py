"""Texts without colours: what no terminal may obey, and a build told in plain lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from floatllm_build.events import (
    BuildSummary,
    Event,
    Hint,
    Proving,
    Said,
    StepDone,
    StepStarted,
    UnitProgress,
)
from floatllm_build.sizes import show_size

_STEP = 10
# Seconds.
_MINUTES_FROM = 100
# Plain lines come at least that often.
_SILENCE = 30


def printable(text: str) -> str:
    r"""`text` on one line; what a terminal would obey is written as an escape (`\x1b`).

    Names of devices come from drivers, and from recorded hosts that anybody may have made.
    """
    text = " ".join(text.replace("\t", " ").splitlines())
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of ours that may have several lines, with what it quotes."""
    return "\n".join(map(printable, text.splitlines()))


def tilde(text: str) -> str:
    """The home folder as people write it. `{home-1}`, someone else's, stays as it is."""
    return text.replace("{home}", "~")


class Lines:
    """Tells events in lines: one for each step, and one for each tenth of the units."""

    def __init__(self, put: Callable[[str, str], None]) -> None:
        """`put` takes the name of a step, empty for a line that has none, and a printable text."""
        self.put = put
        self.tenth = 0
        self.told = 0.0
        self.verbose = True
        """Whether a proof is told line by line."""

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone(step, detail):
                self.put(step, printable(detail))
            case StepStarted("build"):
                self.put("build", "cmake configures")
            case Proving(line):
                if self.verbose:
                    self.put("", printable(line))
            case Said(line):
                self.put("", printable(line))
            case Hint(text):
                self.put("", printable_lines(text))
            case UnitProgress():
                self.progress(event)
            case BuildSummary(slowest, hungriest):
                self._list("slowest", [f"{name} {seconds:.0f} s" for name, seconds in slowest])
                self._list("hungry", [f"{name} {show_size(peak)}" for name, peak in hungriest if peak])

    def _list(self, what: str, named: Sequence[str]) -> None:
        if named:
            self.put(what, printable(", ".join(named)))

    def progress(self, now: UnitProgress) -> None:
        tenth = now.done * _STEP // now.total if now.total else 0
        if tenth > self.tenth or now.seconds - self.told >= _SILENCE:
            self.tenth, self.told = tenth, now.seconds
            unit = f" {now.current}" if now.current else ""
            seen = ", ".join((f"{now.seconds:.0f} s", *what_it_takes(now)))
            self.put("build", printable(f"{now.done}/{now.total}{unit} ({seen})"))


def what_it_takes(now: UnitProgress) -> list[str]:
    """What the build takes of what it may, how many jobs it may run at once, and how long it will take."""
    jobs = "1 job" if now.jobs == 1 else f"{now.jobs} jobs"
    memory = [f"{show_size(now.used)} of {show_size(max(now.room, 0))}", jobs] if now.used else []
    minutes = now.left >= _MINUTES_FROM
    left = f"{now.left / 60:.0f} min" if minutes else f"{now.left:.0f} s"
    return [*memory, f"{left} left"] if now.left >= 1 else memory
