"""Debian's and Ubuntu's own CUDA toolkit, the package nvidia-cuda-toolkit: often too old."""

from __future__ import annotations

from floatllm_build.rules.machine import glibc
from floatllm_build.rules.systems import debian_of, ubuntu_of
from floatllm_build.tables.cuda import (
    OLDEST_TOOLKIT,
    VECTORS_SINCE_CUDA,
    VECTORS_SINCE_GLIBC,
    architectures_of,
    failure_of,
)
from floatllm_build.tables.gpu_packages import DEBIAN, UBUNTU, Packages
from floatllm_build.values import Host, OsFacts

APT = "sudo apt install nvidia-cuda-toolkit"


def packages_of(os_facts: OsFacts) -> Packages | None:
    """Those of the release that this system is or is made from; None for others and for unknown ones."""
    return UBUNTU.get(ubuntu_of(os_facts)) or DEBIAN.get(debian_of(os_facts))


def apt_version(host: Host, capabilities: tuple[str, ...]) -> tuple[int, ...]:
    """The package's CUDA, if it compiles ggml on this system, and for at least one of the capabilities.

    Empty if it does not, and for systems whose package is not known.
    """
    own = packages_of(host.os)
    if own is None:
        return ()
    version = own.cuda
    if version < OLDEST_TOOLKIT or failure_of(version, "gcc", own.gcc):
        return ()
    if host.cpu.arch == "arm64" and glibc(host) >= VECTORS_SINCE_GLIBC and version < VECTORS_SINCE_CUDA:
        return ()
    known = architectures_of(version)
    fits = not capabilities or any(_runs(name, known) for name in capabilities)
    return version if fits else ()


def _runs(capability: str, known: tuple[str, ...]) -> bool:
    """Code for the capability, or for an older one of its major version, runs on such a GPU."""
    older = (name for name in known if name[:-1] == capability[:-1] and name <= capability)
    return any(older)
