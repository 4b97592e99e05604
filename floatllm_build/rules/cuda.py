"""CUDA: GPU x driver x toolkit x host compiler x C library x CMake x ggml, until one toolkit fits all."""

from __future__ import annotations

from dataclasses import replace

from floatllm_build.rules.cuda_compilers import host_compiler, to_cmake
from floatllm_build.rules.cuda_driver import driver_fix, driver_needs, gpu_fix, newest_cuda
from floatllm_build.rules.cuda_fixes import cublas_fix, newer_toolkit_fix, toolkit_fix
from floatllm_build.rules.cuda_index import INDEX_KIT, index_download, index_hint, index_will_do, planned
from floatllm_build.rules.cuda_start import no_start
from floatllm_build.rules.cuda_targets import (
    OLDEST_CAPABILITY,
    as_asked,
    for_devices,
    kit_name,
    number,
    runs,
)
from floatllm_build.rules.fit import Fit, Obstacle, Terms, join, waive
from floatllm_build.rules.machine import WSL_1, glibc
from floatllm_build.rules.packages import pip_command
from floatllm_build.tables.cuda import OLDEST_TOOLKIT, VECTORS_SINCE_CUDA, VECTORS_SINCE_GLIBC
from floatllm_build.values import CudaToolkit, Host, Reason
from floatllm_build.versions import CMAKE_MINIMUM, version_tuple

# FindCUDAToolkit of 3.25.0 stumbles over a library that the package index's toolkit lacks; 3.25.2 to 4.4.4
# configured it, with CUDA 13 (measured). For other toolkits every CMake will do, since the architectures are
# named: ggml turns 120 into 120a after CMake has checked the list.
_OLDEST_CMAKE_FOR_WHEELS = (3, 25, 1)

# Toolkits before the version, and the newest glibc that they go with, where their headers could not be asked:
# cospi and sinpi (NVIDIA/cuda-samples#378), then rsqrt (ggml-org/llama.cpp#19100, llvm/llvm-project#185701).
_NEWEST_GLIBC = (((13, 0), "2.40"), ((13, 2), "2.41"))


def fit_cuda(host: Host, terms: Terms) -> Fit | Obstacle:
    """The first toolkit of the search's order that fits everything, and why others were passed over.

    Where CUDA was asked for, the package index's comes last: it costs a download that nobody should be
    surprised by.
    """
    no_build = _no_cuda_at_all(host)
    if no_build:
        return no_build
    absent = _absent_device(host)
    if absent and not terms.without_device:
        return absent
    named = next((note for note in host.notes if note.source == "CUDACXX"), None)
    if named:
        return Obstacle(reason=f"CUDACXX is set: {named.said}", fix="correct or unset CUDACXX")
    kits = (*host.cuda.toolkits, *_to_be_fetched(host, terms))
    if not kits:
        return _no_toolkit(host, terms)
    passed: list[tuple[str, Obstacle]] = []
    for kit in kits:
        got = _fit_toolkit(host, terms, kit, absent)
        if isinstance(got, Fit):
            over = (
                Reason(rule="cuda-toolkit", text=f"{name} was passed over: {obstacle.reason}")
                for name, obstacle in passed
            )
            return replace(got, reasons=(*over, *got.reasons))
        passed.append((kit_name(kit), got))
    # Behind what would have to be fetched there is nothing more to fetch.
    nearest = passed[-1 if kits[-1] is INDEX_KIT else 0][1]
    nearest = next((obstacle for _, obstacle in passed if obstacle.near), nearest)
    why = "; ".join(f"{name}: {obstacle.reason}" for name, obstacle in passed)
    return Obstacle(reason=f"no CUDA toolkit fits ({why})", fix=nearest.fix)


def _to_be_fetched(host: Host, terms: Terms) -> tuple[CudaToolkit, ...]:
    will_do = index_will_do(host, terms.architectures, without_device=terms.without_device)
    return (INDEX_KIT,) if terms.named and will_do else ()


def _no_toolkit(host: Host, terms: Terms) -> Obstacle:
    more = ""
    if index_will_do(host, terms.architectures):
        more = f"; {index_hint(host)}"
    elif host.os.name == "Windows" and terms.named:
        more = ", and that of the package index is untried on Windows"
    return Obstacle(
        reason=f"nvcc, the CUDA compiler, was not found{more}", fix=toolkit_fix(host, terms.architectures)
    )


def _no_cuda_at_all(host: Host) -> Obstacle | None:
    if host.os.name not in {"Linux", "Windows"}:
        reason = f"NVIDIA makes no CUDA for {'macOS' if host.os.name == 'Darwin' else host.os.name}"
        return Obstacle(reason=reason, fix="use Linux or Windows with an NVIDIA GPU")
    if host.os.libc.startswith("musl"):
        return Obstacle(
            reason="NVIDIA makes no CUDA for musl, this system's C library",
            fix="use a distribution with glibc, such as Debian or Fedora (a container will do)",
        )
    return None


def _absent_device(host: Host) -> Obstacle | None:
    if broken := no_start(host):
        return broken
    if not host.cuda.devices:
        wsl_1 = f", and {WSL_1}" if host.os.wsl == 1 else ""
        return Obstacle(reason=f"no NVIDIA GPU answered{wsl_1}", fix=gpu_fix(host))
    if not any(number(device.capability) >= OLDEST_CAPABILITY for device in host.cuda.devices):
        names = join([f"{device.name} ({device.capability})" for device in host.cuda.devices])
        return Obstacle(
            reason=f"{names} is older than compute capability 5.0, the oldest that ggml is written for",
            fix="use a newer GPU",
        )
    return None


def _fit_toolkit(host: Host, terms: Terms, kit: CudaToolkit, absent: Obstacle | None) -> Fit | Obstacle:
    unusable = _unusable_here(host, terms, kit) or _contradicts_glibc(host, terms, kit)
    if unusable:
        return unusable
    reasons: list[Reason] = []
    targets = _targets(host, terms, kit, absent or _driver_too_old(host, kit), reasons)
    compiler = host_compiler(host, kit)
    if isinstance(targets, Obstacle):
        return targets
    if isinstance(compiler, Obstacle):
        return compiler
    chosen, why = compiler
    fetched = kit is INDEX_KIT
    if fetched:
        text = f"no CUDA toolkit of this machine will do, so {kit_name(kit)} is fetched into the cache"
        reasons.append(Reason(rule="cuda-from-index", text=text))
    suffix = "" if terms.portable else "-real"
    named = () if terms.portable and not terms.architectures else targets
    architectures = ";".join(f"{target}{suffix}" for target in named)
    return Fit(
        architectures=named,
        defines=(
            # Without a list, ggml makes its own for all GPUs that the toolkit knows.
            *((f"CMAKE_CUDA_ARCHITECTURES={architectures}",) if named else ()),
            # The engine's CMake finds the rest of the toolkit beside it, one of the package index included.
            f"CMAKE_CUDA_COMPILER={to_cmake(kit.nvcc)}",
            *((f"CMAKE_CUDA_HOST_COMPILER={to_cmake(chosen)}",) if chosen else ()),
        ),
        reasons=(*reasons, *why),
        device=next((i for i, device in enumerate(host.cuda.devices) if runs(device, targets)), 0),
        proven=not any(reason.rule == "no-device" for reason in reasons),
        toolkit=planned(host, kit, plugin=bool(terms.plugin)),
        downloads=(index_download(host),) if fetched else (),
    )


def _unusable_here(host: Host, terms: Terms, kit: CudaToolkit) -> Obstacle | None:
    version = version_tuple(kit.version)
    if version and version < OLDEST_TOOLKIT:
        return Obstacle(reason="ggml needs 11.1 or newer", fix=toolkit_fix(host, terms.architectures))
    major = terms.plugin.removeprefix("cuda")
    if major.isdecimal() and version and version[0] != int(major):
        return Obstacle(
            reason=f"the wheel floatllm-{terms.plugin} is for the libraries of CUDA {major}",
            fix=toolkit_fix(host, terms.architectures),
        )
    if not kit.cublas:
        return Obstacle(
            reason="cuBLAS, which ggml is built with, is not part of it (no cublas_v2.h)",
            fix=cublas_fix(host, kit, terms.architectures),
            near=True,
        )
    cmake = version_tuple(host.toolchain.cmake.version) if host.toolchain.cmake else ()
    # A CMake older than our minimum is not used: its wheel is fetched.
    if kit.layout == "wheels" and CMAKE_MINIMUM <= cmake < _OLDEST_CMAKE_FOR_WHEELS:
        return Obstacle(
            reason="CMake 3.25.0 cannot use a toolkit from the package index",
            fix=pip_command(host, "cmake>=3.26"),
            near=True,
        )
    return None


def _contradicts_glibc(host: Host, terms: Terms, kit: CudaToolkit) -> Obstacle | None:
    """Two headers that declare a function, one with noexcept and one without, cannot be compiled together."""
    own = glibc(host)
    cxx = host.toolchain.cxx
    if not own or (cxx and "-conda-" in cxx.command):
        return None  # conda's compilers bring a glibc of their own
    if _chokes_on_vectors(host, kit, own):
        return Obstacle(
            reason=f"it cannot read bits/math-vector.h of {host.os.libc} (__Float32x4_t is undefined): on "
            "Arm, glibc 2.38 and newer need CUDA 12.5 or newer",
            fix=toolkit_fix(host, terms.architectures),
        )
    newest = kit.newest_glibc or next(
        (newest for before, newest in _NEWEST_GLIBC if () < version_tuple(kit.version) < before), "any"
    )
    if newest == "any" or own <= version_tuple(newest):
        return None
    return Obstacle(
        reason=f"its headers contradict those of {host.os.libc} (cospi or rsqrt: exception specification is "
        f"incompatible); they go with glibc up to {newest}",
        fix=newer_toolkit_fix(host, terms.architectures),
    )


def _chokes_on_vectors(host: Host, kit: CudaToolkit, own: tuple[int, ...]) -> bool:
    said = host.cuda.vector_math
    bare = said == "bare" or (not said and own >= VECTORS_SINCE_GLIBC)
    return host.cpu.arch == "arm64" and bare and () < version_tuple(kit.version) < VECTORS_SINCE_CUDA


def _targets(
    host: Host, terms: Terms, kit: CudaToolkit, absent: Obstacle | None, reasons: list[Reason]
) -> tuple[str, ...] | Obstacle:
    """Architectures of what was asked for, else of the devices here; none where none of these counts."""
    targets: tuple[str, ...] | Obstacle = ()
    if terms.architectures:
        targets = as_asked(host, terms, kit, reasons)
        if isinstance(targets, Obstacle):
            return targets
    elif not absent:
        targets = for_devices(host, kit, reasons)
    absent = targets if isinstance(targets, Obstacle) else absent
    if absent and not terms.without_device:
        return absent
    if absent:
        reasons.append(waive(absent))
    return targets if terms.architectures or not absent else ()


def _driver_too_old(host: Host, kit: CudaToolkit) -> Obstacle | None:
    """Within a major version every driver runs every toolkit's code, as long as it is no PTX: ours is not."""
    version, major = version_tuple(kit.version), newest_cuda(host)
    if not major or not version or version[0] <= major:
        return None
    return Obstacle(
        reason=f"the driver runs CUDA up to {host.cuda.supports or major}, and no newer major version; "
        f"{driver_needs(host, version[0])}",
        fix=driver_fix(host, version[0]),
    )
