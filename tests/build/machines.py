"""Makes hosts for tests: a plain Linux PC, with whatever a test wants different."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from floatllm_build.sizes import GIB
from floatllm_build.values import (
    Compiler,
    CpuFacts,
    CudaDevice,
    CudaFacts,
    CudaToolkit,
    HipFacts,
    Host,
    Linker,
    MemoryBound,
    MemoryFacts,
    MetalDevice,
    MetalFacts,
    Note,
    OsFacts,
    Program,
    PythonFacts,
    Source,
    Target,
    ToolchainFacts,
    VulkanDevice,
    VulkanFacts,
)

GCC = Compiler(command="c++", kind="gcc", version="12.2.0")
CLANG = Compiler(command="c++", kind="clang", version="21.1.0")
RTX_3060 = CudaDevice(
    name="NVIDIA GeForce RTX 3060", capability="86", memory=12 * GIB, integrated=False, mig=False
)
CUDA_12_4 = CudaToolkit(
    nvcc="/usr/local/cuda/bin/nvcc",
    version="12.4",
    architectures=("50", "52", "53", "60", "61", "62", "70", "72", "75", "80", "86", "87", "89", "90"),
    newest_gcc=13,
    newest_clang=17,
    newest_msvc=1949,
    newest_glibc="2.40",
    cublas=True,
    layout="toolkit",
)
NO_CUDA = CudaFacts(
    library="",
    driver="",
    supports="",
    devices=(),
    toolkits=(),
    jetson="",
    init_error=0,
    smi_error=0,
    vector_math="",
)
NVIDIA = replace(
    NO_CUDA,
    library="libcuda.so.1",
    driver="550.54.14",
    supports="12.4",
    devices=(RTX_3060,),
    toolkits=(CUDA_12_4,),
)
NO_VULKAN = VulkanFacts(
    library="", devices=(), headers=0, include="", glslc=None, spirv_headers="", closed=""
)
RADEON = VulkanDevice(
    name="AMD Radeon RX 6700 XT (RADV NAVI22)",
    type="discrete",
    api="1.4.305",
    driver="radv",
    storage_16_bit=True,
    shared_memory=65536,
)
LLVMPIPE = VulkanDevice(
    name="llvmpipe (LLVM 15.0.6, 256 bits)",
    type="cpu",
    api="1.3.230",
    driver="llvmpipe",
    storage_16_bit=True,
    shared_memory=32768,
)
GOOD_VULKAN = VulkanFacts(
    library="libvulkan.so.1",
    devices=(RADEON,),
    headers=309,
    include="/usr/include",
    glslc=Program(path="/usr/bin/glslc", version="2025.1"),
    spirv_headers="/usr/share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake",
    closed="",
)
NO_HIP = HipFacts(targets=(), rocm="", version="", hipcc="", rocblas=(), missing=(), kfd="", override="")
ROCM = HipFacts(
    targets=("gfx1100",),
    rocm="/opt/rocm",
    version="6.3.1",
    hipcc="/opt/rocm/bin/hipcc",
    rocblas=("gfx90a", "gfx1030", "gfx1100"),
    missing=(),
    kfd="yes",
    override="",
)
M4 = MetalFacts(devices=(MetalDevice(name="Apple M4", working_set=12 * GIB),))

VENV = Target(
    executable="/srv/.venv/bin/python",
    version=(3, 11),
    platform="linux-x86_64",
    bits=64,
    prefix="/srv/.venv",
    chosen_by="VIRTUAL_ENV",
    kind="venv",
    externally_managed=False,
    has_pip=True,
    installed="",
)

PC = Host(
    os=OsFacts(
        name="Linux",
        release="6.1",
        version="Debian GNU/Linux 12 (bookworm)",
        id="",
        id_like=(),
        version_id="",
        variant_id="",
        codename="",
        ubuntu_codename="",
        debian_codename="",
        image="",
        root=None,
        sudo="",
        packager="",
        machine="x86_64",
        bits=64,
        byte_order="little",
        libc="glibc 2.36",
        container="",
        wsl=0,
        termux=False,
        api_level=0,
        rosetta=False,
    ),
    python=PythonFacts(executable="/usr/bin/python3", version="3.11.2", platform="linux-x86_64"),
    target=VENV,
    cpu=CpuFacts(
        arch="x86_64",
        vendor="AuthenticAMD",
        name="AMD Ryzen",
        features=("avx", "avx2"),
        logical=8,
        usable=8,
        bounds=(),
        big_cores=0,
        bits=64,
        emulator="",
        emulated_on="",
    ),
    memory=MemoryFacts(
        bounds=(MemoryBound(source="/proc/meminfo", limit=16 * GIB, room=12 * GIB),),
        total=16 * GIB,
        swap_total=0,
        swap_free=0,
        capacity=16 * GIB,
        room=12 * GIB,
        binding="/proc/meminfo",
    ),
    toolchain=ToolchainFacts(
        c=replace(GCC, command="cc"),
        cxx=GCC,
        others=(),
        libstdcxx=0,
        linkers=(),
        launcher=None,
        xcode="",
        msvc=(),
        nvcc_host=None,
        nvcc_host_by="",
        cmake=Program(path="/usr/bin/cmake", version="3.25.1"),
        ninja=Program(path="/usr/bin/ninja", version="1.11.1"),
    ),
    cuda=NO_CUDA,
    vulkan=NO_VULKAN,
    metal=MetalFacts(devices=()),
    hip=NO_HIP,
    others=(),
    limits=(),
    sources=(),
    notes=(),
)


def memory(capacity: int, room: int | None = None) -> MemoryFacts:
    free = capacity if room is None else room
    bound = MemoryBound(source="/proc/meminfo", limit=capacity, room=free)
    return MemoryFacts(
        bounds=(bound,),
        total=capacity,
        swap_total=0,
        swap_free=0,
        capacity=capacity,
        room=free,
        binding=bound.source,
    )


def pc(**parts: Any) -> Host:
    """The PC with whole parts replaced."""
    return replace(PC, **parts)


def phone(*features: str, capacity: int = 3 * GIB - 1) -> Host:
    """A phone under Termux with clang, cmake and ninja."""
    clang = replace(CLANG, command="cc")
    return pc(
        os=replace(
            PC.os,
            name="Android",
            version="Android 15",
            machine="aarch64",
            libc="bionic",
            termux=True,
            api_level=35,
        ),
        python=replace(PC.python, version="3.14.0", platform="android-24-arm64_v8a"),
        target=replace(VENV, version=(3, 14), platform="android-24-arm64_v8a"),
        cpu=replace(PC.cpu, arch="arm64", vendor="ARM", name="", features=features),
        memory=memory(capacity),
        toolchain=replace(PC.toolchain, c=clang, cxx=CLANG),
    )


FULL = pc(
    target=replace(VENV, prefix="{home}/project/.venv", installed="/x/floatllm-0.1.0.dist-info"),
    cuda=NVIDIA,
    vulkan=replace(GOOD_VULKAN, devices=(RADEON, LLVMPIPE)),
    hip=ROCM,
    toolchain=replace(
        PC.toolchain,
        linkers=(Linker(kind="ld", path="/usr/bin/ld", version="2.40"),),
        launcher=Program(path="/usr/bin/ccache", version="4.8"),
    ),
    sources=(Source(fact="cpu.features", source="/proc/cpuinfo"),),
    notes=(Note(source="nvidia-smi", said="exit 9: no answer"),),
)
"""With something of all that a screen shows."""
