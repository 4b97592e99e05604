"""What upkeep tells: what is there, what was removed, deleted or packed. Values, and nothing else.

Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from floatllm_build.values import Target


@dataclass(frozen=True, kw_only=True)
class Left:
    """A package that the engine needed and that stays where that was removed."""

    name: str
    size: int
    needed_by: tuple[str, ...]
    """Other packages there that need it."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    target: Target
    packages: tuple[tuple[str, int], ...]
    """`floatllm 0.1.0` and its bytes; none where nothing was there."""
    left: tuple[Left, ...]
    strays: tuple[str, ...]
    """Folders that hold what no installer had put there."""
    cache: str
    cache_size: int
    tool: str
    """The command that removes this tool."""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """Bytes by folder of the cache: what was deleted, or would be."""

    cache: str
    folders: tuple[tuple[str, int], ...]
    temp: str = ""
    """The folder for temporary files."""
    outside: int = 0
    """Bytes of this tool's records and logs there."""

    @property
    def size(self) -> int:
        return sum(size for _, size in self.folders)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of a report."""

    name: str
    about: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Reported:
    path: str
    size: int
    parts: tuple[Part, ...]
