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
#
# Facts only, no verdicts: what follows from them is `select`'s. Empty text, 0, None and () mean that
# nothing was found; a note says so where something was tried. Folders are symbolic where they would tell
# who the user is: see `symbols.Door`.


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
    """Its path there: `ggml/0.15.3-0a1b`, `tools/cmake`, `cuda/13.0`."""
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
class Program:
    path: str
    version: str


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
class CudaDevice:
    name: str
    capability: str
    """Compute capability without the dot: 86, 90, 120."""
    memory: int
    """Bytes in all; 0 where the driver does not say."""
    integrated: bool
    """Shares the machine's memory (Jetson)."""
    mig: bool
    """A slice of a GPU (Multi-Instance GPU), or a GPU that is cut into slices."""


@dataclass(frozen=True, kw_only=True)
class CudaToolkit:
    nvcc: str
    version: str
    """12.4, 13.0."""
    architectures: tuple[str, ...]
    """What nvcc can compile for: 75, 80, ... (`--list-gpu-arch`)."""
    newest_gcc: int
    """Newest major version of the host compiler that the toolkit takes (crt/host_config.h), 0 unknown."""
    newest_clang: int
    newest_msvc: int
    """Newest _MSC_VER (1944) that the toolkit takes by the same header, 0 unknown."""
    newest_glibc: str
    """Newest glibc whose math.h agrees with the toolkit's: 2.40, 2.41 or `any`; empty where nobody says."""
    cublas: bool
    """cuBLAS's header lies beside the toolkit's own, or these could not be found."""
    layout: Literal["toolkit", "wheels"]
    """`wheels`: from the package index, where libraries lie elsewhere and have names with a version only."""


@dataclass(frozen=True, kw_only=True)
class CudaFacts:
    library: str
    """The libcuda that answered."""
    driver: str
    """580.65.06; empty where only the library's own interface answered."""
    supports: str
    """The newest CUDA that the driver runs: 13.0."""
    devices: tuple[CudaDevice, ...]
    toolkits: tuple[CudaToolkit, ...]
    """In the order of the search: CUDACXX, CUDA_PATH, PATH, /usr/local/cuda*, newest first."""
    jetson: str
    """L4T release where this is a Jetson."""
    init_error: int
    """What cuInit returned (a CUresult: 803) if no library offered a device; 0 if none failed so."""
    smi_error: int
    """Exit status of nvidia-smi if it was asked for the GPUs and failed (9, 18); else 0."""
    vector_math: Literal["", "bare", "guarded"]
    """On Arm, how glibc's bits/math-vector.h uses GCC's vector types: `guarded` if nvcc does not see them."""


@dataclass(frozen=True, kw_only=True)
class VulkanDevice:
    name: str
    type: Literal["discrete", "integrated", "virtual", "cpu", "other"]
    api: str
    """1.3.289."""
    driver: str
    storage_16_bit: bool | None
    """storageBuffer16BitAccess; None if nobody says."""
    shared_memory: int
    """maxComputeSharedMemorySize in bytes, 0 unknown."""


@dataclass(frozen=True, kw_only=True)
class VulkanFacts:
    library: str
    """The loader that answered."""
    devices: tuple[VulkanDevice, ...]
    """In the loader's order; software devices (type cpu) are among them."""
    headers: int
    """VK_HEADER_VERSION, 0 where there are none."""
    include: str
    """The folder that holds vulkan/vulkan_core.h."""
    glslc: Program | None
    spirv_headers: str
    """SPIRV-HeadersConfig.cmake, or empty."""
    closed: str
    """A GPU's file in /dev/dri that this user may not open, if no GPU answered; else empty."""


@dataclass(frozen=True, kw_only=True)
class MetalDevice:
    name: str
    working_set: int
    """recommendedMaxWorkingSetSize in bytes, 0 unknown."""


@dataclass(frozen=True, kw_only=True)
class MetalFacts:
    devices: tuple[MetalDevice, ...]


@dataclass(frozen=True, kw_only=True)
class HipFacts:
    targets: tuple[str, ...]
    """gfx names of the GPUs, as the kernel lists them."""
    rocm: str
    """ROCm's folder."""
    version: str
    hipcc: str
    rocblas: tuple[str, ...]
    """gfx names that the installed rocBLAS has kernels for."""
    missing: tuple[str, ...]
    """Of hip, hipblas and rocblas, those whose CMake files are not there."""
    kfd: str
    """How /dev/kfd opens: `yes`, or the error's name (EACCES, ENOENT); empty if nobody says."""
    override: str
    """gfx name that HSA_OVERRIDE_GFX_VERSION makes the runtime take the GPUs for; empty if it is unset."""


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


# ---- source, build, proof -----------------------------------------------------------------------


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
    wheel: Wheel
    unchanged: bool
    """True where the target held exactly this wheel already."""
    seconds: float
