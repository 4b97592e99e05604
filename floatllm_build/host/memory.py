"""Memory that can really be taken: the machine's, and every bound that someone set above us."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from floatllm_build.host.cgroup import hierarchies, read_number, read_stat
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import MemoryBound, MemoryFacts, OsFacts

# Version 1 says "no limit" with a number near 2^63 rounded to pages.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Machine:
    """Bytes of the machine itself, and the bounds that it sets; none where it does not say."""

    total: int = 0
    swap_total: int = 0
    swap_free: int = 0
    bounds: tuple[MemoryBound, ...] = ()


def probe_memory(system: System, os_facts: OsFacts, findings: Findings) -> MemoryFacts:
    machine, groups = Machine(), []
    if os_facts.name in {"Linux", "Android"}:
        machine = _linux(system, findings)
        groups = _control_groups(system, findings)
    elif os_facts.name == "Darwin":
        machine = _darwin(system, findings)
    elif os_facts.name == "Windows":
        machine = _windows(system, findings)
    else:
        machine = _bsd(system, os_facts, findings)
    bounds = [*machine.bounds, *groups]
    address_space = system.native("rlimit_as")
    if isinstance(address_space, int) and 0 <= address_space < _NO_LIMIT:
        bounds.append(MemoryBound(source="RLIMIT_AS", limit=address_space, room=address_space))
    tightest = min(bounds, key=lambda bound: bound.room, default=None)
    if tightest:
        findings.source("memory.room", tightest.source)
        findings.source("memory.capacity", min(bounds, key=lambda bound: bound.limit).source)
    return MemoryFacts(
        bounds=tuple(bounds),
        total=machine.total,
        swap_total=machine.swap_total,
        swap_free=min(machine.swap_free, machine.swap_total),
        capacity=min((bound.limit for bound in bounds), default=0),
        room=tightest.room if tightest else 0,
        binding=tightest.source if tightest else "",
    )


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name of /proc/meminfo's `Name: 123 kB` lines."""
    lines = re.findall(r"^(\w+):\s+([0-9]{1,15}) kB$", text, re.MULTILINE | re.ASCII)
    return {name: int(value) << 10 for name, value in lines}


def group_room(limit: int, usage: int, stat: Mapping[str, int], version: int) -> int:
    """What is left under a group's limit. Its usage counts page cache that the kernel gives back."""
    prefix = "total_" if version == 1 else ""
    cache = stat.get(f"{prefix}active_file", 0) + stat.get(f"{prefix}inactive_file", 0)
    dirty_names = ("dirty", "writeback") if version == 1 else ("file_dirty", "file_writeback")
    dirty = sum(stat.get(f"{prefix}{name}", 0) for name in dirty_names)
    return max(0, min(limit, limit - usage + max(0, cache - dirty)))


def _linux(system: System, findings: Findings) -> Machine:
    path = "/proc/meminfo"
    try:
        info = parse_meminfo(
            system.read(path, only=r"^(MemTotal|MemFree|MemAvailable|Cached|SwapTotal|SwapFree):")
        )
    except OSError as error:
        findings.note(path, error.strerror or str(error))
        return Machine()
    total = info.get("MemTotal", 0)
    if not total:
        findings.note(path, "does not say MemTotal")
        return Machine()
    available = info.get("MemAvailable", info.get("MemFree", 0) + info.get("Cached", 0))
    findings.source("memory", path)
    return Machine(
        total=total,
        swap_total=info.get("SwapTotal", 0),
        swap_free=info.get("SwapFree", 0),
        bounds=(MemoryBound(source=path, limit=total, room=min(available, total)),),
    )


def _control_groups(system: System, findings: Findings) -> list[MemoryBound]:
    bounds = []
    for hierarchy in hierarchies(system, "memory", findings):
        one = hierarchy.version == 1
        # Above memory.high a group is slowed down until it hardly moves: as good as a limit.
        limit_files = ("memory.limit_in_bytes",) if one else ("memory.max", "memory.high")
        usage_file = "memory.usage_in_bytes" if one else "memory.current"
        for folder, limit_file in itertools.product(hierarchy.folders, limit_files):
            limit = read_number(system, f"{folder}/{limit_file}", findings)
            if limit is not None and 0 <= limit < _NO_LIMIT:
                usage = read_number(system, f"{folder}/{usage_file}", findings) or 0
                stat = read_stat(system, f"{folder}/memory.stat", findings)
                room = group_room(limit, usage, stat, hierarchy.version)
                bounds.append(MemoryBound(source=f"{folder}/{limit_file}", limit=limit, room=room))
    return bounds


def parse_vm_stat(text: str) -> int:
    """Bytes that macOS can hand out at once, from vm_stat's page counts."""
    page = re.search(r"page size of ([0-9]{1,9}) bytes", text, re.ASCII)
    names = "free|inactive|speculative|purgeable"
    pages = re.findall(rf"^Pages (?:{names}):\s+([0-9]{{1,15}})\.", text, re.MULTILINE | re.ASCII)
    return int(page[1]) * sum(map(int, pages)) if page else 0


def parse_swapusage(text: str) -> tuple[int, int]:
    """Bytes of swap in all and free, from what `sysctl -n vm.swapusage` says on a Mac."""
    found = dict(re.findall(r"(total|free) = ([0-9]{1,12}(?:\.[0-9]{1,3})?)M", text, re.ASCII))
    total, free = (int(float(found.get(name, "0")) * (1 << 20)) for name in ("total", "free"))
    return total, free


def _darwin(system: System, findings: Findings) -> Machine:
    answer = system.run(("sysctl", "-n", "hw.memsize"))
    if not re.fullmatch(r"[0-9]{1,18}", answer.out.strip(), re.ASCII):
        findings.failed("sysctl hw.memsize", answer)
        return Machine()
    total = int(answer.out)
    findings.source("memory.total", "sysctl hw.memsize")
    swap = system.run(("sysctl", "-n", "vm.swapusage"))
    if swap.rc != 0:
        findings.failed("sysctl vm.swapusage", swap)
    swap_total, swap_free = parse_swapusage(swap.out)
    pages = system.run(("vm_stat",))
    room = parse_vm_stat(pages.out)
    if not room:
        findings.failed("vm_stat", pages)
    bound = MemoryBound(source="vm_stat", limit=total, room=min(room, total))
    return Machine(total=total, swap_total=swap_total, swap_free=swap_free, bounds=(bound,))


def _bsd(system: System, os_facts: OsFacts, findings: Findings) -> Machine:
    """Of FreeBSD and its kin, which tell what is free in ways that differ: all of it is taken for free."""
    # To NetBSD's first programs a size had 32 bits.
    name = "hw.physmem64" if os_facts.name == "NetBSD" else "hw.physmem"
    answer = system.run(("sysctl", "-n", name))
    if not re.fullmatch(r"[0-9]{1,18}", answer.out.strip(), re.ASCII):
        findings.failed(f"sysctl {name}", answer)
        return Machine()
    total = int(answer.out)
    findings.source("memory.total", f"sysctl {name}")
    return Machine(total=total, bounds=(MemoryBound(source=f"sysctl {name}", limit=total, room=total),))


def _windows(system: System, findings: Findings) -> Machine:
    told = system.native("windows_memory")
    names = ("total", "available", "commit_limit", "commit_room")
    status = [told.get(name) if isinstance(told, Mapping) else None for name in names]
    if not all(isinstance(value, int) and 0 <= value < _NO_LIMIT for value in status):
        findings.note("GlobalMemoryStatusEx", "no answer" if told is None else f"makes no sense: {told}")
        return Machine()
    total, available, commit_limit, commit_room = (int(value or 0) for value in status)
    findings.source("memory", "GlobalMemoryStatusEx")
    swap = max(0, commit_limit - total)
    return Machine(
        total=total,
        # The commit limit is memory and page file together.
        swap_total=swap,
        swap_free=min(swap, max(0, commit_room - available)),
        bounds=(
            MemoryBound(source="physical memory", limit=total, room=available),
            MemoryBound(source="commit limit", limit=commit_limit, room=commit_room),
        ),
    )
