"""The processor: what it is, what it can do, and how much of it is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from floatllm_build.host.arm import arm_features
from floatllm_build.host.cgroup import hierarchies, read_number
from floatllm_build.host.cpuinfo import CPUINFO, Identity, joined, parse_cpuinfo
from floatllm_build.host.files import read_text
from floatllm_build.host.findings import Findings
from floatllm_build.host.os_facts import identity_of
from floatllm_build.host.power import power_features
from floatllm_build.system import System
from floatllm_build.values import CpuBound, CpuFacts, OsFacts

_ARCHS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
# What a kernel calls a 64-bit processor; armv8l is one that runs a 32-bit userland.
_64_BIT = {
    *("x86_64", "amd64", "aarch64", "arm64", "armv8l", "aarch64_be", "riscv64", "ppc64le", "ppc64", "s390x"),
    *("loongarch64", "mips64", "sparc64"),
}
_BOARD = "/sys/firmware/devicetree/base/model"
_CPUS = "/sys/devices/system/cpu"
# Machines with cores of several kinds are phones, boards and laptops.
_MOST_MIXED = 32
_MOST_CPUS = 1 << 20


def probe_cpu(system: System, os_facts: OsFacts, findings: Findings) -> CpuFacts:
    arch = _ARCHS.get(os_facts.machine.lower(), os_facts.machine)
    identity = Identity()
    logical = _count(system.native("cpu_count"))
    if not logical:
        findings.note("os.cpu_count", "does not know how many CPUs there are; taken as 1")
    if os_facts.name in {"Linux", "Android"}:
        identity = _linux(system, arch, os_facts, findings)
        big_cores = _linux_big_cores(system, arch, logical, findings)
    elif os_facts.name == "Darwin":
        identity, big_cores = _darwin(system, findings), _darwin_big_cores(system, findings)
    elif os_facts.name == "Windows":
        identity, big_cores = _windows(system, os_facts, findings), 0
    else:
        identity, big_cores = _bsd(system, findings), 0
    bounds = _bounds(system, findings)
    return CpuFacts(
        arch=arch,
        vendor=identity.vendor,
        name=identity.name,
        features=identity.features,
        logical=max(1, logical),
        usable=max(1, min([max(1, logical), *(bound.cpus for bound in bounds)])),
        bounds=bounds,
        big_cores=big_cores,
        bits=64 if os_facts.machine.lower() in _64_BIT else identity.bits,
        emulator=identity.emulator,
        emulated_on=identity.emulated_on,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < _MOST_CPUS else 0


# ---- who it is --------------------------------------------------------------------------------


def _linux(system: System, arch: str, os_facts: OsFacts, findings: Findings) -> Identity:
    path, identity = "/proc/cpuinfo", Identity()
    try:
        identity = parse_cpuinfo(system.read(path, only=CPUINFO), os_facts.machine)
        findings.source("cpu", path)
    except OSError as error:
        findings.note(path, error.strerror or str(error))
    if arch in {"ppc64le", "ppc64"}:
        return replace(identity, features=power_features(*_hwcaps(system)))
    if arch == "riscv64":
        return _named_after_board(system, identity, findings)
    if arch != "arm64":
        return identity
    identity = _named_after_board(system, identity, findings)
    # To a 32-bit program the bits mean other features; an emulator says its own.
    first, second = _hwcaps(system) if os_facts.bits == 64 else (0, 0)
    if first:
        findings.source("cpu.features", "getauxval(AT_HWCAP, AT_HWCAP2)")
        return replace(identity, features=arm_features(first, second))
    findings.note("getauxval", "no hardware capabilities; taken from what all cores in /proc/cpuinfo share")
    return identity


def _hwcaps(system: System) -> tuple[int, int]:
    told = system.native("hwcaps")
    caps = [told.get(key) if isinstance(told, Mapping) else None for key in ("hwcap", "hwcap2")]
    first, second = (cap if isinstance(cap, int) and 0 <= cap < 1 << 64 else 0 for cap in caps)
    return first, second


def _named_after_board(system: System, identity: Identity, findings: Findings) -> Identity:
    board = _board(system, findings)
    return (
        replace(identity, name=joined(board, identity.name))
        if board and board not in identity.name
        else identity
    )


def _board(system: System, findings: Findings) -> str:
    board = read_text(system, _BOARD, findings).strip("\0\n ")[:100]
    if not board or not board.isprintable():
        return ""
    findings.source("cpu.name", _BOARD)
    return board


def _darwin(system: System, findings: Findings) -> Identity:
    brand = system.run(("sysctl", "-n", "machdep.cpu.brand_string"))
    name = brand.out.strip()[:100]
    if not name:
        findings.failed("sysctl machdep.cpu.brand_string", brand)
    findings.source("cpu.name", "sysctl machdep.cpu.brand_string")
    listing = system.run(("sysctl", "hw.optional"))
    if listing.rc != 0:
        findings.failed("sysctl hw.optional", listing)
    on = re.findall(r"^hw\.optional\.(?:arm\.)?(\w+): 1$", listing.out, re.MULTILINE)
    findings.source("cpu.features", "sysctl hw.optional")
    vendors = {"Apple": "Apple", "Intel": "GenuineIntel"}
    vendor = next((vendors[word] for word in vendors if word in name), "")
    return Identity(vendor, name, tuple(sorted(set(on))))


def _windows(system: System, os_facts: OsFacts, findings: Findings) -> Identity:
    told = (system.getenv("PROCESSOR_IDENTIFIER") or "")[:100]
    if not told:
        findings.note("PROCESSOR_IDENTIFIER", f"is not set; no name of the processor on {os_facts.name}")
        return Identity()
    findings.source("cpu", "PROCESSOR_IDENTIFIER")
    name, _, vendor = told.rpartition(",")
    arm = re.match(r"ARMv[89]", told) is not None
    # Newer Pythons name the processor's own architecture for the machine, whatever they are compiled for.
    emulated = arm and _is_x86(system, os_facts)
    return Identity(
        vendor=vendor.strip(),
        name=name.strip() or told,
        bits=64 if arm or re.match("Intel64|AMD64|EM64T", told) else 0,
        emulator="Windows" if emulated else "",
        emulated_on="arm64" if emulated else "",
    )


def _is_x86(system: System, os_facts: OsFacts) -> bool:
    """What this Python is compiled for; its platform says so, and older ones name it as the machine too."""
    platform = identity_of(system).get("platform", "")
    return platform in {"win-amd64", "win32"} or os_facts.machine.upper() in {"AMD64", "X86"}


def _bsd(system: System, findings: Findings) -> Identity:
    answer = system.run(("sysctl", "-n", "hw.model"))
    if answer.rc != 0 or not answer.out.strip():
        findings.failed("sysctl hw.model", answer)
        return Identity()
    findings.source("cpu.name", "sysctl hw.model")
    return Identity(name=answer.out.strip()[:100])


# ---- how much of it ---------------------------------------------------------------------------


def _bounds(system: System, findings: Findings) -> tuple[CpuBound, ...]:
    affinity = _count(system.native("affinity"))
    bounds = [CpuBound(source="affinity", cpus=affinity)] if affinity else []
    for hierarchy in hierarchies(system, "cpu", findings):
        file = "cpu.max" if hierarchy.version == 2 else "cpu.cfs_quota_us"
        for folder in hierarchy.folders:
            quota = _quota(system, folder, hierarchy.version, findings)
            if quota:
                bounds.append(CpuBound(source=f"{folder}/{file}", cpus=quota))
    tightest = min(bounds, key=lambda bound: bound.cpus, default=None)
    findings.source("cpu.usable", tightest.source if tightest else "os.cpu_count")
    return tuple(bounds)


def parse_cpu_max(text: str) -> int | None:
    """CPUs that version 2's `cpu.max` (`quota period`) allows, rounded up; None where it says `max`."""
    match = re.fullmatch(r"([0-9]{1,18}) ([0-9]{1,18})", text.strip(), re.ASCII)
    return _cpus(int(match[1]), int(match[2])) if match else None


def _cpus(quota: int, period: int) -> int | None:
    """Whole CPUs, rounded up; None where that is no bound."""
    cpus = -(-quota // period) if period > 0 and quota >= 0 else _MOST_CPUS
    return max(1, cpus) if cpus < _MOST_CPUS else None


def _quota(system: System, folder: str, version: int, findings: Findings) -> int | None:
    if version == 2:
        return parse_cpu_max(read_text(system, f"{folder}/cpu.max", findings))
    quota = read_number(system, f"{folder}/cpu.cfs_quota_us", findings)
    if quota is None or quota <= 0:
        return None  # -1 is version 1's word for no limit
    period = read_number(system, f"{folder}/cpu.cfs_period_us", findings)
    return _cpus(quota, period or 0)


def _linux_big_cores(system: System, arch: str, logical: int, findings: Findings) -> int:
    if arch == "x86_64":
        return _hybrid_x86(system, findings)
    # The kernel's own measure first: a small core can have nearly the clock of a large one.
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        if found := _of_each_cpu(system, file, min(logical, _MOST_MIXED), findings):
            findings.source("cpu.big_cores", f"{_CPUS}/cpu*/{file}")
            slowest = min(found)
            return sum(value > slowest for value in found)
    return 0


def _of_each_cpu(system: System, file: str, cpus: int, findings: Findings) -> list[int]:
    """One number for each CPU that is there; none at all where they are denied, as on many phones."""
    found = []
    for cpu in range(cpus):
        path = f"{_CPUS}/cpu{cpu}/{file}"
        try:
            text = system.read(path).strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            findings.note(path, error.strerror or str(error))
            return []
        if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
            found.append(int(text))
    return found


def _hybrid_x86(system: System, findings: Findings) -> int:
    """Fast cores of a processor by Intel with two kinds: each counts once, however many threads it runs.

    Clocks tell nothing here: favoured cores of one kind differ in them.
    """
    fast = parse_cpu_list(read_text(system, "/sys/devices/cpu_core/cpus", findings))
    if not fast or not parse_cpu_list(read_text(system, "/sys/devices/cpu_atom/cpus", findings)):
        return 0
    findings.source("cpu.big_cores", "/sys/devices/cpu_core/cpus")
    cores = set()
    for cpu in fast:
        siblings = read_text(system, f"{_CPUS}/cpu{cpu}/topology/thread_siblings_list", findings)
        cores.add(siblings.strip() or str(cpu))
    return len(cores)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The CPUs of the kernel's `0-3,8` lists, below 1024."""
    cpus: list[int] = []
    for first, last in re.findall(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text.strip()[:4096], re.ASCII):
        cpus += range(int(first), min(int(last or first), 1023) + 1)
    return tuple(sorted(set(cpus)))


def _darwin_big_cores(system: System, findings: Findings) -> int:
    """Level 0 is the fastest. A Mac with one kind of core has no level 1."""
    counts = []
    for level in range(2):
        name = f"hw.perflevel{level}.physicalcpu"
        answer = system.run(("sysctl", "-n", name))
        text = answer.out.strip()
        counts.append(int(text) if re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) else 0)
        if answer.rc in {124, 127}:
            findings.failed(f"sysctl {name}", answer)
    if not all(counts):
        return 0
    findings.source("cpu.big_cores", "sysctl hw.perflevel0.physicalcpu")
    return counts[0]
