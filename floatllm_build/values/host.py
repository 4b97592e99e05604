"""Facts about a machine. Facts only, no verdicts: what follows from them is `select`'s.

Empty text, 0, None and () mean that nothing was found; a note says so if something was tried. Folders are
symbolic where they would tell who the user is: see `symbols.Door`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from floatllm_build.values.basics import Program
from floatllm_build.values.gpus import CudaFacts, HipFacts, MetalFacts, VulkanFacts


@dataclass(frozen=True, kw_only=True)
class Note:
    """A probe that found nothing out, or something odd: what was tried and what the answer was."""

    source: str
    said: str


@dataclass(frozen=True, kw_only=True)
class OsFacts:
    name: str
    """Linux, Darwin, Windows or Android."""
    release: str
    """Of the kernel."""
    version: str
    """As people call it: Debian GNU/Linux 12 (bookworm), macOS 15.1, Android 15."""
    id: str
    """Of os-release, as are the next six: ubuntu, linuxmint, fedora; empty if it is not there."""
    id_like: tuple[str, ...]
    """What it is made from, closest first: `ubuntu debian` of Linux Mint."""
    version_id: str
    """12, 24.04, 42."""
    variant_id: str
    """silverblue, coreos, steamdeck."""
    codename: str
    """VERSION_CODENAME, or what VERSION has in brackets: bookworm, noble."""
    ubuntu_codename: str
    """Of the Ubuntu below a system that is made from it."""
    debian_codename: str
    """Of the Debian below a system that is made from it."""
    image: Literal["", "ostree", "read-only"]
    """How the system's own files are kept from changes: deployed by ostree, or /usr is mounted read-only."""
    root: bool | None
    """The effective user is root; None if nobody says."""
    sudo: Literal["", "sudo", "doas"]
    """The program that runs a command as root."""
    packager: str
    """The first known package manager on PATH: apt, dnf, nix-shell; only looked for on Linux and the BSDs."""
    machine: str
    """As the operating system names it: x86_64, aarch64, arm64, armv8l, AMD64."""
    bits: int
    """Of the running Python: 64 or 32."""
    byte_order: Literal["", "little", "big"]
    """As the running Python says."""
    libc: str
    """Kind and version: `glibc 2.36`, `musl 1.2.5`, `bionic`; empty outside Linux and Android."""
    container: str
    """docker, podman, lxc, kubernetes, toolbox, distrobox, apptainer, flatpak, proot, ...; `container` if the
    kind is unknown."""
    wsl: int
    """Version of the Windows Subsystem for Linux, 0 outside of it."""
    termux: bool
    api_level: int
    """Of the Android device (ro.build.version.sdk), 0 elsewhere."""
    rosetta: bool


@dataclass(frozen=True, kw_only=True)
class PythonFacts:
    executable: str
    version: str
    platform: str
    """sysconfig.get_platform()."""


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
class CpuBound:
    """A limit on the CPUs that we may use: the affinity mask, or a control group's quota rounded up."""

    source: str
    cpus: int


@dataclass(frozen=True, kw_only=True)
class CpuFacts:
    arch: str
    """x86_64, arm64, or the machine's own name."""
    vendor: str
    name: str
    features: tuple[str, ...]
    """Sorted, in Linux' words (avx2, asimddp); what every core has. On a Mac the words of hw.optional."""
    logical: int
    usable: int
    """Logical CPUs that affinity and control groups leave, at least 1."""
    bounds: tuple[CpuBound, ...]
    big_cores: int
    """Cores of all kinds but the slowest where kinds differ; 0 where they do not or nobody says."""
    bits: int
    """64 if the processor runs 64-bit programs, whatever system is on it; 32 if it does not, 0 unknown."""
    emulator: str
    """Who runs this Python's programs on a processor of another architecture: Rosetta, QEMU, Windows, box64,
    FEX, `an emulator` if it does not tell its name; empty if nobody does. On macOS see `os.rosetta`."""
    emulated_on: str
    """Architecture of the processor below the emulator: arm64, x86_64."""


@dataclass(frozen=True, kw_only=True)
class MemoryBound:
    source: str
    limit: int
    room: int
    """What can still be taken under this bound."""


@dataclass(frozen=True, kw_only=True)
class MemoryFacts:
    bounds: tuple[MemoryBound, ...]
    total: int
    """Of the machine; `capacity` is what the bounds leave of it."""
    swap_total: int
    swap_free: int
    capacity: int
    """The smallest limit."""
    room: int
    """The smallest room, 0 where nothing is known."""
    binding: str
    """Source of the bound with the smallest room."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Something in the cache that a later build may reuse."""

    what: str
    """Its path there: `ggml/0.26.0-0a1b`, `tools/cmake`, `cuda/13.0`."""
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class DiskFacts:
    """Of the cache's folder, or of what is there above it. None where nobody says."""

    free: int | None = None
    inodes: int | None = None
    """Files that can still be made, where the file system has a number of them."""
    held: int = 0
    """Bytes that the cache holds already."""
    kept: tuple[Kept, ...] = ()
    """Of those, what a build may reuse."""
    noexec: bool = False
    """Mounted without permission to execute."""
    temp: int | None = None
    """Bytes free in the folder for temporary files, where that is on another disk."""
    refusal: str = ""
    """Why the cache cannot be used, as the end of a sentence that begins with it; empty where it can."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    command: str
    """As the user or the search named it; may hold arguments (`ccache gcc`)."""
    kind: str
    """gcc, clang, appleclang, msvc or unknown: by what it says it is, not by its name."""
    version: str
    target: str = ""
    """What it compiles for, as it says itself: x64, x86 or arm64 (MSVC), a triple (clang); else empty."""


@dataclass(frozen=True, kw_only=True)
class Linker:
    kind: str
    """ld (GNU), gold, lld, mold, apple, msvc or unknown: by what it says it is."""
    path: str
    version: str


@dataclass(frozen=True, kw_only=True)
class ToolchainFacts:
    c: Compiler | None
    """The C and C++ compilers that a build takes: CC and CXX, else the first of the usual names."""
    cxx: Compiler | None
    others: tuple[Compiler, ...]
    """Further C++ compilers by the versions in their names (g++-12), newest first, and those of Red Hat's
    toolsets: older hosts for nvcc, newer ones for all."""
    libstdcxx: int
    """Newest major version of GCC whose folder lies where clang takes libstdc++ from; 0 if none was seen."""
    nvcc_host: Compiler | None
    """The C++ compiler that the user names for nvcc; None if none is named, or the named one is silent."""
    nvcc_host_by: str
    """Variable that names it: CUDAHOSTCXX, NVCC_CCBIN, NVCC_PREPEND_FLAGS or NVCC_APPEND_FLAGS."""
    linkers: tuple[Linker, ...]
    cmake: Program | None
    ninja: Program | None
    launcher: Program | None
    """ccache or sccache."""
    xcode: str
    """Developer folder that `xcode-select -p` names."""
    msvc: tuple[Program, ...]
    """Visual Studio installations with the C++ tools, newest first, by vswhere."""


@dataclass(frozen=True, kw_only=True)
class Presence:
    """Something that FloatLLM does not use, but that says what the machine has."""

    what: str
    """opencl or sycl."""
    where: str


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit of the system that programs or threads ran into while this machine was asked."""

    name: str
    """RLIMIT_AS, RLIMIT_DATA (bytes), RLIMIT_NPROC, pids.max, RLIMIT_NOFILE (pieces)."""
    value: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a fact comes from. `fact` is its path in the host (`cpu.features`); it covers what lies below."""

    fact: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine that the target holds."""

    version: str
    preset: str
    """Empty where its manifest cannot be read."""
    backends: tuple[str, ...]
    device: str
    """ggml's name of the device that its proof ran on."""
    ggml: str
    plugins: tuple[str, ...]
    """Further wheels beside it: floatllm-vulkan."""
    current: bool | None
    """Whether `install` would leave it as it is; null where nobody can say."""
    changes: tuple[str, ...]
    """What `install` would change, in words."""
    kept: bool = False
    """Whether the cache still holds the wheel it came from; `install` needs it where files are damaged."""


@dataclass(frozen=True, kw_only=True)
class Host:
    os: OsFacts
    python: PythonFacts
    target: Target | None
    """None where the Python that would be installed into does not answer; a note says why."""
    cpu: CpuFacts
    memory: MemoryFacts
    disk: DiskFacts = DiskFacts()
    toolchain: ToolchainFacts
    cuda: CudaFacts
    vulkan: VulkanFacts
    metal: MetalFacts
    hip: HipFacts
    others: tuple[Presence, ...]
    limits: tuple[Limit, ...]
    sources: tuple[Source, ...]
    notes: tuple[Note, ...]
    engine: Engine | None = None
    """`detect` alone looks for it; a recorded host has none."""
