"""What the numbers mean by which Arm processors name themselves and their features.

Parts: Arm's and the makers' technical reference manuals, as Linux' cputype.h gathers them. Features: bit
numbers of AT_HWCAP and AT_HWCAP2 on arm64, from Linux' uapi hwcap.h, with /proc/cpuinfo's words for them.
"""

from __future__ import annotations

_VENDORS = {
    0x41: "ARM",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x50: "APM",
    0x51: "Qualcomm",
    0x53: "Samsung",
    0x56: "Marvell",
    0x61: "Apple",
    0x6D: "Microsoft",
    0x70: "Phytium",
    0xC0: "Ampere",
}
_PARTS = {
    0x41: {
        0xC07: "Cortex-A7",
        0xC09: "Cortex-A9",
        0xC0F: "Cortex-A15",
        0xD03: "Cortex-A53",
        0xD04: "Cortex-A35",
        0xD05: "Cortex-A55",
        0xD07: "Cortex-A57",
        0xD08: "Cortex-A72",
        0xD09: "Cortex-A73",
        0xD0A: "Cortex-A75",
        0xD0B: "Cortex-A76",
        0xD0C: "Neoverse-N1",
        0xD0D: "Cortex-A77",
        0xD40: "Neoverse-V1",
        0xD41: "Cortex-A78",
        0xD42: "Cortex-A78AE",
        0xD44: "Cortex-X1",
        0xD46: "Cortex-A510",
        0xD47: "Cortex-A710",
        0xD48: "Cortex-X2",
        0xD49: "Neoverse-N2",
        0xD4B: "Cortex-A78C",
        0xD4C: "Cortex-X1C",
        0xD4D: "Cortex-A715",
        0xD4E: "Cortex-X3",
        0xD4F: "Neoverse-V2",
        0xD80: "Cortex-A520",
        0xD81: "Cortex-A720",
        0xD82: "Cortex-X4",
        0xD84: "Neoverse-V3",
        0xD85: "Cortex-X925",
        0xD87: "Cortex-A725",
        0xD8E: "Neoverse-N3",
    },
    0x46: {0x001: "A64FX"},
    0x48: {0xD01: "Kunpeng 920"},
    0x4E: {0x000: "Denver", 0x003: "Denver 2", 0x004: "Carmel"},
    0x51: {
        0x001: "Oryon",
        0x800: "Kryo 2xx Gold",
        0x801: "Kryo 2xx Silver",
        0x802: "Kryo 3xx Gold",
        0x803: "Kryo 3xx Silver",
        0x804: "Kryo 4xx Gold",
        0x805: "Kryo 4xx Silver",
    },
    0x61: {
        0x022: "M1 Icestorm",
        0x023: "M1 Firestorm",
        0x024: "M1 Pro Icestorm",
        0x025: "M1 Pro Firestorm",
        0x028: "M1 Max Icestorm",
        0x029: "M1 Max Firestorm",
        0x032: "M2 Blizzard",
        0x033: "M2 Avalanche",
    },
    0x6D: {0xD49: "Azure Cobalt 100"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1A"},
}

# Position is the bit.
_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc "
    "dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 "
    "i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 smeb16f32 "
    "smef32f32 smefa64 wfxt ebf16 sveebf16 cssc rprfm sve2p1 sme2 sme2p1 smei16i32 smebi32i32 smeb16b16 "
    "smef16f16 mops hbc"
)


def arm_vendor(implementer: int) -> str:
    """Empty where the implementer's number is not known."""
    return _VENDORS.get(implementer, "")


def arm_core(implementer: int, part: int) -> str:
    """The core's name, empty where it is not known."""
    return _PARTS.get(implementer, {}).get(part, "")


# Arm's own cores of the eighth architecture and later have these numbers. A few of them are 32-bit: A32, R52
# and the M cores.
_FIRST_OF_64_BIT = 0xD00
_32_BIT_PARTS = {0xD01, 0xD13, 0xD20, 0xD21, 0xD22, 0xD23, 0xD24}


def arm_is_64_bit(implementer: int, part: int) -> bool:
    """The core runs 64-bit programs; False where its numbers are not known."""
    if implementer == 0x41:
        return part >= _FIRST_OF_64_BIT and part not in _32_BIT_PARTS
    return bool(arm_core(implementer, part))


def arm_features(hwcap: int, hwcap2: int) -> tuple[str, ...]:
    """What the kernel lets 64-bit programs use, sorted; bits that are not known are left out."""
    pairs = ((_HWCAP, hwcap), (_HWCAP2, hwcap2))
    return tuple(
        sorted(name for names, bits in pairs for i, name in enumerate(names.split()) if bits >> i & 1)
    )
