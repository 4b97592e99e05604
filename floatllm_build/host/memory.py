"""Memory that can really be taken: the machine's, and every bound that someone set above us."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from floatllm_build.host.cgroup import hierarchies, read_number, read_stat
from floatllm_build.system import System
from floatllm_build.values import MemoryBound, MemoryFacts, Note, OsFacts

# Version 1 says "no limit" with a number near 2^63 rounded to pages.
_NO_LIMIT = 1 << 60


def probe_memory(system: System, os_facts: OsFacts, notes: list[Note]) -> MemoryFacts:
    bounds: list[MemoryBound] = []
    if os_facts.name in {"Linux", "Android"}:
        bounds += _linux(system, notes)
        bounds += _control_groups(system)
    elif os_facts.name == "Darwin":
        bounds += _darwin(system, notes)
    elif os_facts.name == "Windows":
        bounds += _windows(system, notes)
    address_space = system.native("rlimit_as")
    if isinstance(address_space, int):
        bounds.append(MemoryBound(source="RLIMIT_AS", limit=address_space, room=address_space))
    if not bounds:
        return MemoryFacts(bounds=(), capacity=0, room=0, binding="unknown")
    tightest = min(bounds, key=lambda bound: bound.room)
    return MemoryFacts(
        bounds=tuple(bounds),
        capacity=min(bound.limit for bound in bounds),
        room=tightest.room,
        binding=tightest.source,
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name of /proc/meminfo's `Name: 123 kB` lines."""
    return {
        name: int(value) << 10 for name, value in re.findall(r"^(\w+):\s+([0-9]+) kB$", text, re.MULTILINE)
    }


def group_room(limit: int, usage: int, stat: Mapping[str, int], version: int) -> int:
    """What is left under a group's limit. Its usage counts page cache that the kernel gives back."""
    prefix = "total_" if version == 1 else ""
    cache = stat.get(f"{prefix}active_file", 0) + stat.get(f"{prefix}inactive_file", 0)
    dirty_names = ("dirty", "writeback") if version == 1 else ("file_dirty", "file_writeback")
    dirty = sum(stat.get(f"{prefix}{name}", 0) for name in dirty_names)
    return max(0, min(limit, limit - usage + max(0, cache - dirty)))


def _linux(system: System, notes: list[Note]) -> list[MemoryBound]:
    try:
        info = parse_meminfo(system.read("/proc/meminfo"))
    except OSError as error:
        notes.append(Note(source="/proc/meminfo", said=str(error.strerror)))
        return []
    total = info.get("MemTotal", 0)
    available = info.get("MemAvailable", info.get("MemFree", 0) + info.get("Cached", 0))
    return [MemoryBound(source="/proc/meminfo", limit=total, room=available)] if total else []


def _control_groups(system: System) -> list[MemoryBound]:
    bounds = []
    for hierarchy in hierarchies(system, "memory"):
        one = hierarchy.version == 1
        # Above memory.high a group is slowed down until it hardly moves: as good as a limit.
        limit_files = ("memory.limit_in_bytes",) if one else ("memory.max", "memory.high")
        usage_file = "memory.usage_in_bytes" if one else "memory.current"
        for folder, limit_file in itertools.product(hierarchy.folders, limit_files):
            limit = read_number(system, f"{folder}/{limit_file}")
            if limit is not None and limit < _NO_LIMIT:
                usage = read_number(system, f"{folder}/{usage_file}") or 0
                stat = read_stat(system, f"{folder}/memory.stat")
                room = group_room(limit, usage, stat, hierarchy.version)
                bounds.append(MemoryBound(source=f"{folder}/{limit_file}", limit=limit, room=room))
    return bounds


def parse_vm_stat(text: str) -> int:
    """Bytes that macOS can hand out at once, from vm_stat's page counts."""
    page = re.search(r"page size of ([0-9]+) bytes", text)
    names = "free|inactive|speculative|purgeable"
    pages = re.findall(rf"^Pages (?:{names}):\s+([0-9]+)\.", text, re.MULTILINE)
    return int(page[1]) * sum(map(int, pages)) if page else 0


def _darwin(system: System, notes: list[Note]) -> list[MemoryBound]:
    total = system.run(("sysctl", "-n", "hw.memsize"))
    if not total.out.strip().isdigit():
        notes.append(Note(source="sysctl hw.memsize", said=total.err.strip() or "no number"))
        return []
    room = parse_vm_stat(system.run(("vm_stat",)).out)
    return [MemoryBound(source="vm_stat", limit=int(total.out), room=room)]


def _windows(system: System, notes: list[Note]) -> list[MemoryBound]:
    status = system.native("windows_memory")
    if not isinstance(status, dict):
        notes.append(Note(source="GlobalMemoryStatusEx", said="no answer"))
        return []
    return [
        MemoryBound(source="physical memory", limit=status["total"], room=status["available"]),
        MemoryBound(source="commit limit", limit=status["commit_limit"], room=status["commit_room"]),
    ]
