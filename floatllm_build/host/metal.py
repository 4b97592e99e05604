"""Apple GPUs. Rough: every Mac with Apple silicon has one that ggml uses."""

from __future__ import annotations

from floatllm_build.system import System
from floatllm_build.values import MetalFacts, Note, OsFacts


def probe_metal(system: System, os_facts: OsFacts, notes: list[Note]) -> MetalFacts:
    if os_facts.name != "Darwin" or os_facts.machine != "arm64":
        return MetalFacts(devices=())
    sdk = system.run(("xcrun", "--show-sdk-path"))
    if sdk.rc != 0:
        notes.append(Note(source="xcrun --show-sdk-path", said=sdk.err.strip()[:200]))
    name = system.run(("sysctl", "-n", "machdep.cpu.brand_string")).out.strip()
    return MetalFacts(devices=(name or "Apple GPU",))
