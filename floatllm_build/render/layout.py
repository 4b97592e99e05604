"""What a screen holds, before anybody knows how wide it is or whether it has colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ready", "missing", "impossible"]
Tone = Literal["plain", "strong", "command", "missing", "rejected"]


@dataclass(frozen=True, kw_only=True)
class Row:
    label: str
    """Rows that follow each other with the same label tell of one thing."""
    parts: tuple[str, ...]
    tone: Tone = "plain"
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    each: str = ""
    """What a row is, where it stands alone: `rule`, `note`."""
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Screen:
    state: State
    verdict: Section
    """Its title says the state in words."""
    sections: tuple[Section, ...]
    hint: str
