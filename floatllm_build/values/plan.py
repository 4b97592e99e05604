"""What is asked for, and what will be built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from floatllm_build.values.basics import Backend


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for; None and False leave the choice to the rules."""

    backend: Backend | None = None
    preset: str | None = None
    low_mem: bool = False
    portable: bool = False
    memory: int | None = None
    """Bytes that the build may use; None: what is there."""
    jobs: int | None = None
    architectures: tuple[str, ...] = ()
    """Of the device: what to compile for instead of what was probed (86, gfx1100)."""
    cmake_args: tuple[str, ...] = ()
    """Taken from CMAKE_ARGS."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    rule: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Rejection:
    backend: Backend
    reason: str
    fix: str
    """A command, or a sentence that says what to do."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """What a fresh machine has to fetch; `size` in bytes, measured when the pin was made."""

    what: str
    size: int


@dataclass(frozen=True, kw_only=True)
class PlannedToolkit:
    """The CUDA toolkit that a plan compiles with."""

    nvcc: str
    version: str
    download: int
    """Bytes of the package index's, which is brought into {cache} where it is not there yet; else 0."""
    requires: tuple[str, ...]
    """Packages that bring its libraries to where the engine runs; none where the system has them."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be built. Holds no momentary number; folders are symbolic ({home}, {cache}, {build})."""

    preset: str
    backend: Backend
    device: str
    """ggml's name of the device that the proof must run on."""
    portable: bool
    plugin: str
    """What the wheel adds to the engine's, on which it depends: vulkan, cuda13; empty for the engine's."""
    low_mem: bool
    jobs: int
    """Compiles at once, as far as `memory_rung` holds them."""
    jobs_limit: int
    """Compiles at once at the most, should more memory be there while it builds."""
    memory_rung: int
    """Memory that the jobs were chosen for, rounded down to a rung."""
    memory_per_job: int
    memory_peak: int
    """Estimate for the whole build: jobs at their peaks, and what runs beside them."""
    disk: int = 0
    """Bytes that the build takes in an empty cache."""
    architectures: tuple[str, ...]
    """Of the device: 86, gfx1100; empty where the backend has none."""
    downloads: tuple[Download, ...]
    """At most: what a cache holds already is not fetched again."""
    toolkit: PlannedToolkit | None
    """None for backends other than CUDA."""
    proof: Literal["device", "none"]
    """`none`: a portable wheel for a device that is not here."""
    environment: tuple[str, ...]
    """`NAME=VALUE` that a program needs to see the device; ggml hides software devices otherwise."""
    defines: tuple[str, ...]
    """`NAME=VALUE` beside the preset."""
    cmake: tuple[str, ...]
    """The exact line, with {build} and {ggml} for folders."""
    cc: str
    cxx: str
    cpu: str
    """What a native build depends on: the CPU and its features; empty for a portable one."""
    reasons: tuple[Reason, ...]
    rejections: tuple[Rejection, ...]

    @property
    def distribution(self) -> str:
        """Name of the wheel that is built."""
        return f"floatllm-{self.plugin}" if self.plugin else "floatllm"


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Something that the plan needs and the machine lacks."""

    what: str
    why: str
    fix: str

    @property
    def told(self) -> str:
        return f"{self.what} is missing ({self.why}). To get it: {self.fix}."


@dataclass(frozen=True, kw_only=True)
class Repairer:
    """The program that makes a portable wheel say which systems it is for."""

    name: Literal["auditwheel", "delocate"]
    version: str
    command: tuple[str, ...]
    variables: tuple[str, ...]
    """`NAME=VALUE` that it needs to run."""
