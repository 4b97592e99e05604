"""NVIDIA's driver that is there and does not start."""

from __future__ import annotations

from floatllm_build.rules.containers import hand_through
from floatllm_build.rules.fit import Obstacle, join
from floatllm_build.tables.cuda_errors import ANY_ERROR, INIT_ERRORS, SMI_ERRORS, Meaning
from floatllm_build.values import Host

_NO_DEVICE, _COMPAT = 100, 804


def no_start(host: Host) -> Obstacle | None:
    """Why programs reach no GPU although there is a driver; None if nothing says so."""
    cuda = host.cuda
    code = cuda.init_error
    if code and code != _NO_DEVICE:
        meaning = INIT_ERRORS.get(code, ANY_ERROR)
        if cuda.library and code != _COMPAT:
            return _wrong_library(host, code)
        name = f" ({meaning.name})" if meaning.name else ""
        return Obstacle(reason=f"cuInit returns {code}{name}: {meaning.what}", fix=_fix(host, meaning))
    if meant := SMI_ERRORS.get(cuda.smi_error):
        reason = f"nvidia-smi ends with {cuda.smi_error}: {meant.what}"
        return Obstacle(reason=reason, fix=_fix(host, meant))
    if cuda.devices and not cuda.library:
        return _listed_only(host)
    return None


def _wrong_library(host: Host, code: int) -> Obstacle:
    """Measured on an H200: 803 from the compat library of a container's toolkit, 34 from a stub, while the
    driver's own library works.
    """
    return Obstacle(
        reason=f"{host.cuda.library} has the GPUs, and programs load another libcuda first, in which cuInit "
        f"returns {code} ({INIT_ERRORS.get(code, ANY_ERROR).name})",
        fix="take a toolkit's folders `compat` and `stubs` out of LD_LIBRARY_PATH",
    )


def _fix(host: Host, meaning: Meaning) -> str:
    if host.os.container and meaning.contained:
        return meaning.contained
    if (host.os.wsl or host.os.name == "Windows") and meaning.windows:
        return meaning.windows
    return meaning.here


def _listed_only(host: Host) -> Obstacle:
    """nvidia-smi talks to the driver in another way, so it lists GPUs that no program can compute on."""
    names = join(list(dict.fromkeys(device.name for device in host.cuda.devices)))
    if host.cuda.init_error:
        reason = f"nvidia-smi lists {names}, and cuInit returns 100: no GPU that programs can compute on"
        fix = (
            "see that /dev/nvidia-uvm is there (sudo nvidia-modprobe -u -c=0), and if MIG is on, make an "
            "instance: sudo nvidia-smi mig -cgi 0 -C"
        )
    else:
        reason = f"nvidia-smi lists {names}, and no library of the driver (libcuda) starts for programs"
        fix = "install the rest of the driver, of nvidia-smi's very version (Debian: libcuda1, Ubuntu: "
        fix += "libnvidia-compute, Fedora: xorg-x11-drv-nvidia-cuda-libs)"
    if host.os.wsl or host.os.name == "Windows":
        fix = ANY_ERROR.windows
    if host.os.container:
        fix = f"{hand_through(host, 'nvidia')}; its NVIDIA_DRIVER_CAPABILITIES must hold compute"
    return Obstacle(reason=reason, fix=fix)
