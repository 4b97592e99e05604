"""NVIDIA's driver that is there and does not start: what its errors mean and what mends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Meaning:
    name: str
    what: str
    here: str
    """What to do on the machine itself."""
    contained: str = ""
    """The same for a container, if it differs."""
    windows: str = ""
    """The same for Windows and WSL, if it differs."""


_REBOOT = "sudo reboot"
_ON_THE_MACHINE = "on the machine that runs the container"
_MPS = Meaning(
    name="CUDA_ERROR_MPS_...",
    what="the MPS server, through which programs share the GPU here, does not answer",
    here="stop it (echo quit | nvidia-cuda-mps-control), or unset CUDA_MPS_PIPE_DIRECTORY",
)
# CUresult of cuda.h. What they mean and what mends each, as known in November 2026: NVIDIA's manuals of the
# driver API, Fabric Manager, MPS and CUDA compatibility; for 803 and 999 ollama/ollama#5573 and #6364.
INIT_ERRORS: Mapping[int, Meaning] = {
    34: Meaning(
        name="CUDA_ERROR_STUB_LIBRARY",
        what="programs load a stub that toolkits have for linking, and no driver",
        here="take the toolkit's folder `stubs` out of LD_LIBRARY_PATH",
    ),
    46: Meaning(
        name="CUDA_ERROR_DEVICE_UNAVAILABLE",
        what="another program holds the GPU for itself, or it is in exclusive or prohibited mode",
        here="end that program (`nvidia-smi` lists it), or sudo nvidia-smi -c 0",
        windows="end that program (`nvidia-smi` lists it)",
    ),
    101: Meaning(
        name="CUDA_ERROR_INVALID_DEVICE",
        what="the driver offers a GPU and does not accept it",
        here="reset it: sudo nvidia-smi -r, or sudo reboot",
        contained=f"restart the container; if that does not do, reset the GPU {_ON_THE_MACHINE}",
        windows="restart Windows",
    ),
    102: Meaning(
        name="CUDA_ERROR_DEVICE_NOT_LICENSED",
        what="this virtual GPU (vGPU) has no licence, without which it computes nothing",
        here="set the licence server or token in /etc/nvidia and start nvidia-gridd: "
        "sudo systemctl restart nvidia-gridd",
        contained=f"have the vGPU licensed {_ON_THE_MACHINE}",
        windows="have the vGPU licensed: NVIDIA Control Panel, Manage license",
    ),
    214: Meaning(
        name="CUDA_ERROR_ECC_UNCORRECTABLE",
        what="the GPU's memory had an error that cannot be corrected",
        here="reset the GPU: sudo nvidia-smi -r, or sudo reboot",
        contained=f"reset the GPU {_ON_THE_MACHINE}: sudo nvidia-smi -r",
        windows="restart Windows",
    ),
    304: Meaning(
        name="CUDA_ERROR_OPERATING_SYSTEM",
        what="the driver's files in /dev could not be opened, or a call to the system failed",
        here="make them: sudo nvidia-modprobe -u -c=0, and see that you may open /dev/nvidia*",
        contained="give the container all of /dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm",
        windows="restart Windows",
    ),
    802: Meaning(
        name="CUDA_ERROR_SYSTEM_NOT_READY",
        what="the GPUs are joined by NVSwitch, and Fabric Manager, which must run then, does not (or not in "
        "the driver's very version)",
        here="sudo systemctl enable --now nvidia-fabricmanager (of the driver's very version)",
        contained=f"start nvidia-fabricmanager {_ON_THE_MACHINE}: "
        "sudo systemctl enable --now nvidia-fabricmanager",
    ),
    803: Meaning(
        name="CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        what="the driver's library is of another version than its module in the kernel, as after an update "
        "without a reboot",
        here="sudo reboot (the module of the new version is loaded then)",
        contained="reboot the machine that runs the container, then start the container again; a cuda-compat "
        "package or /usr/local/cuda/compat in LD_LIBRARY_PATH must go with that driver",
        windows="restart Windows",
    ),
    804: Meaning(
        name="CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
        what="programs load a toolkit's compat library, which works with data centre GPUs alone",
        here="take the folder `compat` out of LD_LIBRARY_PATH, or remove the package cuda-compat (conda "
        "remove cuda-compat); for a newer CUDA, install a newer driver",
        contained="take /usr/local/cuda/compat out of LD_LIBRARY_PATH, or take an image whose CUDA is no "
        f"newer than the driver {_ON_THE_MACHINE}",
    ),
    **dict.fromkeys(range(805, 811), _MPS),
    999: Meaning(
        name="CUDA_ERROR_UNKNOWN",
        what="the driver's module does not work any more, as often after suspend",
        here="sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm, or sudo reboot",
        contained=f"load the module again {_ON_THE_MACHINE} (sudo rmmod nvidia_uvm && sudo modprobe "
        "nvidia_uvm), or reboot it, then start the container again",
        windows="restart Windows, and under WSL: `wsl --shutdown` in Windows",
    ),
}
ANY_ERROR = Meaning(
    name="",
    what="the driver does not start",
    here="see what `nvidia-smi` and `sudo dmesg` say of it, and reboot",
    contained=f"see what `nvidia-smi` says {_ON_THE_MACHINE}, and start the container again",
    windows="install NVIDIA's newest driver in Windows and restart it (under WSL, `wsl --shutdown` there)",
)
# Exit status of nvidia-smi (its manual; nvml.h for 18), asked if no library offers a device. 9, a driver that
# is not loaded, is not among them: there may as well be no GPU.
SMI_ERRORS: Mapping[int, Meaning] = {
    15: Meaning(
        name="",
        what="the GPU has fallen off its bus",
        here=_REBOOT,
        contained="reboot the machine that runs the container",
        windows="restart Windows",
    ),
    18: INIT_ERRORS[803],
}
