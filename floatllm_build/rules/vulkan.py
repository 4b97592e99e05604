"""Vulkan: device x headers x shader compiler x ggml."""

from __future__ import annotations

from pathlib import PurePosixPath

from floatllm_build.rules.fit import Fit, Obstacle, Terms, join, waive
from floatllm_build.rules.machine import TO_WSL_2, WSL_1
from floatllm_build.rules.packages import Need, as_root, chain, install_command, manager
from floatllm_build.rules.systems import debian_of, ubuntu_of
from floatllm_build.values import Host, Reason
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
    no_device = _device_obstacle(host, terms, reasons)
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
            f"glslc {glslc.version} is old: what it does not know of cooperative matrices, integer dot "
            "products and bfloat16 is left out, so the GPU works and is slower than it could be"
        )
        reasons.append(Reason(rule="old-glslc", text=text))
    return Fit(
        defines=_defines(host),
        reasons=tuple(reasons),
        environment=_environment(host),
        proven=no_device is None,
    )


def _environment(host: Host) -> tuple[str, ...]:
    """Ggml leaves software devices out unless it is told by number which devices to take."""
    devices = host.vulkan.devices
    software = bool(devices) and all(device.type == "cpu" for device in devices)
    return ("GGML_VK_VISIBLE_DEVICES=0",) if software else ()


_ANDROID = Obstacle(
    reason="Vulkan drivers of some phones compute wrong numbers, so it is taken only when named, and the "
    "proof compares the numbers",
    fix="floatllm-build install --backend vulkan",
    near=True,
)


def _device_obstacle(host: Host, terms: Terms, reasons: list[Reason]) -> Obstacle | None:
    """`near` where a device is there that only has to be named."""
    devices = host.vulkan.devices
    real = [device for device in devices if device.type != "cpu"]
    if host.os.name == "Android":
        # Nobody asks the driver there before it is wanted: the proof will.
        return None if terms.named else _ANDROID
    if not devices:
        wsl_1 = f", and {WSL_1}" if host.os.wsl == 1 else ""
        return Obstacle(reason=f"no Vulkan GPU answered{wsl_1}", fix=_device_fix(host))
    if not real and not terms.named:
        reason = f"only a software device answered ({devices[0].name}), slower than the CPU backend"
        if host.os.wsl:
            reason += f"; for the GPU: {f'{TO_WSL_2} ({WSL_1})' if host.os.wsl == 1 else _WSL}"
        return Obstacle(
            reason=f"{reason}; it is taken where it is named",
            fix="floatllm-build install --backend vulkan",
            near=True,
        )
    if not real:
        text = f"{devices[0].name} is a software device: it computes on the CPU, and was asked for. "
        text += "Programs see it where GGML_VK_VISIBLE_DEVICES=0 is set"
        reasons.append(Reason(rule="software-device", text=text))
    return None


# Windows' drivers speak CUDA and Direct3D there. dzn makes Vulkan of the latter, is no conformant
# implementation, and some distributions' Mesa leaves it out (microsoft/wslg#40, microsoft/WSL#7790).
_WSL = (
    "use CUDA where it is NVIDIA's; under WSL Vulkan reaches a GPU only through Mesa's experimental driver "
    "dzn (on Ubuntu that of ppa:kisak/turtle has it, and `vulkaninfo --summary` then lists the GPU)"
)


def _device_fix(host: Host) -> str:
    if host.os.name == "Darwin":
        return "use Metal; on a Mac it is the faster one"
    if host.os.wsl:
        return TO_WSL_2 if host.os.wsl == 1 else _WSL
    fix = install_command(host.os, "vulkan")
    return f"start the container with --device /dev/dri, and there: {fix}" if host.os.container else fix


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
            f"Vulkan's headers are 1.3.{vulkan.headers}, and ggml needs 1.3.{_OLDEST_HEADERS} or newer, "
            "which a newer release of the system has at the latest"
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
            f"add the suite trixie to apt's sources and run: {update}; "
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
