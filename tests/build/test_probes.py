"""Whatever a record says, no probe raises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_answers import CPUS

from floatllm_build.host.cpu import probe_cpu
from floatllm_build.host.findings import Findings
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.os_facts import probe_os
from floatllm_build.host.python import find_target, probe_python
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.system import Replay

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PATHS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/etc/os-release",
    "/proc/1/cgroup",
    "/sys/firmware/devicetree/base/model",
    f"{CPUS}/cpu0/cpu_capacity",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cpu.max",
    "/sys/devices/cpu_core/cpus",
)
WORDS = st.sampled_from(
    [
        "0::/\n",
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "MemTotal: 9 kB\n",
        "9" * 5000,
        "-1",
        "1-9",
    ]
)
TEXTS = st.lists(st.text(max_size=60) | WORDS, max_size=3).map("".join)
ANSWERS = st.fixed_dictionaries({"rc": st.integers(-9, 127), "out": TEXTS, "err": TEXTS})
NAMES = ("cpu_count", "affinity", "hwcaps", "rlimit_as", "windows_memory")
COMMANDS = ("c++ --version", "/x/ld --version", "xcode-select -p", "vm_stat", "sysctl -n hw.memsize", "cl")
SYSTEMS = st.sampled_from(["Linux", "Darwin", "Windows", "Android", "Plan9"])


@settings(max_examples=200, deadline=None)
@given(
    identity=st.dictionaries(
        st.sampled_from(["machine", "bits", "release", "libc", "prefix", "executable"]), JSON
    )
    | JSON,
    name=SYSTEMS,
    native=st.dictionaries(st.sampled_from(NAMES), JSON),
    files=st.dictionaries(st.sampled_from(PATHS), TEXTS.map(lambda text: {"text": text})),
    commands=st.dictionaries(st.sampled_from(COMMANDS), ANSWERS),
    asked=ANSWERS,
)
@pytest.mark.slow
def test_no_record_makes_a_probe_raise(
    identity: Any, name: str, native: dict[str, Any], files: Any, commands: Any, asked: Any
) -> None:
    told = {"system": name, **identity} if isinstance(identity, dict) else identity
    which = {"c++": "/x/c++", "ld": "/x/ld", "cl": "/x/cl", "g++-12": "/x/g"}
    record = {
        "schema_version": 1,
        "native": {"identity": told, **native},
        "files": files,
        "commands": commands,
        "which": which,
        "asked": {"target /p/python": asked},
    }
    system, findings = Replay(record), Findings()
    facts = probe_os(system, findings)
    for os_facts in (facts, replace(facts, name=name, machine="aarch64", bits=64)):
        cpu = probe_cpu(system, os_facts, findings)
        assert 1 <= cpu.usable <= cpu.logical
        memory = probe_memory(system, os_facts, findings)
        assert 0 <= memory.room < 1 << 63
        probe_toolchain(system, os_facts, findings)
    probe_python(system, findings)
    find_target(system, "/p/python", findings)
