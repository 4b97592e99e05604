"""Facts about this machine: one module per source, each a function of `System`."""

from __future__ import annotations

from floatllm_build.host.cpu import probe_cpu
from floatllm_build.host.cuda import probe_cuda
from floatllm_build.host.hip import probe_hip
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.metal import probe_metal
from floatllm_build.host.os_facts import probe_os
from floatllm_build.host.python import probe_python, probe_target
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.host.vulkan import probe_vulkan
from floatllm_build.system import System
from floatllm_build.values import Host, Note

__all__ = ["probe_host", "probe_python", "probe_target"]


def probe_host(system: System) -> Host:
    """Asks every probe. A probe that finds nothing out leaves a note; none raises."""
    notes: list[Note] = []
    os_facts = probe_os(system)
    return Host(
        os=os_facts,
        python=probe_python(system),
        cpu=probe_cpu(system, os_facts, notes),
        memory=probe_memory(system, os_facts, notes),
        toolchain=probe_toolchain(system, os_facts, notes),
        cuda=probe_cuda(system, notes),
        vulkan=probe_vulkan(system, os_facts, notes),
        metal=probe_metal(system, os_facts, notes),
        hip=probe_hip(system, notes),
        notes=tuple(notes),
    )
