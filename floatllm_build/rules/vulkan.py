"""Vulkan: device x headers x shader compiler x ggml."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from floatllm_build.rules.containers import hand_through, reaches_none
from floatllm_build.rules.fit import Fit, Obstacle, Terms, join, waive
from floatllm_build.rules.machine import TO_WSL_2, WSL_1
from floatllm_build.rules.metal import is_virtual
from floatllm_build.rules.packages import Need, as_root, chain, install_command, manager
from floatllm_build.rules.systems import debian_of, ubuntu_of
from floatllm_build.rules.vulkan_devices import is_software, place, refusal
from floatllm_build.values import Host, Reason, VulkanDevice
from floatllm_build.versions import version_tuple

# ggml-vulkan.cpp names vk::LayerSettingEXT, whose extension came with the headers 1.3.272; whatever it names
# that is newer stands behind an #if (read). 239 fails and 309 compiles (measured).
_OLDEST_HEADERS = 272
# The first releases whose own packages are newer; Debian 12 has 1.3.239, Ubuntu 22.04 has 1.3.204.
_UBUNTU_WITH_HEADERS = (24, 4)
_DEBIAN_WITH_HEADERS = 13
# The first Ubuntu with a package of glslc (ros/rosdistro#43891).
_UBUNTU_WITH_GLSLC = (23, 4)
# The first whose shaders lack nothing of what ggml tests for (read); 2023.2 lacks all three (measured).
_FULL_GLSLC = (2025, 2)
# What find_package() searches by itself.
_USUAL_PREFIXES = ("/usr/include", "/usr/share", "/usr/lib", "/usr/lib64", "/usr/bin", "/usr/local")


def fit_vulkan(host: Host, terms: Terms) -> Fit | Obstacle:
    reasons: list[Reason] = []
    device = _device(host, terms, reasons)
    no_device = device if isinstance(device, Obstacle) else None
    no_tools = _tools_obstacle(host)
    if no_device and not terms.without_device:
        if no_device.near and no_tools:
            reason = f"{no_device.reason}; and {no_tools.reason}"
            return Obstacle(reason=reason, fix=chain(no_tools.fix, no_device.fix))
        return no_device
    if no_tools:
        return no_tools
    if no_device:
        reasons.append(waive(no_device))
    glslc = host.vulkan.glslc
    if glslc and version_tuple(glslc.version) < _FULL_GLSLC:
        text = (
            f"glslc {glslc.version} is old: shaders for cooperative matrices, integer dot products and "
            "bfloat16 may be left out. The GPU works, but slower than it could"
        )
        reasons.append(Reason(rule="old-glslc", text=text))
    chosen = device if isinstance(device, VulkanDevice) else None
    number, environment = place(host.vulkan.devices, chosen) if chosen else (0, ())
    return Fit(
        defines=_defines(host),
        reasons=tuple(reasons),
        environment=environment,
        device=number,
        proven=no_device is None,
    )


def runs_unnamed(host: Host) -> bool:
    """Whether there is a device that is used though nobody names it, and that ggml lists by itself.

    Whatever it takes to compile for it.
    """
    device = _device(host, Terms(), [])
    return isinstance(device, VulkanDevice) and not place(host.vulkan.devices, device)[1]


_PHONE = Obstacle(
    reason="Vulkan drivers of some phones compute wrong numbers, so Vulkan is only used if you name it, and "
    "the proof compares the numbers",
    fix="floatllm-build install --backend vulkan",
    near=True,
)
# Kernels of Android, and what proot says instead of them.
_OF_A_PHONE = re.compile(r"(?i)proot|-android\d")


def _device(host: Host, terms: Terms, reasons: list[Reason]) -> VulkanDevice | Obstacle | None:
    """The device to compute on; None if nobody asks the driver before the proof does. An obstacle is `near`
    if there is a device that only has to be named.
    """
    if host.os.name == "Android":
        return None if terms.named else _PHONE
    real = [device for device in host.vulkan.devices if not is_software(device)]
    refused = [(device, why) for device in real if (why := refusal(device))]
    usable = [device for device in real if not refusal(device)]
    for device, why in refused:
        reasons.append(Reason(rule="vulkan-device", text=f"{device.name} is left out: {why}"))
    if usable:
        phone = host.os.container == "proot" or _OF_A_PHONE.search(host.os.release)
        return _PHONE if phone and not terms.named else usable[0]
    software = next((device for device in host.vulkan.devices if is_software(device)), None)
    if software and terms.named:
        text = f"{software.name} is a software device: it computes on the CPU, and was asked for"
        if told := place(host.vulkan.devices, software)[1]:
            text += f". Programs see it if {told[0]} is set"
        reasons.append(Reason(rule="software-device", text=text))
        return software
    if refused:
        said = "; ".join(f"{device.name} cannot be used: {why}" for device, why in refused)
        old = all(version_tuple(device.api) < (1, 2) for device, _ in refused)
        newer = f"install a newer driver, if there is one for this GPU: {install_command(host.os, 'vulkan')}"
        return Obstacle(
            reason=said, fix=newer if old else "use the CPU backend: no driver changes that about this GPU"
        )
    if software:
        return _only_software(host, software)
    wsl_1 = f", and {WSL_1}" if host.os.wsl == 1 else ""
    closed = f": {host.vulkan.closed} may not be opened by this user" if host.vulkan.closed else ""
    return Obstacle(reason=f"no Vulkan GPU answered{closed}{wsl_1}", fix=_device_fix(host))


def _only_software(host: Host, software: VulkanDevice) -> Obstacle:
    reason = f"only a software device answered ({software.name}), slower than the CPU backend"
    if host.vulkan.closed:
        reason += f": {host.vulkan.closed}, a GPU's file, may not be opened by this user"
        return Obstacle(reason=reason, fix=_device_fix(host))
    if host.os.wsl:
        reason += f"; for the GPU: {_device_fix(host)}"
    return Obstacle(
        reason=f"{reason}; it is only used if you name it",
        fix="floatllm-build install --backend vulkan",
        near=True,
    )


# Windows' drivers speak CUDA and Direct3D there. dzn makes Vulkan of the latter, is no conformant
# implementation, and some distributions' Mesa leaves it out (microsoft/wslg#40, microsoft/WSL#7790).
_WSL = (
    "use CUDA if the GPU is NVIDIA's; under WSL Vulkan reaches a GPU only through Mesa's experimental driver "
    "dzn (on Ubuntu, install Mesa from ppa:kisak/turtle; `vulkaninfo --summary` then lists the GPU)"
)


def _device_fix(host: Host) -> str:
    if host.os.name == "Darwin":
        metal = host.cpu.arch == "arm64" and not is_virtual(host)
        return (
            "use Metal, which is faster on a Mac"
            if metal
            else "use the CPU backend: no GPU backend of ggml works on this Mac"
        )
    if host.os.wsl == 1:
        return f"{TO_WSL_2} ({WSL_1})" if any(map(is_software, host.vulkan.devices)) else TO_WSL_2
    if host.os.wsl and host.os.container:
        return (
            f"use CUDA if the GPU is NVIDIA's: {hand_through(host, 'nvidia')}; Vulkan reaches none from here"
        )
    if host.os.wsl:
        return _WSL
    if host.vulkan.closed:
        return _may_not_open(host)
    if host.os.container and reaches_none(host):
        return hand_through(host, "other")
    if host.os.container:
        return f"{hand_through(host, 'other')}, and there: {install_command(host.os, 'vulkan')}"
    return install_command(host.os, "vulkan")


def _may_not_open(host: Host) -> str:
    if host.os.container:
        return (
            f"start the container with the group of {host.vulkan.closed} (docker: --group-add, podman: "
            "--group-add keep-groups)"
        )
    return "sudo usermod -aG render,video $USER, then log in again"


def _tools_obstacle(host: Host) -> Obstacle | None:
    vulkan = host.vulkan
    missing: list[tuple[str, Need]] = []
    if not vulkan.glslc:
        missing.append(("glslc (the shader compiler)", "glslc"))
    if vulkan.headers <= 0:
        missing.append(("Vulkan's headers", "vulkan-headers"))
    if not vulkan.spirv_headers:
        missing.append(("SPIRV-Headers", "spirv-headers"))
    said = []
    if 0 < vulkan.headers < _OLDEST_HEADERS:
        said.append(
            f"Vulkan's headers are 1.3.{vulkan.headers}, and ggml needs 1.3.{_OLDEST_HEADERS} or newer; "
            "the simplest way is to upgrade to a newer release of the system"
        )
    if missing:
        said.append(f"{join([name for name, _ in missing])} could not be found")
    if not said:
        return None
    return Obstacle(reason="; ".join(said), fix=_tools_fix(host, tuple(need for _, need in missing)))


def _tools_fix(host: Host, missing: tuple[Need, ...]) -> str:
    if "glslc" in missing and (0, 0) < ubuntu_of(host.os) < _UBUNTU_WITH_GLSLC:
        return _sdk(host, "this system's packages hold no glslc")  # and the SDK brings the rest as well
    install = install_command(host.os, *missing)
    headers = host.vulkan.headers
    newer = ""
    if headers < _OLDEST_HEADERS and (headers > 0 or _has_old_headers(host)):
        newer = _newer_headers(host)
    return chain(install, newer)


def _has_old_headers(host: Host) -> bool:
    ubuntu, debian = ubuntu_of(host.os), debian_of(host.os)
    return (0, 0) < ubuntu < _UBUNTU_WITH_HEADERS or 0 < debian < _DEBIAN_WITH_HEADERS


def _newer_headers(host: Host) -> str:
    if debian_of(host.os):
        update = as_root(host.os, "sudo apt update")
        return (
            "add the suite trixie to apt's sources, and give it priority 100 in /etc/apt/preferences.d so "
            f"that nothing else is upgraded to it; then run: {update}; "
            "apt-get download -t trixie libvulkan-dev spirv-headers; "
            "for f in *.deb; do dpkg -x $f vulkan; done; export VULKAN_SDK=$PWD/vulkan/usr"
        )
    if manager(host.os) in {"", "apt", "zypper"}:
        return _sdk(host, "this system's packages hold older headers")
    return install_command(host.os, "vulkan-headers")


def _sdk(host: Host, why: str) -> str:
    if host.os.name == "Linux" and host.cpu.arch != "x86_64":
        cuda = "use CUDA, which a Jetson is made for; for Vulkan: " if host.cuda.jetson else ""
        return (
            f"{cuda}{why}, and LunarG makes its Vulkan SDK for x86-64 alone: use a newer release of the "
            "system (Ubuntu 24.04 has what is needed), or build shaderc, Vulkan-Headers and SPIRV-Headers "
            "from source into one folder and set VULKAN_SDK to it"
        )
    return "install LunarG's Vulkan SDK 1.3.275 or newer and set VULKAN_SDK to its folder"


def _defines(host: Host) -> tuple[str, ...]:
    """Where things lie outside the usual folders; with slashes, since to CMake a backslash is an escape."""
    vulkan = host.vulkan
    spirv = vulkan.spirv_headers.replace("\\", "/")
    glslc = vulkan.glslc.path if vulkan.glslc else ""
    places = (
        ("Vulkan_INCLUDE_DIR", vulkan.include),
        ("SPIRV-Headers_DIR", str(PurePosixPath(spirv).parent) if "/" in spirv else ""),
        ("Vulkan_GLSLC_EXECUTABLE", glslc),
    )
    told = ((name, place.replace("\\", "/")) for name, place in places)
    return tuple(f"{name}={place}" for name, place in told if place and not _usual(host, place))


def _usual(host: Host, place: str) -> bool:
    return "/" not in place or host.os.termux or place.startswith(_USUAL_PREFIXES)
