"""What the steps after the plan make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from floatllm_build.values.host import Target
from floatllm_build.values.plan import Plan


@dataclass(frozen=True, kw_only=True)
class GgmlSource:
    folder: str
    tree_sha256: str
    pinned: bool
    fetched: bool = False
    """True where this run brought it."""


@dataclass(frozen=True, kw_only=True)
class Built:
    folder: str
    """CMake's build folder."""
    units: int
    """Units that were compiled or linked; 0 where nothing had changed."""
    seconds: float
    log: str
    whole: bool = True
    """False where the engine is slower or smaller than planned, because memory was short."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    path: str
    key: str
    reused: bool


@dataclass(frozen=True, kw_only=True)
class Proof:
    device: str
    lines: tuple[str, ...] = field(repr=False)
    report: dict[str, Any] = field(repr=False)

    @property
    def agree(self) -> int:
        """Operations whose numbers agree; each counts once for every type and number of positions."""
        return int(self.report.get("agree", 0))

    @property
    def chunks(self) -> int:
        """Chunks of the small model that were mapped one after the other."""
        return int(self.report.get("chunks", 0))


@dataclass(frozen=True, kw_only=True)
class Unproven:
    device: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What an installed engine computes on: its own device, or the one that was named, comes first."""

    proofs: tuple[Proof, ...]
    unproven: tuple[Unproven, ...] = ()
    """Other devices that it sees."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    target: Target
    plan: Plan
    wheel: Wheel | None
    """None where none had to be made: the target held the engine already."""
    unchanged: bool
    """True where the target held exactly this engine already."""
    seconds: float
