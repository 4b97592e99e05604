"""What brings CUDA: the command for each obstacle."""

from __future__ import annotations

from floatllm_build.rules.containers import hand_through
from floatllm_build.rules.cuda_apt import APT, apt_will_do
from floatllm_build.rules.cuda_index import INSTALL, index_will_do
from floatllm_build.rules.machine import TO_WSL_2, glibc
from floatllm_build.rules.packages import as_root, chain, install_command, manager, pip_command
from floatllm_build.rules.systems import ubuntu_of
from floatllm_build.values import CudaToolkit, Host
from floatllm_build.versions import version_tuple

# First driver of each major version of CUDA on Linux (NVIDIA's release notes).
_FIRST_DRIVER = {11: "450", 12: "525", 13: "580"}
# Exit status of nvidia-smi if the driver's module is not in the kernel (its manual).
_NOT_LOADED = 9
# What CUDA 13 can still target.
_OLDEST_OF_13 = 75
# GPUs that need a toolkit newer than the distributions' (12.8 and later).
_NEWER_THAN_DISTRIBUTIONS = 100
# The first that CUDA 12 and older contradict.
_NEW_GLIBC = (2, 41)
# The last toolkit for GPUs older than 75, and for drivers older than 580. Without a version these commands
# bring CUDA 13.
_CUDA_12 = {
    "dnf": "sudo dnf install cuda-toolkit-12-9 (from NVIDIA's repository)",
    "zypper": "sudo zypper install cuda-toolkit-12-9 (from NVIDIA's repository)",
    "winget": "winget install Nvidia.CUDA --version 12.9",
}


def gpu_fix(host: Host) -> str:
    """Where no GPU answers."""
    # Before all else: under WSL the driver is there already, and what is missing is what the container was
    # started with.
    if host.os.container:
        jetson = "start the container with --runtime nvidia (JetPack's nvidia-container-toolkit)"
        return jetson if host.cuda.jetson else hand_through(host, "nvidia")
    if host.cuda.jetson:
        return as_root(host.os, "sudo apt install nvidia-l4t-core nvidia-l4t-cuda && sudo reboot")
    if host.os.wsl == 1:
        return TO_WSL_2
    if host.os.wsl:
        return "install NVIDIA's driver in Windows, then run `wsl --update` there"
    if host.cuda.smi_error == _NOT_LOADED:
        load = "with an NVIDIA GPU in the machine, load its driver: sudo modprobe nvidia"
        return f"{load}; if that fails: {_driver_command(host)}"
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
        return _jetpack(host, "sudo apt update && sudo apt install nvidia-jetpack")
    at_least = _at_least(major)
    if host.os.wsl:
        return f"install NVIDIA's driver {at_least} in Windows"
    if host.os.container:
        return f"install NVIDIA's driver {at_least} on the machine that runs the container"
    return _driver_command(host)


def _at_least(major: int) -> str:
    return f"{_FIRST_DRIVER[major]} or newer" if major in _FIRST_DRIVER else "a newer one"


def _driver_command(host: Host) -> str:
    if any(ubuntu_of(host.os)):
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
        return _jetpack(host, "sudo apt install nvidia-jetpack")
    if index_will_do(host, asked):
        return INSTALL
    wanted = _wanted(host, asked)
    new_glibc = glibc(host) >= _NEW_GLIBC
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
        return _jetpack(host, "sudo apt update && sudo apt install nvidia-jetpack")
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


def _cuda_12(host: Host, asked: tuple[str, ...]) -> str:
    own = manager(host.os)
    newest = max(_wanted(host, asked), default=0)
    capabilities = asked or tuple(device.capability for device in host.cuda.devices)
    if own == "apt" and apt_will_do(host, capabilities):
        return as_root(host.os, APT)
    if own in _CUDA_12:
        return as_root(host.os, _CUDA_12[own])
    wanted = "12.8 or 12.9" if newest >= _NEWER_THAN_DISTRIBUTIONS else "12.9"
    if () < version_tuple(host.cuda.supports) < (12,):
        wanted = "11.8"  # of what these drivers run, the one that takes the newest compilers
    return f"install NVIDIA's CUDA toolkit {wanted} from NVIDIA, and set CUDACXX to its nvcc"


# L4T 32 is JetPack 4, whose CUDA is 10.2; boards with these chips got no newer one (NVIDIA's JetPack archive,
# November 2026).
_LAST_JETPACK_4 = {"53", "62"}


def _jetpack(host: Host, command: str) -> str:
    if not host.cuda.jetson.startswith("32."):
        return as_root(host.os, command)
    if {device.capability for device in host.cuda.devices} & _LAST_JETPACK_4:
        return (
            "use the CPU backend: no JetPack for this board has a newer CUDA than 10.2 (JetPack 4 is the "
            "last for Nano, TX1 and TX2)"
        )
    return "flash JetPack 5 or newer with NVIDIA's SDK Manager, where the board has one: apt cannot change it"


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
