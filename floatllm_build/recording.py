"""Pure helpers of whoever writes a record: it has the same bytes however the probes' threads took turns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

NUMBERED = ("home", "mac", "serial", "temp", "text", "uuid")
"""Kinds of symbols that are numbered, as {home-1}; see `symbols`."""
_NUMBERED = re.compile(rf"\{{({'|'.join(NUMBERED)})-[0-9]{{1,9}}\}}")


@dataclass
class Numbering:
    """Gives numbered symbols new numbers, by kind and in the order in which they are met.

    Their first numbers tell which probe was the quickest, and so would differ from run to run.
    """

    given: dict[str, str] = field(default_factory=dict)
    _count: Counter[str] = field(default_factory=Counter)

    def __call__(self, text: str) -> str:
        return _NUMBERED.sub(self._new, text) if "{" in text else text

    def _new(self, match: re.Match[str]) -> str:
        if match[0] not in self.given:
            self._count[match[1]] += 1
            self.given[match[0]] = f"{{{match[1]}-{self._count[match[1]]}}}"
        return self.given[match[0]]


def renumbered(record: dict[str, Any]) -> dict[str, Any]:
    """A copy of JSON whose numbered symbols depend on nothing but what it says."""
    changed: dict[str, Any] = _walked(record, Numbering())
    return changed


def _walked(value: Any, numbering: Numbering) -> Any:
    if isinstance(value, str):
        return numbering(value)
    if isinstance(value, (list, tuple)):
        return [_walked(item, numbering) for item in value]
    if isinstance(value, dict):
        items = sorted(value.items(), key=_without_numbers)
        return {numbering(name): _walked(item, numbering) for name, item in items}
    return value


def _without_numbers(item: tuple[str, Any]) -> tuple[str, ...]:
    return tuple(_NUMBERED.sub(r"{\1}", text) for text in (item[0], json.dumps(item[1], sort_keys=True)))


def united(parts: Iterable[str]) -> str:
    """The distinct lines of several selections from one file, each selection in its own order.

    Where two have a line in common, what stands before and after it does so here too.
    """
    lines: list[str] = []
    for part in parts:
        places = {line: place for place, line in enumerate(lines)}
        merged: list[str] = []
        copied = 0
        for line in dict.fromkeys(part.splitlines(keepends=True)):
            if line not in places:
                merged.append(line)
            elif places[line] >= copied:
                merged += lines[copied : places[line] + 1]
                copied = places[line] + 1
        lines = merged + lines[copied:]
    return "".join(lines)
