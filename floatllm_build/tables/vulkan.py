"""Vulkan devices of which something is known if nobody asked them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a device that nobody asked."""

    words: re.Pattern[str]
    """Found in its name and driver."""
    storage_16_bit: bool | None = None
    shared_memory: int = 0


# Mesa's sources, read in November 2026: v3dv_device.c; freedreno_devices.py (a6xx_gen1 and a6xx_gen2 have no
# storage_16bit, of a6xx_gen3 on all have); pvr_device.c; anv's hasvk (16-bit storage since generation 8).
KNOWN = (
    Known(words=re.compile(r"(?i)\bV3D\b|\bV3DV|VideoCore"), shared_memory=16 << 10),
    Known(words=re.compile(r"(?i)powervr|imagination"), shared_memory=16 << 10),
    Known(
        words=re.compile(r"(?i)turnip.{0,40}\b(?:FD)?(?:60[58]|61[025689]|6[234]0|680)\b"),
        storage_16_bit=False,
    ),
    Known(words=re.compile(r"\((?:IVB|HSW|BYT)\b|Bay ?Trail|Ivybridge|Haswell"), storage_16_bit=False),
)
# Computes on the CPU, whatever type it says it is (through a virtual machine's driver it is another one).
SOFTWARE = re.compile(r"(?i)llvmpipe|lavapipe|swiftshader|softpipe|microsoft basic render|\bWARP\b")
