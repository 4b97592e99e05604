"""Machines that cannot run the engine at all."""

from __future__ import annotations

from floatllm_build.values import Host
from floatllm_build.versions import version_tuple

# Where the running Python does not say its byte order: machines that have the other one. MIPS comes in both.
_BIG_ENDIAN = (
    "s390",
    "ppc64",
    "ppc",
    "powerpc",
    "powerpc64",
    "sparc",
    "aarch64_be",
    "armeb",
    "m68k",
    "parisc",
    "hppa",
)
_LITTLE_ENDIAN = ("ppc64le", "ppcle", "powerpc64le", "powerpcle")
_32_BIT_KERNELS = {"armv6l", "armv7l", "armv7", "arm", "i386", "i486", "i586", "i686", "x86"}
# Architecture -> what containers call their platform.
_PLATFORMS = {"x86_64": "amd64", "arm64": "arm64", "loongarch64": "loong64"}

# What no driver and no package mends.
WSL_1 = "WSL 1 reaches no GPU at all; WSL 2 does, and in Windows `wsl --list` shows DISTRO's name"
TO_WSL_2 = "wsl --set-version DISTRO 2"


def glibc(host: Host) -> tuple[int, ...]:
    """Version of the C library where it is glibc, else ()."""
    kind, _, version = host.os.libc.partition(" ")
    return version_tuple(version) if kind == "glibc" else ()


def refusal(host: Host, *, portable: bool = False) -> str:
    """Why this machine is refused and what to do; empty where it is not.

    A portable wheel may be built under an emulator, as CI does: it is not for this machine.
    """
    if _is_big_endian(host):
        return (
            f"This is a big-endian machine ({host.os.machine}): model files are little-endian, ggml reads "
            "them as they are, and nothing that is built here could be proven. Use a little-endian machine "
            "(ppc64le, x86-64, arm64)."
        )
    if host.os.bits == 32:
        return (
            f"This Python is a 32-bit program ({host.os.machine}); the engine needs 64 bits to map large "
            f"models. {_advice_for_32_bits(host)}"
        )
    if host.os.rosetta:
        return (
            "This Python is built for Intel and runs translated on Apple silicon; the engine would run "
            "translated as well, without Metal. Use a Python for arm64 (Homebrew's is in /opt/homebrew/bin) "
            "and install floatllm-build there."
        )
    if host.cpu.emulator and not portable:
        return _emulated(host)
    return ""


def _is_big_endian(host: Host) -> bool:
    machine = host.os.machine.lower()
    if host.os.byte_order:
        return host.os.byte_order == "big"
    return machine.startswith(_BIG_ENDIAN) and not machine.startswith(_LITTLE_ENDIAN)


def _emulated(host: Host) -> str:
    below = host.cpu.emulated_on
    told = (
        f"This Python ({host.python.platform}) runs emulated, by {host.cpu.emulator}, on a processor for "
        f"{below.upper() if host.os.name == 'Windows' else below}; the engine would run emulated as well, "
        "several times slower or not at all. "
    )
    if host.os.name == "Windows":
        command = "winget install Python.Python.3.13 --architecture arm64"
        return f"{told}Use a Python for ARM64 ({command}) and install floatllm-build there."
    option = f"--platform linux/{_PLATFORMS.get(below, below)}"
    if host.os.container:
        return f"{told}Start the container with {option}."
    return f"{told}Use a Python for {below} and install floatllm-build there; a container: with {option}."


def _advice_for_32_bits(host: Host) -> str:
    if host.cpu.bits != 64:
        return "Use a machine with a 64-bit processor and system."
    if host.os.name == "Android":
        return (
            "The kernel is a 64-bit one, Termux is not: if the phone takes 64-bit apps, use Termux's "
            "arm64-v8a build; if Android itself is 32-bit, use another phone."
        )
    if host.os.name == "Windows":
        return "Windows is a 64-bit one: Use a 64-bit Python (winget install Python.Python.3.13)."
    if host.os.machine.lower() in _32_BIT_KERNELS:
        return (
            f"The processor ({host.cpu.name or host.os.machine}) is a 64-bit one, the system is not: install "
            "the 64-bit edition of this system."
        )
    return (
        "The kernel is a 64-bit one, the programs on it are not. Use a 64-bit Python: install the 64-bit "
        "edition of this system (Raspberry Pi OS has one), or run a 64-bit container on it."
    )
