"""Metal: Apple silicon only."""

from __future__ import annotations

import re

from floatllm_build.rules.fit import Fit, Obstacle, Terms, join, waive
from floatllm_build.values import Host, Reason

# Devices of virtual machines and of software: they lack the SIMD groups that most of ggml's kernels use
# (ggml-org/llama.cpp#8617, #6628). `Apple M1 (Virtual)` is the chip's name there, if Metal does not answer.
_VIRTUAL = re.compile(r"(?i)paravirtual|\(virtual\)|software renderer")


def fit_metal(host: Host, terms: Terms) -> Fit | Obstacle:
    if host.os.name != "Darwin":
        return Obstacle(reason="only a Mac has Metal", fix="use a Mac with Apple silicon")
    if host.cpu.arch != "arm64":
        return Obstacle(
            reason="ggml's Metal kernels are for Apple silicon, and this Mac has an Intel processor",
            fix="use a Mac with Apple silicon; here the CPU backend is the one that works",
        )
    if not host.metal.devices:
        absent = Obstacle(
            reason="no Metal device answered, as in some virtual machines",
            fix="run this on the Mac itself, not in a virtual machine",
        )
        return Fit(proven=False, reasons=(waive(absent),)) if terms.without_device else absent
    if not is_virtual(host):
        return Fit()
    names = join([device.name for device in host.metal.devices])
    why = f"only a virtual device answered ({names}), which lacks most of what ggml's kernels need"
    if terms.without_device:
        return Fit(proven=False, reasons=(waive(Obstacle(reason=why, fix="")),))
    if terms.named:
        return Fit(reasons=(Reason(rule="virtual-device", text=f"{why}; it was asked for"),))
    return Obstacle(
        reason=f"{why}; it is only used if you name it",
        fix="run this on the Mac itself, or to try it: floatllm-build install --backend metal",
        near=True,
    )


def is_virtual(host: Host) -> bool:
    devices = host.metal.devices
    return bool(devices) and all(_VIRTUAL.search(device.name) for device in devices)
