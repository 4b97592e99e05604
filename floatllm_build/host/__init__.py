"""Facts about this machine: one module per source, each a function of `System`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from floatllm_build.host.cpu import probe_cpu
from floatllm_build.host.cuda import probe_cuda
from floatllm_build.host.findings import Findings
from floatllm_build.host.hip import probe_hip
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.metal import probe_metal
from floatllm_build.host.os_facts import probe_os
from floatllm_build.host.others import probe_others
from floatllm_build.host.python import find_target, probe_python, probe_target
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.host.vulkan import probe_vulkan
from floatllm_build.system import System
from floatllm_build.values import Host

__all__ = ["probe_host", "probe_python", "probe_target"]


def probe_host(system: System, python: str | None = None) -> Host:
    """Asks every probe; none raises, and one that finds nothing out leaves a note.

    They run side by side: most of their time is waiting for a program or a driver. `python` names the
    environment that would be installed into, as `--python` does.
    """
    first = Findings()
    os_facts = probe_os(system, first)
    rest = [Findings() for _ in range(10)]
    with ThreadPoolExecutor(len(rest)) as pool:
        python_facts = pool.submit(probe_python, system, rest[0])
        target = pool.submit(find_target, system, python, rest[1])
        cpu = pool.submit(probe_cpu, system, os_facts, rest[2])
        memory = pool.submit(probe_memory, system, os_facts, rest[3])
        toolchain = pool.submit(probe_toolchain, system, os_facts, rest[4])
        cuda = pool.submit(probe_cuda, system, os_facts, rest[5])
        vulkan = pool.submit(probe_vulkan, system, os_facts, rest[6])
        metal = pool.submit(probe_metal, system, os_facts, rest[7])
        hip = pool.submit(probe_hip, system, os_facts, rest[8])
        others = pool.submit(probe_others, system, os_facts, rest[9])
    findings = [first, *rest]
    return Host(
        os=os_facts,
        python=python_facts.result(),
        target=target.result(),
        cpu=cpu.result(),
        memory=memory.result(),
        toolchain=toolchain.result(),
        cuda=cuda.result(),
        vulkan=vulkan.result(),
        metal=metal.result(),
        hip=hip.result(),
        others=others.result(),
        sources=tuple(source for one in findings for source in one.sources),
        notes=tuple(note for one in findings for note in one.notes),
    )
