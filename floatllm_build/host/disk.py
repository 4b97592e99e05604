"""The disk that the cache is on."""

from __future__ import annotations

from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import DiskFacts, Kept

# No disk is larger; a recorded host may say what it likes.
_MOST = 1 << 60


def probe_disk(system: System, findings: Findings) -> DiskFacts:
    told = system.native("disk")
    if not isinstance(told, dict):
        return DiskFacts()
    found = {name: min(value, _MOST) for name, value in told.items() if isinstance(value, int) and value >= 0}
    kept = told.get("kept")
    parts = kept.items() if isinstance(kept, dict) else ()
    if "free" in found:
        findings.source("disk.free", "the file system that holds the cache")
    return DiskFacts(
        free=found.get("free"),
        inodes=found.get("inodes"),
        held=found.get("held", 0),
        kept=tuple(
            Kept(what=what, size=min(size, _MOST))
            for what, size in sorted(parts)
            if isinstance(size, int) and size >= 0
        ),
        noexec=bool(found.get("noexec")),
        temp=found.get("temp"),
        refusal=refusal if isinstance(refusal := told.get("refusal"), str) else "",
    )
