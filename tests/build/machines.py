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
    HipFacts,
    Host,
    MemoryBound,
    MemoryFacts,
    MetalFacts,
    OsFacts,
    Program,
    PythonFacts,
    Target,
    ToolchainFacts,
    VulkanFacts,
)

GCC = Compiler(command="c++", kind="gcc", version="12.2.0")
CLANG = Compiler(command="c++", kind="clang", version="21.1.0")
RTX_3060 = CudaDevice(name="NVIDIA GeForce RTX 3060", capability="86", memory=12 * GIB)
NVCC = Program(path="/usr/local/cuda/bin/nvcc", version="12.4")

PC = Host(
    os=OsFacts(
        name="Linux",
        release="6.1",
        machine="x86_64",
        bits=64,
        libc="glibc 2.36",
        termux=False,
        rosetta=False,
    ),
    python=PythonFacts(executable="/usr/bin/python3", version="3.11.2", platform="linux-x86_64"),
    cpu=CpuFacts(arch="x86_64", name="AMD Ryzen", features=("avx", "avx2"), logical=8, usable=8),
    memory=MemoryFacts(
        bounds=(MemoryBound(source="/proc/meminfo", limit=16 * GIB, room=12 * GIB),),
        capacity=16 * GIB,
        room=12 * GIB,
        binding="/proc/meminfo",
    ),
    toolchain=ToolchainFacts(
        c=replace(GCC, command="cc"),
        cxx=GCC,
        cmake=Program(path="/usr/bin/cmake", version="3.25.1"),
        ninja=Program(path="/usr/bin/ninja", version="1.11.1"),
    ),
    cuda=CudaFacts(driver="", devices=(), nvcc=None),
    vulkan=VulkanFacts(devices=(), headers=0, glslc="", spirv_headers=False),
    metal=MetalFacts(devices=()),
    hip=HipFacts(targets=(), hipcc=""),
    notes=(),
)

GOOD_VULKAN = VulkanFacts(devices=("Radeon",), headers=309, glslc="/usr/bin/glslc", spirv_headers=True)

VENV = Target(
    executable="/home/u/.venv/bin/python",
    version=(3, 11),
    platform="linux-x86_64",
    bits=64,
    prefix="/home/u/.venv",
    chosen_by="VIRTUAL_ENV",
    kind="venv",
    externally_managed=False,
    has_pip=True,
    installed="",
)


def memory(capacity: int, room: int | None = None) -> MemoryFacts:
    free = capacity if room is None else room
    bound = MemoryBound(source="/proc/meminfo", limit=capacity, room=free)
    return MemoryFacts(bounds=(bound,), capacity=capacity, room=free, binding=bound.source)


def pc(**parts: Any) -> Host:
    """The PC with whole parts replaced."""
    return replace(PC, **parts)


def phone(*features: str, capacity: int = 3 * GIB - 1) -> Host:
    """A phone under Termux with clang, cmake and ninja."""
    clang = replace(CLANG, command="cc")
    return pc(
        os=replace(PC.os, name="Android", machine="aarch64", libc="bionic", termux=True),
        cpu=CpuFacts(arch="arm64", name="", features=features, logical=8, usable=8),
        memory=memory(capacity),
        toolchain=replace(PC.toolchain, c=clang, cxx=CLANG),
    )
