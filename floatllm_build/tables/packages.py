"""Package managers: their command, and what they call the things that a build needs.

From the distributions' own package pages, read in November 2026. A name is left out if there is no package,
or if nobody looked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Need = Literal["c++", "cmake", "ninja", "glslc", "vulkan-headers", "spirv-headers", "vulkan", "cuda", "rocm"]

_SDK = "KhronosGroup.VulkanSDK"
_FROM_NVIDIA = "(from NVIDIA's repository)"


@dataclass(frozen=True, kw_only=True)
class Manager:
    install: str
    """The command, with {} for the names."""
    names: Mapping[Need, str]


_OF_FEDORA: Mapping[Need, str] = {
    "c++": "gcc-c++",
    "cmake": "cmake",
    "ninja": "ninja-build",
    "glslc": "glslc",
    "vulkan-headers": "vulkan-headers vulkan-loader-devel",
    "spirv-headers": "spirv-headers-devel",
    "vulkan": "mesa-vulkan-drivers vulkan-tools",
    "cuda": f"cuda-toolkit {_FROM_NVIDIA}",
    "rocm": "rocm-hip-devel hipblas-devel rocblas-devel",
}
MANAGERS: Mapping[str, Manager] = {
    "apt": Manager(
        install="sudo apt install {}",
        names={
            "c++": "g++",
            "cmake": "cmake",
            "ninja": "ninja-build",
            "glslc": "glslc",
            "vulkan-headers": "libvulkan-dev",
            "spirv-headers": "spirv-headers",
            "vulkan": "mesa-vulkan-drivers vulkan-tools",
            "cuda": "nvidia-cuda-toolkit",
            "rocm": "hipcc libhipblas-dev librocblas-dev",
        },
    ),
    "dnf": Manager(install="sudo dnf install {}", names=_OF_FEDORA),
    "yum": Manager(install="sudo yum install {}", names=_OF_FEDORA),
    "microdnf": Manager(install="sudo microdnf install {}", names=_OF_FEDORA),
    "tdnf": Manager(
        install="sudo tdnf install {}",
        names={"c++": "gcc-c++ glibc-devel binutils", "cmake": "cmake", "ninja": "ninja-build"},
    ),
    "pacman": Manager(
        install="sudo pacman -S {}",
        names={
            "c++": "gcc",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-icd-loader",
            "spirv-headers": "spirv-headers",
            "vulkan": "vulkan-radeon vulkan-intel vulkan-tools",
            "cuda": "cuda",
            "rocm": "rocm-hip-sdk",
        },
    ),
    "apk": Manager(
        install="sudo apk add {}",
        names={
            "c++": "build-base",
            "cmake": "cmake",
            # Without the second, `ninja` is samurai.
            "ninja": "ninja-build ninja-is-really-ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-loader-dev",
            "spirv-headers": "spirv-headers",
            "vulkan": "mesa-vulkan-ati mesa-vulkan-intel vulkan-tools",
        },
    ),
    "zypper": Manager(
        install="sudo zypper install {}",
        names={
            "c++": "gcc-c++",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-devel",
            "spirv-headers": "spirv-headers",
            "vulkan": "libvulkan_radeon libvulkan_intel vulkan-tools",
            "cuda": f"cuda-toolkit {_FROM_NVIDIA}",
        },
    ),
    "xbps-install": Manager(
        install="sudo xbps-install -S {}",
        names={
            "c++": "gcc",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "Vulkan-Headers vulkan-loader-devel",
            "spirv-headers": "SPIRV-Headers",
            "vulkan": "mesa-vulkan-radeon mesa-vulkan-intel Vulkan-Tools",
        },
    ),
    "eopkg": Manager(
        install="sudo eopkg install {}", names={"c++": "-c system.devel", "cmake": "cmake", "ninja": "ninja"}
    ),
    "emerge": Manager(
        install="sudo emerge {}",
        names={
            "c++": "sys-devel/gcc",
            "cmake": "dev-build/cmake",
            "ninja": "dev-build/ninja",
            "glslc": "media-libs/shaderc",
            "vulkan-headers": "dev-util/vulkan-headers media-libs/vulkan-loader",
            "spirv-headers": "dev-util/spirv-headers",
            "vulkan": "media-libs/mesa dev-util/vulkan-tools",
            "cuda": "dev-util/nvidia-cuda-toolkit",
        },
    ),
    "urpmi": Manager(
        install="sudo urpmi {}",
        names={"c++": "gcc-c++", "cmake": "cmake", "ninja": "ninja", "glslc": "shaderc"},
    ),
    "nix-shell": Manager(
        install="nix-shell -p {}",
        names={
            "c++": "gcc",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-loader",
            "spirv-headers": "spirv-headers",
            "cuda": "cudaPackages.cudatoolkit",
        },
    ),
    "guix": Manager(
        install="guix shell {}",
        names={
            "c++": "gcc-toolchain",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-loader",
            "spirv-headers": "spirv-headers",
        },
    ),
    "pkg (FreeBSD)": Manager(
        install="sudo pkg install {}",
        names={
            "c++": "llvm",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-loader",
            "spirv-headers": "spirv-headers",
            "vulkan": "mesa-dri vulkan-tools",
        },
    ),
    "pkg_add": Manager(
        install="doas pkg_add {}",
        names={"cmake": "cmake", "ninja": "ninja", "glslc": "shaderc", "spirv-headers": "spirv-headers"},
    ),
    "pkgin": Manager(install="sudo pkgin install {}", names={"cmake": "cmake", "ninja": "ninja-build"}),
    "pkg": Manager(
        install="pkg install {}",
        names={
            "c++": "clang",
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-loader-generic",
            "spirv-headers": "spirv-headers",
        },
    ),
    "brew": Manager(
        install="brew install {}",
        names={
            "cmake": "cmake",
            "ninja": "ninja",
            "glslc": "shaderc",
            "vulkan-headers": "vulkan-headers vulkan-loader",
            "spirv-headers": "spirv-headers",
        },
    ),
    "winget": Manager(
        install="winget install {}",
        names={
            "cmake": "Kitware.CMake",
            "ninja": "Ninja-build.Ninja",
            "glslc": _SDK,
            "vulkan-headers": _SDK,
            "spirv-headers": _SDK,
            "cuda": "Nvidia.CUDA",
        },
    ),
}
OTHERWISE: Mapping[Need, str] = {
    "c++": "install a C and C++ compiler, or set CC and CXX",
    "cmake": "install cmake",
    "ninja": "install ninja",
    "glslc": "install glslc (it is part of shaderc and of the Vulkan SDK)",
    "vulkan-headers": "install the Vulkan SDK and set VULKAN_SDK",
    "spirv-headers": "install SPIRV-Headers with its CMake files (it is part of the Vulkan SDK)",
    "vulkan": "install the Vulkan driver of the GPU's maker, then see `vulkaninfo --summary`",
    "cuda": "install NVIDIA's CUDA toolkit, or set CUDACXX to its nvcc",
    "rocm": "install ROCm with hipBLAS and rocBLAS",
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """How packages come to a system whose own files are an image that the next update replaces."""

    manager: str
    """Of its container, and whose names the image's own command takes."""
    container: str
    """Commands that make and enter a container in which packages are installed as usual."""
    layer: str
    """The command that puts packages, {}, into the system itself; empty if there is none to advise."""
    driver: str = "use the edition of this system that has NVIDIA's driver, if there is one"
    """What puts NVIDIA's driver into the system itself: it cannot come from a container."""
    update: str = ""
    """What brings a newer driver where there is one; empty if nothing is known."""


# docs.fedoraproject.org (Silverblue, CoreOS), docs.bazzite.gg, SteamOS' own documentation of developers,
# en.opensuse.org/Portal:MicroOS, docs.vanillaos.org; November 2026. Drivers: rpmfusion.org/Howto/NVIDIA
# (OSTree), the README of ublue-os/bazzite (images with -nvidia in their names),
# en.opensuse.org/SDB:NVIDIA_drivers; December 2026.
IMAGES: Mapping[str, Image] = {
    "rpm-ostree": Image(
        manager="dnf",
        container="`toolbox create && toolbox enter` (or with distrobox)",
        layer="sudo rpm-ostree install {} && systemctl reboot",
        driver="sudo rpm-ostree install akmod-nvidia xorg-x11-drv-nvidia-cuda (from RPM Fusion), then reboot",
        update="sudo rpm-ostree upgrade (then reboot)",
    ),
    "universal-blue": Image(
        manager="dnf",
        container="`distrobox create --image fedora -n build && distrobox enter build` (or with toolbox)",
        layer="sudo rpm-ostree install {} && systemctl reboot",
        driver="rebase to its -nvidia image: sudo rpm-ostree rebase IMAGE (that of `rpm-ostree status`, with "
        "-nvidia or -nvidia-open after its name), then reboot",
        update="sudo rpm-ostree upgrade (then reboot)",
    ),
    "steamos": Image(
        manager="pacman",
        container="`distrobox create --image archlinux -n build && distrobox enter build` (or with toolbox)",
        layer="",
        driver="use another system: SteamOS has no NVIDIA driver",
    ),
    "transactional-update": Image(
        manager="zypper",
        container="`distrobox create --image opensuse/tumbleweed -n build && distrobox enter build` "
        "(or with toolbox)",
        layer="sudo transactional-update pkg install {} && sudo reboot",
        driver="sudo transactional-update pkg install nvidia-open-driver-G06-signed-kmp-default "
        "nvidia-compute-utils-G06 (from NVIDIA's repository for openSUSE), then reboot",
        update="sudo transactional-update dup (then reboot)",
    ),
    "abroot": Image(
        manager="apt",
        container="`apx subsystems new` and its `enter` (or with distrobox or toolbox)",
        layer="sudo abroot pkg add {} && sudo abroot pkg apply && sudo reboot",
        driver="sudo abroot pkg add nvidia-driver && sudo abroot pkg apply (then reboot)",
        update="sudo abroot upgrade (then reboot)",
    ),
    "other": Image(manager="", container="`toolbox create && toolbox enter` (or with distrobox)", layer=""),
}
