"""AMD GPUs through ROCm. Rough: what the kernel's kfd driver lists, and where hipcc is."""

from __future__ import annotations

import re

from floatllm_build.system import System
from floatllm_build.values import HipFacts, Note


def probe_hip(system: System, notes: list[Note]) -> HipFacts:
    targets = []
    for path in system.glob("/sys/class/kfd/kfd/topology/nodes/*/properties"):
        try:
            text = system.read(path)
        except OSError as error:
            notes.append(Note(source=path, said=str(error.strerror)))
            continue
        match = re.search(r"^gfx_target_version (\d+)$", text, re.MULTILINE)
        if match and int(match[1]):
            targets.append(gfx_name(int(match[1])))
    hipcc = system.which("hipcc") or next(iter(system.glob("/opt/rocm*/bin/hipcc")), "")
    return HipFacts(targets=tuple(targets), hipcc=hipcc)


def gfx_name(version: int) -> str:
    """90010 is gfx90a: major, two digits of minor, two of stepping, the last two in hexadecimal."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
