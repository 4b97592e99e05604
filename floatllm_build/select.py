"""Host and Request in, Plan out. Pure: no file, no process, no clock.

The rules that fired and the backends that were rejected are part of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.presets import Preset, find_preset
from floatllm_build.sizes import GIB, MIB, show_size
from floatllm_build.values import BACKENDS, Backend, Host, Plan, Reason, Rejection, Request

# Peak of the largest translation unit with some air, by what compiles it: measured with GCC 12, clang 14
# and nvcc 13 on ggml 0.15.3.
_JOB_MEMORY: Mapping[Backend, int] = {
    "cpu": 420 * MIB,
    "metal": 420 * MIB,
    "cuda": 800 * MIB,
    "hip": 1000 * MIB,
    "vulkan": 1400 * MIB,
}
_CLANG_CPU_MEMORY = 200 * MIB
_GCC_LOW_MEM_MEMORY = 290 * MIB
# Stays free for this tool, ninja and everything else that runs.
_RESERVE = 128 * MIB
# Less than this in all, and the low-memory recipe is worth its slower engine.
_LOW_MEM_CAPACITY = 3 * GIB
# ggml-vulkan.cpp uses names that came with these headers.
_VULKAN_HEADERS = 283

DEVICES: Mapping[Backend, str] = {
    "metal": "MTL0",
    "cuda": "CUDA0",
    "hip": "ROCm0",
    "vulkan": "Vulkan0",
    "cpu": "CPU",
}


def make_plan(host: Host, request: Request, presets: Mapping[str, Preset]) -> Plan:
    """The plan, with reasons.

    Raises MissingError where this machine cannot run the engine at all or not the backend that was asked
    for, and UsageFaultError where the request contradicts itself or names no preset.
    """
    _refuse_machine(host)
    reasons: list[Reason] = []
    backend, rejections = _choose_backend(host, request, presets, reasons)
    preset = _choose_preset(host, request, presets, backend, reasons)
    rung = memory_rung(request.memory or host.memory.room)
    per_job = job_memory(host, preset)
    jobs = _choose_jobs(host, request, preset, rung, per_job, reasons)
    defines = _defines(host, request, preset, reasons)
    cc, cxx = host.toolchain.c, host.toolchain.cxx
    return Plan(
        preset=preset.name,
        backend=backend,
        device=DEVICES[backend],
        portable=preset.portable,
        low_mem=preset.low_mem,
        jobs=jobs,
        memory_rung=rung,
        memory_per_job=per_job,
        defines=defines,
        cmake=(
            *("cmake", "--preset", preset.name, "-S", "{build}/src/native", "-B", "{build}/out"),
            "-DGGML_DIR={ggml}",
            *(f"-D{define}" for define in defines),
            *request.cmake_args,
        ),
        cc=cc.command if cc else "",
        cxx=cxx.command if cxx else "",
        cpu="" if preset.portable else " ".join((host.cpu.arch, host.cpu.name, *host.cpu.features)),
        reasons=tuple(reasons),
        rejections=rejections,
    )


def memory_rung(size: int) -> int:
    """`size` rounded down to 2^n or 1.5·2^n, so that a plan does not follow every page."""
    if size < 4:
        return size
    step = 1 << (size.bit_length() - 2)
    return size // step * step


def job_memory(host: Host, preset: Preset) -> int:
    """Bytes that one compile may need at its peak."""
    compiler = host.toolchain.cxx
    if preset.backend in {"cpu", "metal"} and compiler:
        if "clang" in compiler.kind:
            return _CLANG_CPU_MEMORY
        if preset.low_mem and compiler.kind == "gcc":
            return _GCC_LOW_MEM_MEMORY
    return _JOB_MEMORY[preset.backend]


def _refuse_machine(host: Host) -> None:
    if host.os.bits == 32:
        raise MissingError(
            f"This Python is a 32-bit program ({host.os.machine}); the engine needs 64 bits to map large "
            "models. Use a 64-bit Python, on a phone the 64-bit build of Termux."
        )
    if host.os.rosetta:
        raise MissingError(
            "This Python is built for Intel and runs translated on Apple silicon; the engine would run "
            "translated as well, without Metal. Use a Python for arm64 and install floatllm-build there."
        )


# ---- backend ----------------------------------------------------------------------------------


def _cuda(host: Host) -> tuple[str, str] | None:
    if not host.cuda.devices:
        return "no NVIDIA GPU answered", "install NVIDIA's driver, then see `nvidia-smi`"
    if not host.cuda.nvcc:
        return (
            "nvcc, the CUDA compiler, was not found",
            "install the CUDA toolkit, or set CUDACXX to its nvcc",
        )
    return None


def _hip(host: Host) -> tuple[str, str] | None:
    if not host.hip.targets:
        return "no AMD GPU with ROCm's kernel driver", "install ROCm; /sys/class/kfd must list the GPU"
    if not host.hip.hipcc:
        return "hipcc was not found", "install ROCm's HIP SDK"
    return None


def _vulkan(host: Host) -> tuple[str, str] | None:
    if not host.vulkan.devices:
        return (
            "no Vulkan GPU answered",
            "install the GPU's Vulkan driver and vulkan-tools, then see `vulkaninfo`",
        )
    if not host.vulkan.glslc:
        return "glslc, the shader compiler, was not found", "install glslc (Debian: apt install glslc)"
    if not host.vulkan.headers:
        return "Vulkan's headers were not found", "install them (Debian: apt install libvulkan-dev)"
    if host.vulkan.headers < _VULKAN_HEADERS:
        reason = f"Vulkan's headers are 1.x.{host.vulkan.headers}; ggml needs {_VULKAN_HEADERS} or newer"
        return reason, "install newer ones, for instance from the Vulkan SDK, and set VULKAN_SDK"
    if not host.vulkan.spirv_headers:
        return "SPIRV-Headers was not found", "install it (Debian: apt install spirv-headers)"
    return None


def _metal(host: Host) -> tuple[str, str] | None:
    if not host.metal.devices:
        return "only a Mac with Apple silicon has Metal for ggml", "none on this machine"
    return None


_OBSTACLES: Mapping[Backend, Callable[[Host], tuple[str, str] | None]] = {
    "metal": _metal,
    "cuda": _cuda,
    "hip": _hip,
    "vulkan": _vulkan,
    "cpu": lambda _host: None,
}


def _choose_backend(
    host: Host, request: Request, presets: Mapping[str, Preset], reasons: list[Reason]
) -> tuple[Backend, tuple[Rejection, ...]]:
    asked = request.backend
    if request.preset:
        named = find_preset(presets, request.preset).backend
        if asked and asked != named:
            raise UsageFaultError(
                f"Preset `{request.preset}` builds {named}, not {asked}. Give one of the two."
            )
        asked = named
    rejections = tuple(
        Rejection(backend=backend, reason=obstacle[0], fix=obstacle[1])
        for backend in BACKENDS
        if (obstacle := _OBSTACLES[backend](host))
    )
    rejected = {rejection.backend: rejection for rejection in rejections}
    if asked:
        if asked in rejected:
            no = rejected[asked]
            raise MissingError(f"{asked} was asked for, but {no.reason}. To get it: {no.fix}.")
        what = f"preset {request.preset}" if request.preset else asked
        reasons.append(Reason(rule="asked", text=f"{what} was asked for"))
        return asked, rejections
    chosen = next(backend for backend in BACKENDS if backend not in rejected)
    gpu = f"{chosen} is the fastest backend that this machine can build and run"
    reasons.append(Reason(rule="best-backend", text="no GPU can be used" if chosen == "cpu" else gpu))
    return chosen, rejections


# ---- preset, jobs, flags ----------------------------------------------------------------------


def _choose_preset(
    host: Host, request: Request, presets: Mapping[str, Preset], backend: Backend, reasons: list[Reason]
) -> Preset:
    if request.preset:
        preset = find_preset(presets, request.preset)
        if request.low_mem and not preset.low_mem:
            raise UsageFaultError(
                f"Preset `{preset.name}` is no low-memory preset. Leave out --low-mem or --preset."
            )
        if request.portable and not preset.portable:
            raise UsageFaultError(
                f"Preset `{preset.name}` is not portable. Leave out --portable or --preset."
            )
        return preset
    if request.portable:
        if request.low_mem:
            raise UsageFaultError(
                "There is no low-memory preset for portable wheels. Leave out one of the two."
            )
        reasons.append(Reason(rule="portable", text="a wheel for any machine of the platform was asked for"))
        return find_preset(presets, f"wheel-{backend}")
    capacity = request.memory or host.memory.capacity
    small = 0 < capacity < _LOW_MEM_CAPACITY
    low_name = "android-low-mem" if host.os.name == "Android" and backend == "cpu" else f"{backend}-low-mem"
    if request.low_mem:
        if low_name not in presets:
            raise UsageFaultError(f"There is no low-memory preset for {backend}. Leave out --low-mem.")
        reasons.append(Reason(rule="low-mem", text="low memory was asked for"))
        return presets[low_name]
    if small and low_name in presets:
        text = f"{show_size(capacity)} of memory in all is less than {show_size(_LOW_MEM_CAPACITY)}"
        reasons.append(Reason(rule="low-mem", text=text))
        return presets[low_name]
    return find_preset(presets, backend)


def _choose_jobs(
    host: Host, request: Request, preset: Preset, rung: int, per_job: int, reasons: list[Reason]
) -> int:
    if request.jobs:
        reasons.append(Reason(rule="jobs", text=f"{request.jobs} jobs were asked for"))
        return request.jobs
    fitting = (rung - _RESERVE) // per_job if rung else host.cpu.usable
    jobs = max(1, min(host.cpu.usable, fitting))
    peak, there = show_size(per_job), show_size(rung)
    text = f"{host.cpu.usable} usable CPUs, {there} to plan with, {peak} per compile at most"
    if preset.low_mem and preset.jobs:
        jobs, text = preset.jobs, f"{text}; the low-memory recipe runs {preset.jobs} at a time"
    reasons.append(Reason(rule="jobs", text=text))
    if rung and rung < per_job:
        text = f"one compile can take {peak} and {there} are there: it is tried, and may be killed"
        reasons.append(Reason(rule="tight-memory", text=text))
    return jobs


def _defines(host: Host, request: Request, preset: Preset, reasons: list[Reason]) -> tuple[str, ...]:
    defines: list[str] = []
    if host.os.name == "Android" and not preset.portable:
        # -mcpu=native derives features from the CPU's name, and the kernel may have some of them off.
        arch = arm_arch(host.cpu.features)
        reasons.append(Reason(rule="arm-arch", text=f"{arch}: what every core of this phone can do"))
        defines += ["GGML_NATIVE=OFF", f"GGML_CPU_ARM_ARCH={arch}"]
    capabilities = sorted({device.capability for device in host.cuda.devices})
    if preset.backend == "cuda" and capabilities and not preset.portable:
        defines.append(f"CMAKE_CUDA_ARCHITECTURES={';'.join(f'{c}-real' for c in capabilities)}")
        if host.cuda.nvcc:
            defines.append(f"CMAKE_CUDA_COMPILER={host.cuda.nvcc.path}")
    if preset.backend == "hip" and host.hip.targets and not preset.portable:
        defines.append(f"GPU_TARGETS={';'.join(sorted(set(host.hip.targets)))}")
    if request.cmake_args:
        reasons.append(Reason(rule="cmake-args", text="CMAKE_ARGS is set and is passed on"))
    return tuple(defines)


def arm_arch(features: tuple[str, ...]) -> str:
    """-march for what Linux reports: asimddp is dotprod, asimdhp is fp16."""
    has = set(features)
    if "asimddp" not in has:
        return "armv8-a"
    extensions = [name for flag, name in (("asimdhp", "fp16"), ("i8mm", "i8mm")) if flag in has]
    return "+".join(("armv8.2-a", "dotprod", *extensions))
