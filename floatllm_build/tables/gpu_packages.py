"""What distributions have packages of for NVIDIA's driver, CUDA and ROCm; derivatives have the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from floatllm_build.tables.systems import ROLLING


@dataclass(frozen=True, kw_only=True)
class Packages:
    gcc: int
    """Major version of the default compiler."""
    cuda: tuple[int, int]
    """Of the package nvidia-cuda-toolkit."""
    rocm: tuple[int, int]
    """Of the package hipcc; (0, 0) if there is none."""


# As the distributions' package pages have them, November 2026; `apt policy` says it exactly.
UBUNTU: Mapping[tuple[int, int], Packages] = {
    (20, 4): Packages(gcc=9, cuda=(10, 1), rocm=(0, 0)),
    (22, 4): Packages(gcc=11, cuda=(11, 5), rocm=(5, 0)),
    (23, 4): Packages(gcc=12, cuda=(11, 8), rocm=(5, 2)),
    (23, 10): Packages(gcc=13, cuda=(12, 0), rocm=(5, 2)),
    (24, 4): Packages(gcc=13, cuda=(12, 0), rocm=(5, 7)),
    (25, 4): Packages(gcc=14, cuda=(12, 2), rocm=(6, 1)),
    (25, 10): Packages(gcc=15, cuda=(12, 4), rocm=(6, 4)),
}
DEBIAN: Mapping[int, Packages] = {
    10: Packages(gcc=8, cuda=(9, 2), rocm=(0, 0)),
    11: Packages(gcc=10, cuda=(11, 2), rocm=(0, 0)),
    12: Packages(gcc=12, cuda=(11, 8), rocm=(5, 2)),
    13: Packages(gcc=14, cuda=(12, 4), rocm=(6, 1)),
}

# ---- NVIDIA's driver ------------------------------------------------------------------------------

# Major version of a release's newest driver. Debian's: the package nvidia-driver with its security updates
# (packages.debian.org, sources.debian.org; testing and sid have trixie's). Ubuntu's: the newest
# nvidia-driver-NNN with updates (packages.ubuntu.com); what is not here has 580 or newer. December 2026.
DEBIAN_DRIVERS: Mapping[int, int] = {10: 418, 11: 470, 12: 535, 13: 550, 14: 550, ROLLING: 550}
UBUNTU_DRIVERS: Mapping[tuple[int, int], int] = {
    (16, 4): 470,
    (18, 4): 530,
    (20, 4): 570,
    (23, 4): 535,
    (23, 10): 550,
}
# Debian's releases for which NVIDIA's own repository has driver 580 and newer (NVIDIA's driver installation
# guide, supported distributions; December 2026).
DEBIAN_OF_NVIDIA = (12, 13)
# What brings the driver on systems whose packages are installed as usual, by package manager; Ubuntu's own
# program picks the package (wiki.debian.org/NvidiaGraphicsDrivers, rpmfusion.org/Howto/NVIDIA, Ubuntu's
# documentation of servers; November 2026).
DRIVER_OF_UBUNTU = "sudo ubuntu-drivers install"
DRIVERS: Mapping[str, str] = {
    "apt": "sudo apt install nvidia-driver",
    "dnf": "sudo dnf install akmod-nvidia (from RPM Fusion)",
    "pacman": "sudo pacman -S nvidia",
}

# ---- CUDA 12 ----------------------------------------------------------------------------------------

# The last toolkit for GPUs older than 75, and for drivers older than 580, by package manager. Without a
# version these commands bring CUDA 13 (NVIDIA's installation guide, its repositories and winget's manifests;
# November 2026).
CUDA_12: Mapping[str, str] = {
    "dnf": "sudo dnf install cuda-toolkit-12-9 (from NVIDIA's repository)",
    "zypper": "sudo zypper install cuda-toolkit-12-9 (from NVIDIA's repository)",
    "winget": "winget install Nvidia.CUDA --version 12.9",
}
