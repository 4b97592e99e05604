"""Machines that cannot run the engine at all."""

from __future__ import annotations

from floatllm_build.values import Host
from floatllm_build.versions import version_tuple

# What a kernel calls a 64-bit processor; armv8l is one that runs a 32-bit userland.
_64_BIT = {"x86_64", "amd64", "aarch64", "arm64", "armv8l", "riscv64", "ppc64le", "s390x", "loongarch64"}

# What no driver and no package mends.
WSL_1 = "WSL 1 reaches no GPU at all; WSL 2 does, and in Windows `wsl --list` shows DISTRO's name"
TO_WSL_2 = "wsl --set-version DISTRO 2"


def glibc(host: Host) -> tuple[int, ...]:
    """Version of the C library where it is glibc, else ()."""
    kind, _, version = host.os.libc.partition(" ")
    return version_tuple(version) if kind == "glibc" else ()


def refusal(host: Host) -> str:
    """Why this machine is refused and what to do; empty where it is not."""
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
    return ""


def _advice_for_32_bits(host: Host) -> str:
    if host.os.machine.lower() not in _64_BIT:
        return "Use a machine with a 64-bit processor and system."
    if host.os.name == "Android":
        return (
            "The kernel is a 64-bit one, Termux is not: on a phone that takes 64-bit apps, use Termux's "
            "arm64-v8a build; where Android itself is 32-bit, use another phone."
        )
    if host.os.name == "Windows":
        return "Windows is a 64-bit one: Use a 64-bit Python (winget install Python.Python.3.13)."
    return (
        "The kernel is a 64-bit one, the programs on it are not. Use a 64-bit Python: install the 64-bit "
        "edition of this system (Raspberry Pi OS has one), or run a 64-bit container on it."
    )
