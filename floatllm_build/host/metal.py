"""Apple GPUs, as Metal lists them in a child. Never tried on a Mac yet: there was none to try it on."""

from __future__ import annotations

from floatllm_build.host.answers import ask, first_line, rows, text, whole
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import MetalDevice, MetalFacts, OsFacts

_METAL = "/System/Library/Frameworks/Metal.framework/Metal"


def probe_metal(system: System, os_facts: OsFacts, findings: Findings) -> MetalFacts:
    if os_facts.name != "Darwin" or os_facts.machine != "arm64":
        return MetalFacts(devices=())
    _look_for_sdk(system, findings)
    found = ask(system, "metal", _METAL, findings, timeout=4.0)
    devices = tuple(
        MetalDevice(name=text(row.get("name")) or "Apple GPU", working_set=whole(row.get("working_set")))
        for row in rows(found, "devices", _METAL, findings)
    )
    if devices:
        findings.source("metal.devices", "MTLCopyAllDevices")
        return MetalFacts(devices=devices)
    # Every Mac with Apple silicon has a GPU that ggml uses; it is named after the chip.
    chip = system.run(("sysctl", "-n", "machdep.cpu.brand_string"))
    if chip.rc != 0:
        findings.failed("sysctl machdep.cpu.brand_string", chip)
    findings.source("metal.devices", "sysctl machdep.cpu.brand_string")
    return MetalFacts(devices=(MetalDevice(name=first_line(chip.out) or "Apple GPU", working_set=0),))


def _look_for_sdk(system: System, findings: Findings) -> None:
    # xcrun opens a window that offers to install the tools where there are none; xcode-select does not.
    for argv in (("xcode-select", "-p"), ("xcrun", "--show-sdk-path")):
        done = system.run(argv)
        if done.rc != 0:
            findings.failed(" ".join(argv), done)
            return
