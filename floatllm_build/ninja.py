"""Reads ninja's output while it builds. Pure: text in, progress out."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

# finished / total / started, so that a line tells a start from an end.
STATUS = "[%f/%t/%s] "

_LINE = re.compile(r"^\[(\d+)/(\d+)/(\d+)\] (.*)$")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Clears what is left of the line before.
_LINE_END = "\x1b[K"
_DESCRIPTION = re.compile(r"^(Building|Linking|Generating|Re-running|Re-checking|Copying)\b.*?(\S+)$")
_TRIED = "It fails with the following output:"
_COMPILERS_WORDS = re.compile(r"\b(?:fatal )?error\b ?(?:[A-Z]+\d+)?:|undefined reference|\bld\S*: ")


@dataclass(frozen=True)
class Progress:
    done: int
    total: int
    current: str


def unit_name(description: str) -> str:
    """What a person calls the unit: the object's source without CMake's folders."""
    match = _DESCRIPTION.match(description)
    name = match[2] if match else description
    name = re.sub(r"CMakeFiles/[^/]+\.dir/", "", name)
    # A copy of ours of a file of the pinned tree has the folders above it in its name.
    name = re.sub(r"^.*/__/patched/", "", name)
    return re.sub(r"\.o(bj)?$", "", name)


@dataclass
class NinjaReader:
    """Takes pieces of output; gives progress, and the lines that belong into the log.

    On a terminal ninja overwrites its status line at each start and end; the log gets the ends only.
    """

    rest: str = ""
    done: int = 0
    total: int = 0
    log: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    """What was started and has not ended, as ninja describes it, the longest running first."""
    ended: list[str] = field(default_factory=list)

    def feed(self, text: str) -> list[Progress]:
        *lines, self.rest = re.split(r"\r\n|\r|\n", self.rest + text)
        return [progress for line in lines if (progress := self._line(_ESCAPES.sub("", line)))]

    def close(self) -> None:
        """Takes what is left when the output ended without a line break."""
        if self.rest:
            self._line(_ESCAPES.sub("", self.rest))
            self.rest = ""

    def longest(self) -> str:
        """What has run for longest, as ninja describes it; empty where it does not say."""
        if self.running:
            return self.running[0]
        # On a terminal a line stands unfinished until the next one overwrites it.
        match = _LINE.match(_ESCAPES.sub("", self.rest)) if self.rest.endswith(_LINE_END) else None
        return match[4] if match and int(match[1]) <= self.done else ""

    def take_log(self) -> str:
        lines, self.log = self.log, []
        return "".join(f"{line}\n" for line in lines)

    def _line(self, line: str) -> Progress | None:
        match = _LINE.match(line)
        if not match:
            if line.strip():
                self.log.append(line)
            return None
        done, total = int(match[1]), int(match[2])
        if done > self.done:
            self.log.append(f"[{done}/{total}] {match[4]}")
            self.ended.append(match[4])
            with contextlib.suppress(ValueError):
                self.running.remove(match[4])
        elif match[4] not in self.running:
            self.running.append(match[4])
        self.done, self.total = done, total
        return Progress(done, total, unit_name(match[4]))


def first_errors(log: str, count: int = 5) -> tuple[str, ...]:
    """The lines of a failed build that say why, best first lines first."""
    lines = log.splitlines()
    patterns = (
        r"\b(fatal )?error\b:|^CMake Error|Killed signal|: undefined reference|ninja: error|No space left",
        r"^FAILED:",
    )
    for pattern in patterns:
        hits = [number for number, line in enumerate(lines) if re.search(pattern, line)]
        if hits:
            # CMake says where in its first line and what in the next ones.
            start = hits[0]
            chosen = _of_cmake(lines[start:], count) if lines[start].startswith("CMake Error") else []
            return tuple(chosen or [lines[number] for number in hits[:count]])
    return tuple(lines[-count:])


def _of_cmake(lines: list[str], count: int) -> list[str]:
    """CMake's own words, and those of a compiler that it tried, which stand far below them."""
    words = [line for line in lines[: 4 * count] if line.strip()][:count]
    tried = next((number for number, line in enumerate(lines) if _TRIED in line), None)
    if tried is None:
        return words
    said = [line for line in lines[tried + 1 :] if _COMPILERS_WORDS.search(line)]
    return [line for line in words if _TRIED not in line] + said[:count]
