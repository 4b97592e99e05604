"""The facts of a host as rows: one for each thing that a person asks about a machine."""

from __future__ import annotations

from pathlib import PurePosixPath

from floatllm_build.plain import tilde
from floatllm_build.render.layout import Row
from floatllm_build.render.words import count, fold, short, size
from floatllm_build.rules.cuda_targets import runs
from floatllm_build.values import (
    Compiler,
    CpuFacts,
    CudaDevice,
    CudaFacts,
    DiskFacts,
    HipFacts,
    Host,
    MemoryFacts,
    MetalFacts,
    OsFacts,
    Plan,
    Program,
    Target,
    ToolchainFacts,
    VulkanFacts,
)

# Features that decide how fast the engine's CPU code is, the strongest first.
_TELLING = (
    *("amx_int8", "avx512f", "avx_vnni", "avx2", "fma", "f16c"),
    *("sme", "sve2", "sve", "i8mm", "asimddp", "asimdhp"),
    *("FEAT_I8MM", "FEAT_DotProd", "FEAT_FP16"),
)


def fact_rows(host: Host) -> tuple[Row, ...]:
    rows = [
        _row("system", _system(host.os)),
        _row("python", (f"{host.python.version}", host.python.platform, tilde(host.python.executable))),
        _row("installs", _target(host.target)),
        _row("cpu", _cpu(host.cpu)),
        _row("memory", _memory(host.memory)),
        *([_row("disk", _disk(host.disk))] if host.disk.free is not None else []),
        _row("compiler", _compilers(host.toolchain)),
        _row("tools", _tools(host.toolchain)),
    ]
    gpus = {
        "metal": _metal(host.metal),
        "cuda": _cuda(host.cuda),
        "hip": _hip(host.hip),
        "vulkan": _vulkan(host.vulkan),
    }
    rows += [_row(api, parts) for api, parts in gpus.items() if any(parts)]
    if not any(map(any, gpus.values())):
        asked = {"Darwin": "none found; asked Metal", "Android": "not asked; name --backend vulkan to try it"}
        rows.append(_row("gpu", (asked.get(host.os.name, "none found; asked CUDA, HIP and Vulkan"),)))
    if host.others:
        found = (f"{other.what} ({tilde(other.where)})" for other in host.others)
        rows.append(_row("also here", (fold(map(short, found)), "not used")))
    return tuple(rows)


def device_name(host: Host, plan: Plan) -> str:
    """What people call the devices that the plan is for; empty where they are not here."""
    names = {
        "metal": [device.name for device in host.metal.devices],
        "cuda": _covered_cuda(host.cuda, plan.architectures),
        "hip": _covered_hip(host.hip, plan.architectures),
        "vulkan": [device.name for device in host.vulkan.devices if device.type != "cpu"]
        or [device.name for device in host.vulkan.devices],
        "cpu": [host.cpu.name or f"the {host.cpu.arch} CPU"],
    }
    return fold(map(short, names.get(plan.backend, ())))


def _covered_cuda(cuda: CudaFacts, architectures: tuple[str, ...]) -> list[str]:
    """Those that run what is compiled; all where that is ggml's list, or none does by what is known."""
    covered = [device.name for device in cuda.devices if runs(device, architectures)]
    return covered or [device.name for device in cuda.devices]


def _covered_hip(hip: HipFacts, architectures: tuple[str, ...]) -> list[str]:
    compiled = {name.partition(":")[0] for name in architectures}
    return [name for name in hip.targets if name in compiled] or list(hip.targets)


def _row(label: str, parts: tuple[str, ...]) -> Row:
    return Row(label=label, parts=tuple(part for part in parts if part))


def _system(os: OsFacts) -> tuple[str, ...]:
    return (
        short(os.version) or os.name,
        # Android's kernel is Linux too, but its version says little to anybody.
        "" if os.name == "Android" else short(f"{os.name} {os.release}"),
        short(os.machine),
        short(os.libc),
        f"API {os.api_level}" if os.api_level else "",
        "Termux" if os.termux else "",
        f"WSL {os.wsl}" if os.wsl else "",
        f"in {_container(os.container)}" if os.container else "",
        "translated by Rosetta" if os.rosetta else "",
        {"ostree": "an image (ostree)", "read-only": "an image (/usr is read-only)"}.get(os.image, ""),
        "" if os.bits == 64 else f"{os.bits}-bit programs",
    )


def _container(kind: str) -> str:
    return "a container" if kind == "container" else f"a container ({short(kind)})"


def _target(target: Target | None) -> tuple[str, ...]:
    if not target:
        return ("unknown: no Python answered that could be installed into",)
    kind = {"venv": "virtual environment", "system": "system Python", "uv-tool": "uv tool"}
    held = PurePosixPath(target.installed.replace("\\", "/")).name.removesuffix(".dist-info")
    return (
        f"into {tilde(target.prefix)}",
        f"{kind.get(target.kind, target.kind)}, by {tilde(target.chosen_by)}",
        f"Python {'.'.join(map(str, target.version))}",
        "managed by the system" if target.externally_managed else "",
        f"holds {short(held)}" if held else "",
    )


def _cpu(cpu: CpuFacts) -> tuple[str, ...]:
    binding = min(cpu.bounds, key=lambda bound: bound.cpus, default=None)
    bound = binding is not None and binding.cpus < cpu.logical
    many = count(cpu.logical, "CPU")
    telling = [name for name in _TELLING if name in set(cpu.features)]
    return (
        short(cpu.name) or "name unknown",
        f"emulated by {short(cpu.emulator)} on {short(cpu.emulated_on)}" if cpu.emulator else "",
        cpu.arch,
        many if cpu.usable == cpu.logical else f"{cpu.usable} of {many} usable",
        f"bound by {short(binding.source)}" if binding and bound else "",
        count(cpu.big_cores, "big core") if cpu.big_cores else "",
        " ".join(telling[:4]),
    )


def _memory(memory: MemoryFacts) -> tuple[str, ...]:
    if memory.room <= 0:
        return ("unknown",)
    binding = next((bound for bound in memory.bounds if bound.source == memory.binding), None)
    limit = binding.limit if binding else memory.capacity
    narrower = 0 < limit < memory.total
    return (
        f"{size(memory.room)} free of {size(limit)}",
        f"bound by {short(memory.binding)}" if memory.binding else "",
        f"the machine has {size(memory.total)}" if narrower else "",
        f"swap {size(memory.swap_free)} free of {size(memory.swap_total)}"
        if memory.swap_free > 0
        else ("swap full" if memory.swap_total > 0 else "no swap"),
    )


def _disk(disk: DiskFacts) -> tuple[str, ...]:
    return (
        f"{size(disk.free or 0)} free for the cache",
        f"which holds {size(disk.held)}" if disk.held else "",
        "no programs may be run there (noexec)" if disk.noexec else "",
        f"the cache's folder {short(disk.refusal)}" if disk.refusal else "",
    )


def _compilers(chain: ToolchainFacts) -> tuple[str, ...]:
    if not chain.cxx:
        return (_compiler(chain.c) if chain.c else "", "no C++ compiler found")
    alike = chain.c and (chain.c.kind, chain.c.version) == (chain.cxx.kind, chain.cxx.version)
    linkers = (f"{linker.kind} {linker.version}".strip() for linker in chain.linkers)
    return (
        _compiler(chain.cxx),
        "" if alike else f"C: {_compiler(chain.c)}" if chain.c else "no C compiler found",
        f"linker {fold(map(short, linkers))}" if chain.linkers else "",
        f"also {fold(short(other.command) for other in chain.others)}" if chain.others else "",
        f"Visual Studio {fold(short(found.version) for found in chain.msvc)}" if chain.msvc else "",
        f"Xcode tools {tilde(short(chain.xcode))}" if chain.xcode else "",
    )


def _compiler(compiler: Compiler) -> str:
    said = f"{short(compiler.kind)} {short(compiler.version)}".strip()
    return f"{said} ({tilde(short(compiler.command))})"


def _tools(chain: ToolchainFacts) -> tuple[str, ...]:
    launcher = chain.launcher
    name = PurePosixPath(launcher.path.replace("\\", "/")).stem if launcher else ""
    return (
        _program("cmake", chain.cmake),
        _program("ninja", chain.ninja),
        _program(short(name), launcher) if launcher else "no ccache",
    )


def _program(name: str, program: Program | None) -> str:
    return f"{name} {short(program.version)}".strip() if program else f"no {name}"


# ---- what computes beside the CPU -------------------------------------------------------------


def _metal(metal: MetalFacts) -> tuple[str, ...]:
    working = (f"{device.name}, {size(device.working_set)} for the GPU" for device in metal.devices)
    return (fold(map(short, working)),)


def _cuda(cuda: CudaFacts) -> tuple[str, ...]:
    if not (cuda.devices or cuda.toolkits or cuda.library):
        return ()
    return (
        fold(map(_cuda_device, cuda.devices)) or "no device",
        _cuda_driver(cuda),
        f"nvcc {fold(short(toolkit.version) for toolkit in cuda.toolkits)}" if cuda.toolkits else "no nvcc",
        f"Jetson {short(cuda.jetson)}" if cuda.jetson else "",
    )


def _cuda_device(device: CudaDevice) -> str:
    said = ", ".join(
        part
        for part in (
            size(device.memory) if device.memory > 0 else "",
            f"capability {_capability(device.capability)}" if device.capability else "",
            "shares the machine's memory" if device.integrated else "",
            "MIG" if device.mig else "",
        )
        if part
    )
    return f"{short(device.name)} ({said})" if said else short(device.name)


def _capability(digits: str) -> str:
    return f"{digits[:-1]}.{digits[-1]}" if digits.isdigit() and len(digits) > 1 else short(digits)


def _cuda_driver(cuda: CudaFacts) -> str:
    runs = f"for CUDA {short(cuda.supports)}" if cuda.supports else ""
    if cuda.driver:
        return f"driver {short(cuda.driver)}" + (f" {runs}" if runs else "")
    return f"driver {runs}" if runs else f"{tilde(short(cuda.library))} found" if cuda.library else ""


def _hip(hip: HipFacts) -> tuple[str, ...]:
    if not (hip.targets or hip.rocm or hip.hipcc):
        return ()
    covered = not hip.rocblas or set(hip.targets) <= set(hip.rocblas)
    return (
        fold(map(short, hip.targets)) or "no device",
        f"ROCm {short(hip.version)}".strip() if hip.rocm else "no ROCm",
        "" if hip.hipcc else "no hipcc",
        "" if covered else "no rocBLAS kernels for it",
    )


def _vulkan(vulkan: VulkanFacts) -> tuple[str, ...]:
    if not (vulkan.devices or vulkan.library or vulkan.headers or vulkan.glslc):
        return ()
    kinds = {"cpu": "software", "other": "of unknown kind"}
    devices = (f"{short(device.name)} ({kinds.get(device.type, device.type)})" for device in vulkan.devices)
    return (
        fold(devices) or "no device",
        f"headers {vulkan.headers}" if vulkan.headers else "no headers",
        _program("glslc", vulkan.glslc),
        "SPIRV-Headers" if vulkan.spirv_headers else "no SPIRV-Headers",
    )
