"""Limits of the kernel, set for real: what a process inside them is told about memory and CPUs."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from typing import Any

import pytest
from groups import GROUPS, enter, group, own_group
from tool_environment import ROOT, skip_or_fail

from floatllm_build import limits
from floatllm_build.limits import remember_refusal
from floatllm_build.sizes import GIB, MIB
from floatllm_build.system import LiveSystem

# Asks the real probes on the real machine, after what the test has it do first.
_ALL = """
import json, os, resource, sys
from floatllm_build.host import probe_host
from floatllm_build.preflight import find_lacks
from floatllm_build.system import LiveSystem
{first}
resource.setrlimit(getattr(resource, "{limit}"), ({value}, {value}))
host = probe_host(LiveSystem())
print(json.dumps({{
    "met": [[one.name, one.value] for one in host.limits],
    "fixes": [lack.fix for lack in find_lacks(host)],
    "cxx": host.toolchain.cxx.kind if host.toolchain.cxx else "",
    "target": host.target is not None,
    "binding": min(host.memory.bounds, key=lambda bound: bound.limit).source,
}}))
"""
_CHILD = """
import dataclasses, json, os, sys
{first}
from floatllm_build.host.cpu import probe_cpu
from floatllm_build.host.findings import Findings
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.os_facts import probe_os
from floatllm_build.system import LiveSystem
live, findings = LiveSystem(), Findings()
facts = probe_os(live, findings)
cpu, memory = probe_cpu(live, facts, findings), probe_memory(live, facts, findings)
print(json.dumps([dataclasses.asdict(cpu), dataclasses.asdict(memory)]))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.group,
    pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'"),
]


def probed(first: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """CPU and memory facts of a fresh process that runs `first` before it asks."""
    code = _CHILD.replace("{first}", first)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    cpu, memory = json.loads(done.stdout)
    return cpu, memory


def test_version_1_groups_bind() -> None:
    if not (GROUPS / "memory").is_dir() or not (GROUPS / "cpu").is_dir():
        pytest.skip("no control groups of version 1 here")
    with (
        group(own_group("memory"), memory__limit_in_bytes=str(2 * GIB)) as memory_group,
        group(own_group("cpu"), cpu__cfs_period_us="100000", cpu__cfs_quota_us="100000") as cpu_group,
    ):
        cpu, memory = probed(enter(memory_group, cpu_group))
    assert memory["capacity"] == 2 * GIB
    assert memory["binding"] == f"{memory_group}/memory.limit_in_bytes"
    assert 1 * GIB < memory["room"] <= 2 * GIB
    assert memory["total"] > 2 * GIB
    assert cpu["usable"] == 1
    assert {"source": f"{cpu_group}/cpu.cfs_quota_us", "cpus": 1} in cpu["bounds"]


def test_version_1_ancestors_bind_as_well() -> None:
    if not (GROUPS / "memory").is_dir():
        pytest.skip("no control groups of version 1 here")
    with (
        group(own_group("memory"), memory__limit_in_bytes=str(1 * GIB)) as outer,
        group(outer, memory__limit_in_bytes=str(4 * GIB)) as inner,
    ):
        _, memory = probed(enter(inner))
    assert (memory["capacity"], memory["binding"]) == (1 * GIB, f"{outer}/memory.limit_in_bytes")


def test_version_2_groups_bind() -> None:
    controllers = GROUPS / "cgroup.subtree_control"
    given = set(controllers.read_text(encoding="utf-8").split()) if controllers.is_file() else set()
    if not {"memory", "cpu"} <= given:
        pytest.skip("the unified hierarchy hands out no memory and cpu controllers here")
    with group(GROUPS, memory__max=str(2 * GIB), cpu__max="100000 100000") as folder:
        cpu, memory = probed(enter(folder))
    assert (memory["capacity"], memory["binding"]) == (2 * GIB, f"{folder}/memory.max")
    assert cpu["usable"] == 1
    assert {"source": f"{folder}/cpu.max", "cpus": 1} in cpu["bounds"]


def test_an_address_space_limit_binds() -> None:
    limit = 900 * MIB
    _, memory = probed(f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))")
    assert (memory["capacity"], memory["binding"]) == (limit, "RLIMIT_AS")


def test_affinity_binds() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        skip_or_fail("needs two CPUs to be kept from one of them")
    cpu, _ = probed("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})")
    assert (cpu["usable"], cpu["logical"]) == (1, os.cpu_count())
    assert {"source": "affinity", "cpus": 1} in cpu["bounds"]


# ---- limits of a shell ------------------------------------------------------------------------------


def under(limit: str, value: int, first: str = "") -> dict[str, Any]:
    """What the whole probe finds in a process with that limit, which runs `first` before it."""
    code = _ALL.format(limit=limit, value=value, first=first)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("size", [150 * MIB, 200 * MIB, 293 * MIB])
def test_little_address_space_leaves_no_threads_and_all_answers(size: int) -> None:
    found = under("RLIMIT_AS", size)
    assert found["binding"] == "RLIMIT_AS"
    assert found["target"]
    if shutil.which("c++"):
        assert found["cxx"]


def test_without_files_to_open_the_limit_is_named() -> None:
    found = under("RLIMIT_NOFILE", 8)
    assert found["met"] == [["RLIMIT_NOFILE", 8]]
    assert "RLIMIT_NOFILE on open files, 8" in found["fixes"][0]


def test_without_processes_the_limit_is_named() -> None:
    if os.geteuid() != 0:
        skip_or_fail("only root can become a user who has no process yet")
    # To root the limit means nothing.
    found = under("RLIMIT_NPROC", 1, "os.setgid(65533); os.setuid(65533)")
    assert found["met"] == [["RLIMIT_NPROC", 1]]
    assert "RLIMIT_NPROC on processes and threads of one user, 1" in found["fixes"][0]


def test_a_system_that_has_not_every_limit_has_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenBSD has no RLIMIT_AS."""
    monkeypatch.delattr("resource.RLIMIT_AS")
    assert LiveSystem().native("rlimit_as") is None
    assert remember_refusal(OSError(errno.ENOMEM, "Cannot allocate memory")) == "Cannot allocate memory"


def test_what_refuses_for_another_reason_names_no_limit() -> None:
    for error in (FileNotFoundError(errno.ENOENT, "No such file"), ValueError("No such file")):
        assert remember_refusal(error) == "No such file"


V2 = {
    "/proc/self/cgroup": "0::/box\n",
    "/sys/fs/cgroup/box/pids.max": "64\n",
    "/sys/fs/cgroup/box/pids.current": "64\n",
}
V1 = {
    "/proc/self/cgroup": "9:pids:/docker/1\n3:cpu,cpuacct:/docker/1\n",
    "/sys/fs/cgroup/pids/pids.max": "64\n",
    "/sys/fs/cgroup/pids/pids.current": "64\n",
}
ROOM = {**V2, "/sys/fs/cgroup/box/pids.current": "10\n"}


@pytest.mark.parametrize(("files", "named"), [(V2, True), (V1, True), (ROOM, False), ({}, False)])
def test_a_full_control_group_of_processes_is_named(
    files: dict[str, str], named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(limits, "_met", {})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said = remember_refusal(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"))
    assert ("pids.max is 64" in said) == named
    assert limits.limits_met() == ([{"name": "pids.max", "value": 64}] if named else [])
