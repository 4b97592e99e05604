"""What the probes say beside their facts: where each fact comes from, and what could not be found out."""

from __future__ import annotations

from dataclasses import dataclass, field

from floatllm_build.system import Completed
from floatllm_build.values import Note, Source

_LONGEST_NOTE = 300


def how_it_ended(done: Completed) -> str:
    """In words, of a command that did not answer as it should."""
    words = done.err.strip() or done.out.strip()
    if done.rc in {124, 127} and words:
        return words  # they say already that it did not start or was too slow
    ended = f"killed by signal {-done.rc}" if done.rc < 0 else f"exit {done.rc}"
    return f"{ended}: {words}" if words else ended


@dataclass
class Findings:
    """One for each probe, so that probes may run side by side; joined in a fixed order."""

    notes: list[Note] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    def note(self, source: str, said: str) -> None:
        """What was tried, and what the answer was."""
        self.notes.append(Note(source=source, said=said.strip()[:_LONGEST_NOTE] or "no answer"))

    def failed(self, source: str, done: Completed) -> None:
        """Notes a command or a child that did not answer as it should."""
        self.note(source, how_it_ended(done))

    def source(self, fact: str, source: str) -> None:
        """Says that the fact at `fact` (`cpu.features`), and all below it, comes from `source`."""
        self.sources.append(Source(fact=fact, source=source))
