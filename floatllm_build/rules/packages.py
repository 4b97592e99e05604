"""The command that brings something, for the package manager that this machine has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Literal, cast

from floatllm_build.values import Host, OsFacts

Need = Literal["c++", "cmake", "ninja", "glslc", "vulkan-headers", "spirv-headers", "vulkan", "cuda", "rocm"]

# Words of OsFacts.version; who comes first wins, so that `Linux Mint (based on Ubuntu)` is one of apt's.
_SYSTEMS: tuple[tuple[str, str], ...] = (
    (r"debian|ubuntu|raspbian|mint|pop!_os|kali|elementary|armbian", "apt"),
    (r"fedora|red hat|rhel|centos|rocky|alma|oracle|amazon|nobara|bazzite", "dnf"),
    (r"arch|manjaro|endeavour|cachyos|steamos|garuda", "pacman"),
    (r"alpine|postmarketos", "apk"),
    (r"suse", "zypper"),
)
_COMMANDS: Mapping[str, str] = {
    "apt": "sudo apt install {}",
    "dnf": "sudo dnf install {}",
    "pacman": "sudo pacman -S {}",
    "apk": "sudo apk add {}",
    "zypper": "sudo zypper install {}",
    "pkg": "pkg install {}",
    "brew": "brew install {}",
    "winget": "winget install {}",
}
_SDK = "KhronosGroup.VulkanSDK"
_FROM_NVIDIA = "(from NVIDIA's repository)"
_NAMES: Mapping[Need, Mapping[str, str]] = {
    need: {own: name for own, name in zip(_COMMANDS, names, strict=True) if name}
    for need, names in cast(
        "dict[Need, tuple[str, ...]]",
        {
            # apt, dnf, pacman, apk, zypper, pkg, brew, winget
            "c++": ("g++", "gcc-c++", "gcc", "build-base", "gcc-c++", "clang", "", ""),
            "cmake": ("", "", "", "", "", "cmake", "", ""),
            "ninja": ("", "", "", "", "", "ninja", "", ""),
            "glslc": ("glslc", "glslc", *("shaderc",) * 5, _SDK),
            "vulkan-headers": (
                "libvulkan-dev",
                "vulkan-headers vulkan-loader-devel",
                "vulkan-headers vulkan-icd-loader",
                "vulkan-headers vulkan-loader-dev",
                "vulkan-devel",
                "vulkan-headers vulkan-loader-generic",
                "vulkan-headers vulkan-loader",
                _SDK,
            ),
            "spirv-headers": ("spirv-headers", "spirv-headers-devel", *("spirv-headers",) * 5, _SDK),
            "vulkan": (
                "mesa-vulkan-drivers vulkan-tools",
                "mesa-vulkan-drivers vulkan-tools",
                "vulkan-radeon vulkan-intel vulkan-tools",
                "mesa-vulkan-ati mesa-vulkan-intel vulkan-tools",
                "libvulkan_radeon libvulkan_intel vulkan-tools",
                *("", "", ""),
            ),
            "cuda": (
                "nvidia-cuda-toolkit",
                f"cuda-toolkit {_FROM_NVIDIA}",
                "cuda",
                "",
                f"cuda-toolkit {_FROM_NVIDIA}",
                "",
                "",
                "Nvidia.CUDA",
            ),
            "rocm": (
                "hipcc libhipblas-dev librocblas-dev",
                "rocm-hip-devel hipblas-devel rocblas-devel",
                "rocm-hip-sdk",
                *("",) * 5,
            ),
        },
    ).items()
}
_OTHERWISE: Mapping[Need, str] = {
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


def as_root(os_facts: OsFacts, command: str) -> str:
    """`command` as it is run here. Root needs no sudo; where nobody says who the user is, that is taken for
    granted in a container without sudo alone.
    """
    known_root = os_facts.root or (os_facts.root is None and os_facts.container and not os_facts.sudo)
    return command.replace("sudo ", "") if known_root else command


def chain(*fixes: str) -> str:
    """Fixes that are done one after the other: one line for a shell where all of them are commands."""
    told = [fix for fix in fixes if fix]
    return (" && " if all(map(_is_command, told)) else "; then ").join(told)


def _is_command(fix: str) -> bool:
    known = fix.partition(" ")[0] in {"sudo", "floatllm-build", *_COMMANDS}
    return (known or " -m pip " in fix) and " (" not in fix


def pip_command(host: Host, requirement: str) -> str:
    """Installs into the environment that the engine goes into, where the toolkits are looked for too."""
    target = host.target
    install = f"-m pip install {quoted(host.os, requirement)}"
    if not target:
        return f"python {install}"
    if target.externally_managed or target.kind in {"pipx", "uv-tool", "uvx"}:
        make, python = new_venv(windows=host.os.name == "Windows")
        return f"{make} && {python} {install}"
    python = quoted(host.os, target.executable)
    bring_pip = "" if target.has_pip else f"{python} -m ensurepip && "
    return f"{bring_pip}{python} {install}"


def new_venv(*, windows: bool) -> tuple[str, str]:
    """The command that makes an environment of one's own in this folder, and the Python in it."""
    if windows:
        return "py -m venv .venv", r".venv\Scripts\python"
    return "python3 -m venv .venv", ".venv/bin/python"


def quoted(os_facts: OsFacts, word: str) -> str:
    """As the system's shell takes it; the symbol of a folder stays as it is."""
    if os_facts.name == "Windows":
        return f'"{word}"' if re.search(r"[\s<>&|^,;=()]", word) else word
    plain = re.sub(r"[{}]", "", word)
    return word if shlex.quote(plain) == plain else shlex.quote(word)


def manager(os_facts: OsFacts) -> str:
    """The package manager: a key of the tables above, or empty."""
    if os_facts.termux or os_facts.name == "Android":
        return "pkg"
    if os_facts.name in {"Darwin", "Windows"}:
        return "brew" if os_facts.name == "Darwin" else "winget"
    found = (
        key for words, key in _SYSTEMS if re.search(rf"\b(?:open)?(?:{words})", os_facts.version.lower())
    )
    return next(found, "")


def install_command(os_facts: OsFacts, *needs: Need) -> str:
    """One command for all of `needs`; where the system is not known, those of the two most common."""
    if not needs:
        return ""
    if needs == ("c++",) and os_facts.name in {"Darwin", "Windows"}:
        return (
            "xcode-select --install"
            if os_facts.name == "Darwin"
            else "winget install Microsoft.VisualStudio.2022.BuildTools --override "
            '"--passive --add Microsoft.VisualStudio.Workload.VCTools --includeRecommended"'
        )
    own = manager(os_facts)
    if not own and os_facts.name == "Linux":
        both = [(_command("apt", needs), "Debian, Ubuntu"), (_command("dnf", needs), "Fedora")]
        told = [f"{command} ({where})" for command, where in both if command]
        return as_root(os_facts, ", ".join(told)) or _OTHERWISE[needs[0]]
    command = as_root(os_facts, _command(own, needs))
    return command or "; ".join(_OTHERWISE[need] for need in needs)


def _command(own: str, needs: tuple[Need, ...]) -> str:
    if not all(own in _NAMES[need] for need in needs):
        return ""
    names = dict.fromkeys(name for need in needs for name in _NAMES[need][own].split())
    return _COMMANDS[own].format(" ".join(names))
