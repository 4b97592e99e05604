"""Values in one line each, for who follows a build."""

from __future__ import annotations

from floatllm_build.sizes import show_size
from floatllm_build.values import Host, Plan

# Rules whose reasons `plan` and `detect` show, and the one line of an install leaves out.
_IN_PLAN_ALONE = {"jobs", "fast-fits", "gcc-reclaim", "gcc-reclaim-if-short"}


def describe_host(host: Host) -> str:
    """One line: what the machine is."""
    chain = host.toolchain
    programs = [f"{chain.cxx.kind} {chain.cxx.version}" if chain.cxx else "no C++ compiler"]
    programs += [f"{name} {p.version}" for name, p in (("cmake", chain.cmake), ("ninja", chain.ninja)) if p]
    cpus = "1 CPU" if host.cpu.usable == 1 else f"{host.cpu.usable} CPUs"
    room = f"{show_size(host.memory.room)} free" if host.memory.room else "memory unknown"
    return f"{host.os.name} {host.cpu.arch}, {cpus}, {room}; {', '.join(programs)}"


def describe_plan(made: Plan) -> str:
    """One line: what will be built and why."""
    why = "; ".join(reason.text for reason in made.reasons if reason.rule not in _IN_PLAN_ALONE)
    jobs = "1 job" if made.jobs == 1 else f"{made.jobs} jobs"
    return f"preset {made.preset}, {jobs} ({why})"
