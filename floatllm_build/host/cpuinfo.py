"""Linux' /proc/cpuinfo, which every architecture writes in its own way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from floatllm_build.host.arm import arm_core, arm_is_64_bit, arm_vendor

CPUINFO = (
    r"^(vendor_id|model name|Model Name|cpu model|cpu|machine|Hardware|Model|flags|Features|features|isa|"
    r"uarch|mvendorid|marchid|CPU implementer|CPU architecture|CPU part|ASEs implemented)\s*:"
)
_X86 = ("x86_64", "amd64", "i386", "i486", "i586", "i686", "x86")
# Marks of an architecture in the file -> what OsFacts.machine begins with there.
_MARKS = (
    ("CPU implementer", "", "arm64", ("aarch64", "arm")),
    ("isa", "rv", "riscv64", ("riscv",)),
    ("flags", "", "x86_64", _X86),
    ("cpu", "POWER", "ppc64le", ("ppc", "powerpc")),
    ("Model Name", "Loongson", "loongarch64", ("loongarch",)),
    ("vendor_id", "IBM/S390", "s390x", ("s390",)),
)
# Words in the name of an x86 processor that is none: who emulates it, and on what. Apple's Rosetta calls
# itself VirtualApple (docker/for-mac#7137), box64 says `Box64 on Cortex-A76`, others pass the real name on.
_EMULATORS = (
    (r"VirtualApple", "Rosetta", "arm64"),
    (r"Box64 .*(?:Loongson|LA[346]64)", "box64", "loongarch64"),
    (r"Box64 .*(?:rv64|SiFive|Spacemit|T-Head)", "box64", "riscv64"),
    (r"Box(?:64|32|86)", "box64", "arm64"),
    (r"\bFEX\b|FEX-", "FEX", "arm64"),
    (r"Loongson", "an emulator", "loongarch64"),
    (r"Cortex-|Neoverse|Apple M\d|Snapdragon|Oryon|Kryo|Kunpeng|Ampere|X1[EP]\d", "an emulator", "arm64"),
)
# T-Head's number in mvendorid. Cores of its first kind answer 0 to marchid; their vectors are those of a
# draft, and older kernels call them V all the same (Linux, arch/riscv/kernel/cpufeature.c).
_THEAD = "0x5b7"
_DRAFT_CORES = re.compile(r"thead,c9(?:06|10|20)|\bc9(?:06|10|20)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Identity:
    vendor: str = ""
    name: str = ""
    features: tuple[str, ...] = ()
    bits: int = 0
    emulator: str = ""
    emulated_on: str = ""


def parse_cpuinfo(text: str, machine: str = "") -> Identity:
    """Who the processor is. `machine` is what the kernel, or its emulator, calls it.

    The features are those that every core has: on a phone the cores differ.
    """
    fields: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w[\w ]{0,20}?)[ \t]*:[ \t]*(.*)$", text, re.MULTILINE):
        fields.setdefault(key, []).append(value.strip())
    implementers, parts = (
        [int(number, 16) for number in fields.get(key, ()) if re.fullmatch(r"0x[0-9a-fA-F]{1,4}", number)]
        for key in ("CPU implementer", "CPU part")
    )
    # Equal lines come once, so numbers of cores by two makers cannot be paired: every known pair counts.
    pairs = [(maker, part) for part in parts for maker in implementers]
    names = " + ".join(dict.fromkeys(filter(None, (arm_core(*pair) for pair in pairs))))
    board = _first(fields, "Model", "Hardware")
    emulator, below = _emulated(fields, machine)
    return Identity(
        vendor=_first(fields, "vendor_id") or arm_vendor(implementers[0] if implementers else 0),
        name=joined(board, names) if implementers else _name(fields),
        features=_features(fields),
        bits=_bits(fields, pairs),
        emulator=emulator,
        emulated_on=below,
    )


def _first(fields: Mapping[str, list[str]], *keys: str) -> str:
    return next((value[:100] for key in keys for value in fields.get(key, ()) if value), "")


def joined(board: str, cores: str) -> str:
    return f"{board} ({cores})" if board and cores else board or cores


def _name(fields: Mapping[str, list[str]]) -> str:
    name = _first(fields, "model name", "Model Name", "cpu model", "uarch")
    # `POWER9, altivec supported`, `POWER8E (raw), altivec supported`, `POWER10 (architected), ...`
    power = re.sub(r"(?: \((?:raw|architected)\))?(?:,.*)?$", "", _first(fields, "cpu"))
    vendor = " ".join(filter(None, (_first(fields, "mvendorid"), _first(fields, "marchid"))))
    return name or power or _first(fields, "Hardware") or vendor or _first(fields, "machine")


def _features(fields: Mapping[str, list[str]]) -> tuple[str, ...]:
    lists = [
        set(line.split())
        for key in ("flags", "Features", "features", "ASEs implemented")
        for line in fields.get(key, ())
    ]
    lists += [parse_isa(isa) for isa in fields.get("isa", ())]
    found = set.intersection(*lists) if lists else set()
    if "v" in found and _has_draft_vectors(fields):
        found = {name for name in found if name != "v" and not name.startswith(("zve", "zvl", "zvfh"))}
    return tuple(sorted(found))


def parse_isa(isa: str) -> set[str]:
    """Extensions of RISC-V's `rv64imafdcv_zicsr_zfh`: letters one by one, `g` as what it stands for."""
    base, *names = isa.lower().split("_")
    letters = set(re.sub(r"^rv(?:32|64|128)", "", base)) if base.startswith("rv") else set()
    if "g" in letters:
        letters |= set("imafd")
    return letters | {name for name in names if name}


def _has_draft_vectors(fields: Mapping[str, list[str]]) -> bool:
    archs = fields.get("marchid", [])
    if archs:
        return _THEAD in fields.get("mvendorid", []) and any(
            int(arch, 16) == 0 for arch in archs if _is_hex(arch)
        )
    names = [*fields.get("uarch", []), *fields.get("model name", [])]
    return any(_DRAFT_CORES.search(name) for name in names)


def _is_hex(text: str) -> bool:
    return re.fullmatch(r"0x[0-9a-f]{1,16}", text) is not None


def _bits(fields: Mapping[str, list[str]], cores: list[tuple[int, int]]) -> int:
    """Of a processor below a 32-bit kernel."""
    if cores:
        told = "8" in fields.get("CPU architecture", ()) or any(arm_is_64_bit(*core) for core in cores)
        return 64 if told else 32
    flags = fields.get("flags")
    return (64 if "lm" in flags[0].split() else 32) if flags else 0


def _emulated(fields: Mapping[str, list[str]], machine: str) -> tuple[str, str]:
    """Emulator and the architecture below it. QEMU shows programs the kernel's file, which is about the real
    processor; Rosetta, box64 and FEX write one.
    """
    told = machine.lower()
    seen = [
        (arch, machines)
        for key, start, arch, machines in _MARKS
        if key in fields and any(value.startswith(start) for value in fields[key])
    ]
    known = any(told.startswith(machines) for _, _, _, machines in _MARKS)
    if not known or not seen:
        return "", ""
    if not any(told.startswith(machines) for _, machines in seen):
        return "QEMU", seen[0][0]
    if told.startswith(_X86):
        name = " ".join((_first(fields, "vendor_id"), _first(fields, "model name")))
        return next(((who, arch) for words, who, arch in _EMULATORS if re.search(words, name)), ("", ""))
    return "", ""
