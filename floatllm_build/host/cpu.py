"""The processor: what it is, what it can do, and how much of it is ours."""

from __future__ import annotations

import math
import re

from floatllm_build.host.cgroup import hierarchies, read_number
from floatllm_build.system import System
from floatllm_build.values import CpuFacts, Note, OsFacts

_ARCHS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def probe_cpu(system: System, os_facts: OsFacts, notes: list[Note]) -> CpuFacts:
    name = ""
    features: tuple[str, ...] = ()
    if os_facts.name in {"Linux", "Android"}:
        name, features = _linux(system, notes)
    elif os_facts.name == "Darwin":
        name, features = _darwin(system)
    logical = max(1, int(system.native("cpu_count") or 1))
    return CpuFacts(
        arch=_ARCHS.get(os_facts.machine.lower(), os_facts.machine),
        name=name,
        features=features,
        logical=logical,
        usable=_usable(system, logical),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Name, and the features that every core has: on a phone the cores differ."""
    names = re.findall(r"^(?:model name|Hardware|cpu model)\s*:\s*(.+)$", text, re.MULTILINE)
    lists = re.findall(r"^(?:flags|Features|isa)\s*:[ \t]*(.*)$", text, re.MULTILINE)
    common = set.intersection(*(set(line.split()) for line in lists)) if lists else set()
    return (names[0].strip() if names else ""), tuple(sorted(common))


def _linux(system: System, notes: list[Note]) -> tuple[str, tuple[str, ...]]:
    try:
        return parse_cpuinfo(system.read("/proc/cpuinfo"))
    except OSError as error:
        notes.append(Note(source="/proc/cpuinfo", said=str(error.strerror)))
        return "", ()


def _darwin(system: System) -> tuple[str, tuple[str, ...]]:
    name = system.run(("sysctl", "-n", "machdep.cpu.brand_string")).out.strip()
    listing = system.run(("sysctl", "hw.optional")).out
    on = re.findall(r"^hw\.optional\.(?:arm\.)?(\w+): 1$", listing, re.MULTILINE)
    return name, tuple(sorted(on))


def _usable(system: System, logical: int) -> int:
    affinity = system.native("affinity")
    counts = [logical, affinity if isinstance(affinity, int) else logical]
    for hierarchy in hierarchies(system, "cpu"):
        counts += [
            quota for folder in hierarchy.folders if (quota := _quota(system, folder, hierarchy.version))
        ]
    return max(1, min(counts))


def parse_cpu_max(text: str) -> int | None:
    """CPUs that version 2's `cpu.max` (`quota period`) allows, rounded up; None where it says `max`."""
    parts = text.split()
    if len(parts) != 2 or not (parts[0].isdigit() and parts[1].isdigit()) or int(parts[1]) == 0:
        return None
    return max(1, math.ceil(int(parts[0]) / int(parts[1])))


def _quota(system: System, folder: str, version: int) -> int | None:
    if version == 2:
        try:
            return parse_cpu_max(system.read(f"{folder}/cpu.max"))
        except OSError:
            return None  # the root group has no such file
    quota = read_number(system, f"{folder}/cpu.cfs_quota_us")
    period = read_number(system, f"{folder}/cpu.cfs_period_us")
    return max(1, math.ceil(quota / period)) if quota and quota > 0 and period else None
