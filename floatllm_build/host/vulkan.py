"""Vulkan: the devices that the loader lists in a child, and what it takes to build for them."""

from __future__ import annotations

import re
from typing import Literal

from floatllm_build.host.answers import ask, first_line, rows, text, whole
from floatllm_build.host.files import literal, read_if_there
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import OsFacts, Program, VulkanDevice, VulkanFacts

# Several drivers are loaded one after the other, each with a compiler in it.
_CHILD_SECONDS = 8.0
_FOLDERS = ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")

Type = Literal["discrete", "integrated", "virtual", "cpu", "other"]
# The kernel counts them from 128.
_RENDER_NODES = tuple(f"/dev/dri/renderD{number}" for number in range(128, 136))
# VkPhysicalDeviceType.
_TYPES: dict[int, Type] = {1: "integrated", 2: "discrete", 3: "virtual", 4: "cpu"}


def probe_vulkan(system: System, os_facts: OsFacts, findings: Findings) -> VulkanFacts:
    prefixes = _prefixes(system, os_facts)
    headers, include = _headers(system, prefixes, findings)
    glslc = _glslc(system, os_facts, findings)
    spirv_headers = _spirv_headers(system, prefixes, findings)
    library, devices = _ask_loaders(system, os_facts, findings)
    only_software = all(device.type == "cpu" for device in devices)
    closed = _closed(system, findings) if os_facts.name == "Linux" and only_software else ""
    return VulkanFacts(
        library=library,
        devices=devices,
        headers=headers,
        include=include,
        glslc=glslc,
        spirv_headers=spirv_headers,
        closed=closed,
    )


def _closed(system: System, findings: Findings) -> str:
    """The first GPU's file that is there and may not be opened: Mesa then lists no device, without a word."""
    for path in _RENDER_NODES:
        if system.opens(path) in {"EACCES", "EPERM"}:
            findings.note(path, "may not be opened by this user")
            return path
    return ""


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _candidates(system: System, os_facts: OsFacts) -> tuple[str, ...]:
    if os_facts.name == "Windows":
        return ("vulkan-1.dll",)
    sdk = system.getenv("VULKAN_SDK")
    folders = (*((f"{literal(sdk)}/lib",) if sdk else ()), *_FOLDERS)
    found = [path for folder in folders for path in system.glob(f"{folder}/libvulkan.so.1")]
    return tuple(dict.fromkeys(("libvulkan.so.1", *found)))


def _ask_loaders(
    system: System, os_facts: OsFacts, findings: Findings
) -> tuple[str, tuple[VulkanDevice, ...]]:
    if os_facts.name == "Android":
        findings.note(
            "vulkan.devices",
            "not asked: some phones compute wrong numbers through Vulkan; "
            "name the backend yourself to try it, the proof then compares its numbers with the CPU's",
        )
        return "", ()
    if os_facts.name not in {"Linux", "Windows"}:
        return "", ()  # on a Mac there is Metal
    for library in _candidates(system, os_facts):
        found = ask(system, "vulkan", library, findings, timeout=_CHILD_SECONDS)
        # Only a loader that could not be loaded is worth another try: the drivers below it are the same.
        if found is not None and found.get("loaded") is False:
            continue
        devices = tuple(
            VulkanDevice(
                name=text(row.get("name")),
                type=_TYPES.get(whole(row.get("type")), "other"),
                api=show_api(row.get("api")),
                driver=text(row.get("driver")),
                storage_16_bit=_truth(row.get("storage_16_bit")),
                shared_memory=whole(row.get("shared_memory")),
            )
            for row in rows(found, "devices", library, findings)
        )
        if devices:
            findings.source("vulkan.devices", f"{library} (vkEnumeratePhysicalDevices)")
        elif found is not None and "error" not in found:
            findings.note(library, "the loader answers and has no device")
        return (library if found is not None else ""), devices
    return "", ()


def show_api(version: object) -> str:
    """VK_MAKE_API_VERSION's bits: 3 of variant, 7 of major, 10 of minor, 12 of patch."""
    number = whole(version, most=2**32 - 1)
    return f"{number >> 22 & 0x7F}.{number >> 12 & 0x3FF}.{number & 0xFFF}" if number else ""


def _prefixes(system: System, os_facts: OsFacts) -> tuple[str, ...]:
    """Where CMake looks too, in its order: the SDK, the active environment, the system."""
    termux = system.getenv("PREFIX") if os_facts.termux else None
    usual = ("/usr/local", "/usr") if os_facts.name != "Windows" else ()
    candidates = (system.getenv("VULKAN_SDK"), system.getenv("CONDA_PREFIX"), termux, *usual)
    return tuple(dict.fromkeys(prefix for prefix in candidates if prefix))


def _headers(system: System, prefixes: tuple[str, ...], findings: Findings) -> tuple[int, str]:
    """VK_HEADER_VERSION and the folder that holds it, of the first headers there are."""
    for prefix in prefixes:
        # The SDK for Windows has a capital, where that makes no difference.
        include = f"{prefix}/include"
        path = f"{include}/vulkan/vulkan_core.h"
        header = read_if_there(system, path, findings, only=r"^#define VK_HEADER_VERSION \d")
        if header is None:
            continue
        version = parse_header(header)
        if version:
            findings.source("vulkan.headers", path)
            return version, include
        findings.note(path, "has no VK_HEADER_VERSION")
    return 0, ""


def parse_header(header: str) -> int:
    match = re.search(r"^#define VK_HEADER_VERSION (\d{1,5})\b", header, re.MULTILINE | re.ASCII)
    return int(match[1]) if match else 0


def _glslc(system: System, os_facts: OsFacts, findings: Findings) -> Program | None:
    sdk = system.getenv("VULKAN_SDK")
    inside = "Bin/glslc.exe" if os_facts.name == "Windows" else "bin/glslc"
    path = next(iter(system.glob(f"{literal(sdk)}/{inside}")), None) if sdk else None
    path = path or system.which("glslc")
    if not path:
        return None
    done = system.run((path, "--version"))
    version = parse_glslc(done.out) if done.rc == 0 else ""
    if done.rc != 0:
        findings.failed(f"{path} --version", done)
        return None
    if not version:
        findings.note(f"{path} --version", f"no version of shaderc in it: {first_line(done.out)}")
    findings.source("vulkan.glslc", path)
    return Program(path=path, version=version)


def parse_glslc(said: str) -> str:
    """`shaderc v2023.8 v2024.0` from upstream, `shaderc 2023.2-1` from Debian."""
    match = re.search(r"^shaderc v?(\d{1,6}(?:\.\d{1,6})*)", said, re.MULTILINE | re.ASCII)
    return match[1] if match else ""


def _spirv_headers(system: System, prefixes: tuple[str, ...], findings: Findings) -> str:
    for prefix in prefixes:
        for folder in ("share/cmake", "lib/cmake", "lib/*/cmake", "lib64/cmake"):
            pattern = f"{literal(prefix)}/{folder}/SPIRV-Headers/SPIRV-HeadersConfig.cmake"
            for path in system.glob(pattern):
                findings.source("vulkan.spirv_headers", path)
                return path
    return ""
