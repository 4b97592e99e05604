"""Facts about this machine: one module per source, each a function of `System`."""

from __future__ import annotations

from floatllm_build.host.beside import beside
from floatllm_build.host.cpu import probe_cpu
from floatllm_build.host.cuda import probe_cuda
from floatllm_build.host.disk import probe_disk
from floatllm_build.host.findings import Findings
from floatllm_build.host.hip import probe_hip
from floatllm_build.host.limits import probe_limits
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.metal import probe_metal
from floatllm_build.host.os_facts import probe_os
from floatllm_build.host.others import probe_others
from floatllm_build.host.python import find_target, probe_python, probe_target
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.host.vulkan import probe_vulkan
from floatllm_build.system import System
from floatllm_build.values import Host

__all__ = ["probe_host", "probe_memory", "probe_python", "probe_target"]


def probe_host(system: System, python: str | None = None) -> Host:
    """Asks every probe; none raises, and one that finds nothing out leaves a note.

    They run side by side: most of their time is waiting for a program or a driver. `python` names the
    environment that would be installed into, as `--python` does.
    """
    first = Findings()
    os_facts = probe_os(system, first)
    rest = [Findings() for _ in range(11)]
    python_facts = beside(probe_python, system, rest[0])
    target = beside(find_target, system, python, rest[1])
    cpu = beside(probe_cpu, system, os_facts, rest[2])
    memory = beside(probe_memory, system, os_facts, rest[3])
    toolchain = beside(probe_toolchain, system, os_facts, rest[4])
    cuda = beside(probe_cuda, system, os_facts, rest[5], target)
    vulkan = beside(probe_vulkan, system, os_facts, rest[6])
    metal = beside(probe_metal, system, os_facts, rest[7])
    hip = beside(probe_hip, system, os_facts, rest[8])
    others = beside(probe_others, system, os_facts, rest[9])
    disk = beside(probe_disk, system, rest[10])
    findings = [first, *rest]
    return Host(
        os=os_facts,
        python=python_facts(),
        target=target(),
        cpu=cpu(),
        memory=memory(),
        disk=disk(),
        toolchain=toolchain(),
        cuda=cuda(),
        vulkan=vulkan(),
        metal=metal(),
        hip=hip(),
        others=others(),
        # Last: the others run into them.
        limits=probe_limits(system),
        sources=tuple(source for one in findings for source in one.sources),
        notes=tuple(note for one in findings for note in one.notes),
    )
