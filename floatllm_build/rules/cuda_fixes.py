"""What brings CUDA: the command for each obstacle."""

from __future__ import annotations

from floatllm_build.rules.cuda_index import INSTALL, index_will_do
from floatllm_build.rules.machine import TO_WSL_2, glibc
from floatllm_build.rules.packages import as_root, chain, install_command, manager, pip_command
from floatllm_build.values import CudaToolkit, Host
from floatllm_build.versions import version_tuple

# First driver of each major version of CUDA on Linux (NVIDIA's release notes).
_FIRST_DRIVER = {11: "450", 12: "525", 13: "580"}
# What CUDA 13 can still target.
_OLDEST_OF_13 = 75
# GPUs that need a toolkit newer than the distributions' (12.8 and later).
_NEWER_THAN_DISTRIBUTIONS = 100
# The first that CUDA 12 and older contradict.
_NEW_GLIBC = (2, 41)
# The last toolkit for GPUs older than 75, and for drivers older than 580. Without a version these commands
# bring CUDA 13; apt's package is the distribution's own and older.
_CUDA_12 = {
    "apt": "sudo apt install nvidia-cuda-toolkit",
    "dnf": "sudo dnf install cuda-toolkit-12-9 (from NVIDIA's repository)",
    "zypper": "sudo zypper install cuda-toolkit-12-9 (from NVIDIA's repository)",
    "winget": "winget install Nvidia.CUDA --version 12.9",
}


def gpu_fix(host: Host) -> str:
    """Where no GPU answers."""
    if host.cuda.jetson:
        return as_root(host.os, "sudo apt install nvidia-l4t-core nvidia-l4t-cuda && sudo reboot")
    if host.os.wsl == 1:
        return TO_WSL_2
    if host.os.wsl:
        return "install NVIDIA's driver in Windows, then run `wsl --update` there"
    if host.os.container:
        return "start the container with the GPU: docker run --gpus all (NVIDIA's container toolkit)"
    return f"with an NVIDIA GPU in the machine: {_driver_command(host)}, then see `nvidia-smi`"


def driver_needs(host: Host, major: int) -> str:
    """What there must be for CUDA `major`, in words beside driver_fix()."""
    if host.cuda.jetson:
        return f"CUDA {major} needs a newer JetPack"
    needs = f"CUDA {major} needs driver {_at_least(major)}"
    # A toolkit of an older major version would contradict a new glibc.
    only = glibc(host) >= _NEW_GLIBC
    return needs if only else f"{needs}, or there must be an older CUDA toolkit, with CUDACXX set to its nvcc"


def driver_fix(host: Host, major: int) -> str:
    """A driver that runs CUDA `major`."""
    if host.cuda.jetson:
        return as_root(host.os, "sudo apt update && sudo apt install nvidia-jetpack")
    at_least = _at_least(major)
    if host.os.wsl:
        return f"install NVIDIA's driver {at_least} in Windows"
    if host.os.container:
        return f"install NVIDIA's driver {at_least} on the machine that runs the container"
    return _driver_command(host)


def _at_least(major: int) -> str:
    return f"{_FIRST_DRIVER[major]} or newer" if major in _FIRST_DRIVER else "a newer one"


def _driver_command(host: Host) -> str:
    if "ubuntu" in host.os.version.lower():
        return "sudo ubuntu-drivers install"
    known = {
        "apt": "sudo apt install nvidia-driver",
        "dnf": "sudo dnf install akmod-nvidia (from RPM Fusion)",
        "pacman": "sudo pacman -S nvidia",
    }
    return known.get(manager(host.os), "install NVIDIA's driver")


# ---- toolkits ------------------------------------------------------------------------------------


def toolkit_fix(host: Host, asked: tuple[str, ...] = ()) -> str:
    """Another toolkit, for the architectures that were `asked` for, else for the GPUs that are here.

    The package index's where that one works, for it needs no administrator.
    """
    if host.cuda.jetson:
        return as_root(host.os, "sudo apt install nvidia-jetpack")
    if index_will_do(host, asked):
        return INSTALL
    wanted = _wanted(host, asked)
    new_glibc = glibc(host) >= _NEW_GLIBC
    if _too_old_for_13(host, asked):
        return _OLDER_GLIBC if new_glibc else _cuda_12(host)
    if _driver_too_old_for_13(host):
        return newer_toolkit_fix(host, asked) if new_glibc else _cuda_12(host, newest=max(wanted, default=0))
    if new_glibc or max(wanted, default=0) >= _NEWER_THAN_DISTRIBUTIONS:
        version = "13.2" if new_glibc else "12.8"
        return f"install NVIDIA's CUDA toolkit {version} or newer from NVIDIA, and set CUDACXX to its nvcc"
    return install_command(host.os, "cuda")


def newer_toolkit_fix(host: Host, asked: tuple[str, ...]) -> str:
    """A toolkit that a new glibc does not contradict."""
    if host.cuda.jetson:
        return as_root(host.os, "sudo apt update && sudo apt install nvidia-jetpack")
    if _too_old_for_13(host, asked):
        return _OLDER_GLIBC
    if index_will_do(host, asked):
        return INSTALL
    if _driver_too_old_for_13(host) and host.cpu.arch in {"x86_64", "arm64"}:
        return chain(driver_fix(host, 13), INSTALL)
    return "install NVIDIA's CUDA toolkit 13.2 or newer from NVIDIA, and set CUDACXX to its nvcc"


_OLDER_GLIBC = (
    "use a system with glibc 2.40 or older, or a container of one (docker run --gpus all, Ubuntu 24.04 and "
    "its CUDA 12): NVIDIA's toolkits for these GPUs contradict newer ones, unless sinpi, cospi, rsqrt and "
    "their twins with f are declared noexcept(true) in crt/math_functions.h"
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
    return bool(wanted) and (min(wanted) if asked else max(wanted)) < _OLDEST_OF_13


def _driver_too_old_for_13(host: Host) -> bool:
    return () < version_tuple(host.cuda.supports) < (13,)


def _cuda_12(host: Host, newest: int = 0) -> str:
    own = manager(host.os)
    new_gpu = newest >= _NEWER_THAN_DISTRIBUTIONS
    if own not in _CUDA_12 or (new_gpu and own == "apt"):
        wanted = "12.8 or 12.9" if new_gpu else "12.9"
        return f"install NVIDIA's CUDA toolkit {wanted} from NVIDIA, and set CUDACXX to its nvcc"
    return as_root(host.os, _CUDA_12[own])


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
