"""What brings CUDA toolkits and what they need: the command for each obstacle."""

from __future__ import annotations

from floatllm_build.rules.cuda_apt import APT, apt_version
from floatllm_build.rules.cuda_driver import NEW_GLIBC, driver_fix, jetpack, newest_cuda
from floatllm_build.rules.cuda_index import INSTALL, index_will_do
from floatllm_build.rules.machine import glibc
from floatllm_build.rules.packages import as_root, chain, install_command, manager, pip_command
from floatllm_build.tables.cuda import OLDEST_OF_13
from floatllm_build.tables.gpu_packages import CUDA_12
from floatllm_build.values import CudaToolkit, Host
from floatllm_build.versions import version_tuple

# GPUs that need a toolkit newer than the distributions' (12.8 and later).
_NEWER_THAN_DISTRIBUTIONS = 100


# ---- toolkits ------------------------------------------------------------------------------------


def toolkit_fix(host: Host, asked: tuple[str, ...] = ()) -> str:
    """Another toolkit, for the architectures that were `asked` for, else for the GPUs that are here.

    The package index's where that one works, for it needs no administrator.
    """
    if host.cuda.jetson:
        return jetpack(host, "sudo apt install nvidia-jetpack")
    if index_will_do(host, asked):
        return INSTALL
    wanted = _wanted(host, asked)
    new_glibc = glibc(host) >= NEW_GLIBC
    if _too_old_for_13(host, asked):
        return _OLDER_GLIBC if new_glibc else _cuda_12(host, asked)
    if _driver_too_old_for_13(host):
        return newer_toolkit_fix(host, asked) if new_glibc else _cuda_12(host, asked)
    if new_glibc or max(wanted, default=0) >= _NEWER_THAN_DISTRIBUTIONS:
        version = "13.2" if new_glibc else "12.8"
        return f"install NVIDIA's CUDA toolkit {version} or newer from NVIDIA, and set CUDACXX to its nvcc"
    if manager(host.os) == "apt":
        return _cuda_12(host, asked)
    return install_command(host.os, "cuda")


def newer_toolkit_fix(host: Host, asked: tuple[str, ...]) -> str:
    """A toolkit that a new glibc does not contradict."""
    if host.cuda.jetson:
        return jetpack(host, "sudo apt update && sudo apt install nvidia-jetpack")
    if _too_old_for_13(host, asked):
        return _OLDER_GLIBC
    if index_will_do(host, asked):
        return INSTALL
    if _driver_too_old_for_13(host) and host.cpu.arch in {"x86_64", "arm64"}:
        return chain(driver_fix(host, 13), INSTALL)
    return "install NVIDIA's CUDA toolkit 13.2 or newer from NVIDIA, and set CUDACXX to its nvcc"


_OLDER_GLIBC = (
    "use a system with glibc 2.40 or older, or a container of one (docker run --gpus all, Ubuntu 24.04 and "
    "its CUDA 12): NVIDIA's toolkits for these GPUs do not compile with a newer glibc, unless you declare "
    "sinpi, cospi, rsqrt, sinpif, cospif and rsqrtf as noexcept(true) in crt/math_functions.h"
)


def cublas_fix(host: Host, kit: CudaToolkit, asked: tuple[str, ...]) -> str:
    """What brings cuBLAS beside a toolkit that lacks it."""
    if kit.layout == "wheels":
        return pip_command(host, f"cuda-toolkit[cublas]=={kit.version}.*")
    own = {"apt": "sudo apt install libcublas-dev-{}", "dnf": "sudo dnf install libcublas-devel-{}"}
    command = own.get(manager(host.os))
    if command and kit.nvcc.startswith("/usr/"):
        command = as_root(host.os, command.format(kit.version.replace(".", "-")))
        return f"{command} (from NVIDIA's repository)"
    return toolkit_fix(host, asked)


def _wanted(host: Host, asked: tuple[str, ...]) -> list[int]:
    names = asked or tuple(device.capability for device in host.cuda.devices)
    return [numbers[0] for numbers in map(version_tuple, names) if numbers]


def _too_old_for_13(host: Host, asked: tuple[str, ...]) -> bool:
    """All that was asked for must be compiled; of the GPUs that are here, those that can be."""
    wanted = _wanted(host, asked)
    return bool(wanted) and (min(wanted) if asked else max(wanted)) < OLDEST_OF_13


def _driver_too_old_for_13(host: Host) -> bool:
    return 0 < newest_cuda(host) < 13


def _cuda_12(host: Host, asked: tuple[str, ...]) -> str:
    """The last toolkit for older GPUs and drivers; behind a newer driver where even that does not run it."""
    own, runs = manager(host.os), newest_cuda(host)
    capabilities = asked or tuple(device.capability for device in host.cuda.devices)
    packaged = apt_version(host, capabilities) if own == "apt" else ()
    driver = driver_fix(host, 12) if 0 < runs < (*packaged, 12)[0] else ""
    if packaged:
        return chain(driver, as_root(host.os, APT))
    if own in CUDA_12:
        return chain(driver, as_root(host.os, CUDA_12[own]))
    newest = max(_wanted(host, asked), default=0)
    wanted = "12.8 or 12.9" if newest >= _NEWER_THAN_DISTRIBUTIONS else "12.9"
    return chain(driver, f"install NVIDIA's CUDA toolkit {wanted} from NVIDIA, and set CUDACXX to its nvcc")


# ---- host compilers ------------------------------------------------------------------------------


def older_compiler_fix(host: Host, newest_gcc: int) -> str:
    own = manager(host.os)
    known = {
        "apt": "sudo apt install g++-{}",
        "dnf": "sudo dnf install gcc{}-c++",
        "pacman": "sudo pacman -S gcc{}",
    }
    if newest_gcc > 0 and own in known:
        return as_root(host.os, known[own].format(newest_gcc))
    wanted = f"g++ {newest_gcc} or older" if newest_gcc > 0 else "an older g++"
    return f"install {wanted} and set CXX to it"
