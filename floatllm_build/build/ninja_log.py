"""What ninja is going to do, and what it did and how long that took."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Where a compile or link command names what it makes.
OUTPUT = re.compile(r"(?:^|\s)(?:-o\s+|[/-]Fo|[/-]out:)([^\s\"']+)(?=\s|$)")
_STATUS = re.compile(r"^\[[\d/]+\] ")
# No build lasts longer than this has digits; a damaged log may say anything.
_NUMBER = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True)
class Span:
    """A unit that was made; seconds since ninja was started."""

    unit: str
    start: float
    end: float


def planned_units(dry_run: str) -> tuple[str, ...]:
    """Outputs of the compile and link commands that `ninja -n -v` lists, in its order."""
    # CMake's own commands begin with `cd`, and name files as seen from there, not as the build file does.
    commands = (_STATUS.sub("", line) for line in dry_run.splitlines())
    found = (OUTPUT.search(command) for command in commands if not command.startswith("cd "))
    return tuple(dict.fromkeys(match[1] for match in found if match))


def log_lines(out: Path) -> frozenset[str]:
    """What stands in the log of a build folder; nothing where there is none."""
    try:
        text = (out / ".ninja_log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(text.splitlines())


def spans_since(out: Path, before: frozenset[str]) -> tuple[Span, ...]:
    """What was made since the log had these lines. Ninja may have put it in another order meanwhile."""
    return parse_log(log_lines(out) - before)


def parse_log(lines: Iterable[str]) -> tuple[Span, ...]:
    """Lines of `start end mtime output hash`, times in milliseconds, by their start; others are let be.

    So versions 5 to 7 of the log have them. A command with several outputs has several lines, which differ
    in the output alone: it is one unit, under the name that sorts first.
    """
    spans: dict[tuple[str, ...], Span] = {}
    for line in sorted(lines):
        fields = line.split("\t")
        if len(fields) == 5 and all(_NUMBER.fullmatch(field) for field in fields[:2]):
            start, end, _, unit, command = fields
            spans.setdefault((start, end, command), Span(unit, int(start) / 1000, int(end) / 1000))
    return tuple(sorted(spans.values(), key=lambda span: (span.start, span.end, span.unit)))
