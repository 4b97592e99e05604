"""What travels between the steps. Frozen dataclasses that become JSON, and nothing else.

Sizes are bytes unless a name says otherwise; paths are text.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1

Backend = Literal["metal", "cuda", "hip", "vulkan", "cpu"]
"""In the order of preference."""
BACKENDS: tuple[Backend, ...] = ("metal", "cuda", "hip", "vulkan", "cpu")


def to_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, nested ones included, below `schema_version`."""
    return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(value)}


# ---- host: facts about this machine -----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Note:
    """A probe that found nothing out: what was asked and what the answer was."""

    source: str
    said: str


@dataclass(frozen=True, kw_only=True)
class OsFacts:
    name: str
    """Linux, Darwin, Windows or Android."""
    release: str
    machine: str
    """As the operating system names it: x86_64, aarch64, arm64, armv8l, AMD64."""
    bits: int
    """Of the running Python: 64 or 32."""
    libc: str
    termux: bool
    rosetta: bool


@dataclass(frozen=True, kw_only=True)
class PythonFacts:
    executable: str
    version: str
    platform: str
    """sysconfig.get_platform()."""


@dataclass(frozen=True, kw_only=True)
class CpuFacts:
    arch: str
    """x86_64, arm64, or the machine's own name."""
    name: str
    features: tuple[str, ...]
    logical: int
    usable: int
    """Logical CPUs that affinity and cgroup quotas leave, at least 1."""


@dataclass(frozen=True, kw_only=True)
class MemoryBound:
    source: str
    limit: int
    room: int
    """What can still be taken under this bound."""


@dataclass(frozen=True, kw_only=True)
class MemoryFacts:
    bounds: tuple[MemoryBound, ...]
    capacity: int
    """The smallest limit."""
    room: int
    """The smallest room, 0 where nothing is known."""
    binding: str
    """Source of the bound with the smallest room."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    command: str
    """As the user or the search named it; may hold arguments (`ccache gcc`)."""
    kind: str
    """gcc, clang, appleclang or unknown: by what it says it is, not by its name."""
    version: str


@dataclass(frozen=True, kw_only=True)
class Program:
    path: str
    version: str


@dataclass(frozen=True, kw_only=True)
class ToolchainFacts:
    c: Compiler | None
    cxx: Compiler | None
    cmake: Program | None
    ninja: Program | None


@dataclass(frozen=True, kw_only=True)
class CudaDevice:
    name: str
    capability: str
    """Compute capability without the dot: 86, 90."""
    memory: int


@dataclass(frozen=True, kw_only=True)
class CudaFacts:
    driver: str
    devices: tuple[CudaDevice, ...]
    nvcc: Program | None


@dataclass(frozen=True, kw_only=True)
class VulkanFacts:
    devices: tuple[str, ...]
    """Names of GPUs; software devices are not among them."""
    headers: int
    """VK_HEADER_VERSION, 0 where there are none."""
    glslc: str
    spirv_headers: bool


@dataclass(frozen=True, kw_only=True)
class MetalFacts:
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HipFacts:
    targets: tuple[str, ...]
    """gfx names of the GPUs."""
    hipcc: str


@dataclass(frozen=True, kw_only=True)
class Host:
    os: OsFacts
    python: PythonFacts
    cpu: CpuFacts
    memory: MemoryFacts
    toolchain: ToolchainFacts
    cuda: CudaFacts
    vulkan: VulkanFacts
    metal: MetalFacts
    hip: HipFacts
    notes: tuple[Note, ...]


# ---- request and plan -------------------------------------------------------------------------


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
class Plan:
    """What will be built. Holds no momentary number and no folder of this machine but the compilers."""

    preset: str
    backend: Backend
    device: str
    """ggml's name of the device that the proof must run on."""
    portable: bool
    low_mem: bool
    jobs: int
    memory_rung: int
    """Memory that the jobs were chosen for, rounded down to a rung."""
    memory_per_job: int
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


@dataclass(frozen=True, kw_only=True)
class Lack:
    """Something that the plan needs and the machine lacks."""

    what: str
    why: str
    fix: str


# ---- target, source, build, proof -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target:
    """The environment that is installed into."""

    executable: str
    version: tuple[int, int]
    platform: str
    bits: int
    prefix: str
    chosen_by: str
    kind: Literal["venv", "conda", "system", "pipx", "uv-tool", "uvx"]
    externally_managed: bool
    has_pip: bool
    installed: str
    """The dist-info folder of floatllm there, or empty."""


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


@dataclass(frozen=True, kw_only=True)
class Installed:
    target: Target
    plan: Plan
    wheel: Wheel
    unchanged: bool
    """True where the target held exactly this wheel already."""
    seconds: float
