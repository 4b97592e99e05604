"""What AT_HWCAP and AT_HWCAP2 mean on POWER: bits and names of Linux' uapi cputable.h, as far as code that a
compiler makes depends on them.
"""

from __future__ import annotations

_HWCAP = {"altivec": 0x10000000, "dfp": 0x00000400, "arch_2_06": 0x00000100, "vsx": 0x00000080}
_HWCAP2 = {
    "arch_2_07": 0x80000000,
    "arch_3_00": 0x00800000,
    "ieee128": 0x00400000,
    "arch_3_1": 0x00040000,
    "mma": 0x00020000,
}


def power_features(hwcap: int, hwcap2: int) -> tuple[str, ...]:
    """What the kernel lets programs use, sorted; bits that are not known are left out."""
    pairs = ((_HWCAP, hwcap), (_HWCAP2, hwcap2))
    return tuple(sorted(name for names, bits in pairs for name, bit in names.items() if bits & bit))
