"""What brings NVIDIA's driver, or one that is new enough."""

from __future__ import annotations

from floatllm_build.rules.containers import hand_through
from floatllm_build.rules.machine import TO_WSL_2, glibc
from floatllm_build.rules.packages import as_root, by_this_user, image_of, manager
from floatllm_build.rules.systems import debian_of, ubuntu_of
from floatllm_build.tables.cuda import FIRST_DRIVER
from floatllm_build.tables.gpu_packages import (
    DEBIAN_DRIVERS,
    DEBIAN_OF_NVIDIA,
    DRIVER_OF_UBUNTU,
    DRIVERS,
    UBUNTU_DRIVERS,
)
from floatllm_build.values import Host
from floatllm_build.versions import version_tuple

# Exit status of nvidia-smi if the driver's module is not in the kernel (its manual).
_NOT_LOADED = 9
# The first that CUDA 12 and older contradict.
NEW_GLIBC = (2, 41)
_MAJOR_FOR_NEW_GLIBC = 13


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
    # A driver that no toolkit for this system goes with would only lead to the next obstacle.
    least = FIRST_DRIVER[_MAJOR_FOR_NEW_GLIBC] if glibc(host) >= NEW_GLIBC else 0
    if host.cuda.smi_error == _NOT_LOADED:
        load = "with an NVIDIA GPU in the machine, load its driver: sudo modprobe nvidia"
        return f"{load}; if that fails: {_driver_command(host, least)}"
    return f"with an NVIDIA GPU in the machine: {_driver_command(host, least)}, then see `nvidia-smi`"


def newest_cuda(host: Host) -> int:
    """Major version of the newest CUDA that the driver runs; 0 where nobody knows."""
    supports = version_tuple(host.cuda.supports)
    driver = version_tuple(host.cuda.driver)
    # Some drivers do not say which CUDA they run.
    by_driver = (major for major, first in FIRST_DRIVER.items() if driver >= (first,))
    return supports[0] if supports else max(by_driver, default=0)


def driver_needs(host: Host, major: int) -> str:
    """What there must be for CUDA `major`, in words beside driver_fix()."""
    if host.cuda.jetson:
        return f"CUDA {major} needs a newer JetPack"
    needs = f"CUDA {major} needs driver {_at_least(major)}"
    # A toolkit of an older major version would contradict a new glibc.
    only = glibc(host) >= NEW_GLIBC
    return needs if only else f"{needs}; or install an older CUDA toolkit and set CUDACXX to its nvcc"


def driver_fix(host: Host, major: int) -> str:
    """A driver that runs CUDA `major`, where the one that is there does not."""
    if host.cuda.jetson:
        return jetpack(host, "sudo apt update && sudo apt install nvidia-jetpack")
    at_least = _at_least(major)
    if host.os.wsl:
        return f"install NVIDIA's driver {at_least} in Windows"
    if host.os.container:
        return f"install NVIDIA's driver {at_least} on the machine that runs the container"
    image = image_of(host.os)
    if image and image.update:
        return by_this_user(host.os, image.update)
    return _driver_command(host, FIRST_DRIVER.get(major, 0))


def _at_least(major: int) -> str:
    return f"{FIRST_DRIVER[major]} or newer" if major in FIRST_DRIVER else "a newer one"


def _driver_command(host: Host, least: int) -> str:
    """What brings a driver to the system itself, of major version `least` or newer."""
    if image := image_of(host.os):
        return by_this_user(host.os, image.driver)
    ubuntu, debian = ubuntu_of(host.os), debian_of(host.os)
    own = UBUNTU_DRIVERS.get(ubuntu, 0) or DEBIAN_DRIVERS.get(debian, 0)
    if 0 < own < least:
        return _newer_than_packaged(host, own, least)
    if any(ubuntu):
        return as_root(host.os, DRIVER_OF_UBUNTU)
    command = DRIVERS.get(manager(host.os))
    if command:
        return as_root(host.os, command)
    return f"install NVIDIA's driver {least} or newer" if least else "install NVIDIA's driver"


def _newer_than_packaged(host: Host, own: int, least: int) -> str:
    why = f"this system's packages have driver {own}, and {least} is needed"
    if debian_of(host.os) in DEBIAN_OF_NVIDIA:
        command = as_root(host.os, "sudo apt update && sudo apt install cuda-drivers")
        return f"add NVIDIA's own apt repository for this release and run: {command} ({why})"
    return (
        f"use a newer release of this system, or install driver {least} or newer with NVIDIA's installer for "
        f"Linux (nvidia.com/drivers), after removing the packaged driver ({why})"
    )


# L4T 32 is JetPack 4, whose CUDA is 10.2; boards with these chips got no newer one (NVIDIA's JetPack archive,
# November 2026).
_LAST_JETPACK_4 = {"53", "62"}


def jetpack(host: Host, command: str) -> str:
    """`command`, if apt can bring a newer CUDA to this Jetson; else what does."""
    if not host.cuda.jetson.startswith("32."):
        return as_root(host.os, command)
    if {device.capability for device in host.cuda.devices} & _LAST_JETPACK_4:
        return (
            "use the CPU backend: no JetPack for this board has a newer CUDA than 10.2 (JetPack 4 is the "
            "last for Nano, TX1 and TX2)"
        )
    return "flash JetPack 5 or newer with NVIDIA's SDK Manager, where the board has one: apt cannot change it"
