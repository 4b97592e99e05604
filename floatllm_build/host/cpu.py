"""The processor: what it is, what it can do, and how much of it is ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from floatllm_build.host.arm import arm_core, arm_features, arm_vendor
from floatllm_build.host.cgroup import hierarchies, read_number
from floatllm_build.host.files import read_text
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import CpuBound, CpuFacts, OsFacts

_ARCHS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
_CPUINFO = r"^(vendor_id|model name|cpu model|Hardware|Model|flags|Features|isa|CPU implementer|CPU part)\s*:"
_BOARD = "/sys/firmware/devicetree/base/model"
_CPUS = "/sys/devices/system/cpu"
# Machines with cores of several kinds are phones, boards and laptops.
_MOST_MIXED = 32
_MOST_CPUS = 1 << 20


@dataclass(frozen=True)
class Identity:
    vendor: str = ""
    name: str = ""
    features: tuple[str, ...] = ()


def probe_cpu(system: System, os_facts: OsFacts, findings: Findings) -> CpuFacts:
    arch = _ARCHS.get(os_facts.machine.lower(), os_facts.machine)
    identity = Identity()
    logical = _count(system.native("cpu_count"))
    if not logical:
        findings.note("os.cpu_count", "does not know how many CPUs there are; taken as 1")
    if os_facts.name in {"Linux", "Android"}:
        identity = _linux(system, arch, os_facts.bits, findings)
        big_cores = _linux_big_cores(system, arch, logical, findings)
    elif os_facts.name == "Darwin":
        identity, big_cores = _darwin(system, findings), _darwin_big_cores(system, findings)
    else:
        identity, big_cores = _windows(system, os_facts, findings), 0
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
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < _MOST_CPUS else 0


# ---- who it is --------------------------------------------------------------------------------


def parse_cpuinfo(text: str) -> Identity:
    """Of Linux. The features are those that every core has: on a phone the cores differ."""
    fields: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w[\w ]{0,20}?)[ \t]*:[ \t]*(.*)$", text, re.MULTILINE):
        fields.setdefault(key, []).append(value.strip())
    lists = [set(line.split()) for key in ("flags", "Features", "isa") for line in fields.get(key, ())]
    features = tuple(sorted(set.intersection(*lists))) if lists else ()
    implementers, parts = (
        [int(number, 16) for number in fields.get(key, ()) if re.fullmatch(r"0x[0-9a-fA-F]{1,4}", number)]
        for key in ("CPU implementer", "CPU part")
    )
    # Equal lines come once, so numbers of cores by two makers cannot be paired: every known pair counts.
    cores = [arm_core(maker, part) for part in parts for maker in implementers]
    board = _first(fields, "Model", "Hardware")
    names = " + ".join(dict.fromkeys(filter(None, cores)))
    return Identity(
        vendor=_first(fields, "vendor_id") or arm_vendor(implementers[0] if implementers else 0),
        name=_joined(board, names) if implementers else _first(fields, "model name", "cpu model", "Hardware"),
        features=features,
    )


def _first(fields: Mapping[str, list[str]], *keys: str) -> str:
    return next((value[:100] for key in keys for value in fields.get(key, ()) if value), "")


def _joined(board: str, cores: str) -> str:
    return f"{board} ({cores})" if board and cores else board or cores


def _linux(system: System, arch: str, bits: int, findings: Findings) -> Identity:
    path, identity = "/proc/cpuinfo", Identity()
    try:
        identity = parse_cpuinfo(system.read(path, only=_CPUINFO))
        findings.source("cpu", path)
    except OSError as error:
        findings.note(path, error.strerror or str(error))
    if arch != "arm64":
        return identity
    name, features = identity.name, identity.features
    board = _board(system, findings)
    if board and board not in name:
        name = _joined(board, name)
    # To a 32-bit program the bits mean other features.
    told = system.native("hwcaps") if bits == 64 else None
    caps = [told.get(key) if isinstance(told, Mapping) else None for key in ("hwcap", "hwcap2")]
    first, second = (cap if isinstance(cap, int) and 0 <= cap < 1 << 64 else 0 for cap in caps)
    if first:
        features = arm_features(first, second)
        findings.source("cpu.features", "getauxval(AT_HWCAP, AT_HWCAP2)")
    else:
        findings.note(
            "getauxval", "no hardware capabilities; taken from what all cores in /proc/cpuinfo share"
        )
    return Identity(identity.vendor, name, features)


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
    return Identity(vendor.strip(), name.strip() or told)


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
