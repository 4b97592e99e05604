"""Vulkan devices and what it takes to build for them. Rough: asks vulkaninfo where it is installed."""

from __future__ import annotations

import re

from floatllm_build.system import System
from floatllm_build.values import Note, OsFacts, VulkanFacts


def probe_vulkan(system: System, os_facts: OsFacts, notes: list[Note]) -> VulkanFacts:
    # On a Mac there is Metal; in Termux some phones compute garbage through Vulkan.
    devices: tuple[str, ...] = ()
    info = None if os_facts.name in {"Darwin", "Android"} else system.which("vulkaninfo")
    if info:
        answer = system.run((info, "--summary"), timeout=4.0)
        devices = parse_summary(answer.out)
        if answer.rc != 0:
            notes.append(Note(source="vulkaninfo", said=answer.err.strip()[:200] or f"exit {answer.rc}"))
    return VulkanFacts(
        devices=devices,
        headers=_header_version(system),
        glslc=system.which("glslc") or "",
        spirv_headers=bool(_config_files(system)),
    )


def parse_summary(text: str) -> tuple[str, ...]:
    """Names of the devices in `vulkaninfo --summary` that are real GPUs."""
    pairs = re.findall(r"deviceType\s*=\s*PHYSICAL_DEVICE_TYPE_(\w+)\s*\n\s*deviceName\s*=\s*(.+)", text)
    return tuple(name.strip() for kind, name in pairs if kind.endswith("_GPU") and kind != "VIRTUAL_GPU")


def _prefixes(system: System) -> tuple[str, ...]:
    sdk = system.getenv("VULKAN_SDK")
    return (*((sdk,) if sdk else ()), "/usr/local", "/usr", system.getenv("PREFIX") or "/usr")


def _header_version(system: System) -> int:
    for prefix in _prefixes(system):
        try:
            text = system.read(f"{prefix}/include/vulkan/vulkan_core.h")
        except OSError:
            continue
        if match := re.search(r"^#define VK_HEADER_VERSION (\d+)", text, re.MULTILINE):
            return int(match[1])
    return 0


def _config_files(system: System) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for prefix in _prefixes(system):
        for folder in ("share", "lib", "lib/*"):
            found += system.glob(f"{prefix}/{folder}/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake")
    return found
