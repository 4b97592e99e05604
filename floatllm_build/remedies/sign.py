"""One row of the table of remedies, and its words that several rows share."""

from __future__ import annotations

import re
from dataclasses import dataclass

OUT_OF_MEMORY = "out-of-memory"
COMPILER_CACHE = "compiler-cache"
ELSEWHERE = "name a folder on another disk in FLOATLLM_CACHE_DIR"
AGAIN = "floatllm-build clean, then this again"
# How a shell begins what it says of a command.
SHELL = r"^(?:\S{0,80}/)?sh: (?:(?:line )?\d+: )?"
# What a tool puts in quotes; gcc's are round where the locale has them.
QUOTED = r"['\"`\u2018](?P<what>[^'\"`\u2018\u2019]{1,200})"


@dataclass(frozen=True)
class Sign:
    """What gives a cause away: a word, and a pattern that a line with this word must show.

    The word is a quick look that spares most lines the pattern. The pattern's group `what`, where it has one,
    is what the remedy's sentence names. Repetitions are bounded: a line may be anything.
    """

    word: str
    pattern: str = ""

    def found(self, line: str) -> re.Match[str] | None:
        return re.search(self.pattern or re.escape(self.word), line)


@dataclass(frozen=True)
class Remedy:
    kind: str
    signs: tuple[Sign, ...]
    cause: str
    """May name {what}."""
    fix: str
    unnamed: str = ""
    """Stands for {what} where the sign names nothing."""
    parts: tuple[tuple[str, str], ...] = ()
    """Pattern of {what} and the fix that goes with it, before `fix`."""


def system(said: str) -> Sign:
    """An error of the operating system, where a program reports it and not where a sentence mentions it."""
    return Sign(said, rf"(?:^|: ['\"]?|\(|; reason: |\. ){re.escape(said)}\W*$")
