"""Metal: Apple silicon only."""

from __future__ import annotations

from floatllm_build.rules.fit import Fit, Obstacle, Terms, waive
from floatllm_build.values import Host


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
    return Fit()
