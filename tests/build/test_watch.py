"""What a build's processes take, as /proc shows it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tool_environment import skip_or_fail

from floatllm_build.build.watch import Watch
from floatllm_build.sizes import MIB

# A root as ninja is one: three children that name what they make, or do not; the second has a child.
ROOT = """
import subprocess, sys, time
hold = "import sys, time; held = b'x' * (int(sys.argv[1]) << 20); time.sleep(60)"
driver = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[3], '50'])"
children = [
    subprocess.Popen([sys.executable, "-c", hold, "40", "-o", "dir/a.cpp.o", "-c", "a.cpp"]),
    subprocess.Popen([sys.executable, "-c", driver, "-o", "b.o", hold]),
    subprocess.Popen(["sleep", "60"]),
]
time.sleep(60)
"""


@pytest.fixture
def root() -> Iterator[int]:
    if not Path("/proc/self/status").exists():
        skip_or_fail("there is no /proc here")
    process = subprocess.Popen([sys.executable, "-c", ROOT], start_new_session=True)
    yield process.pid
    os.killpg(process.pid, 9)
    process.wait()


def look_until_all_hold(watch: Watch) -> int:
    for _ in range(200):
        total = watch.look()
        held = {job.unit: job.resident for job in watch.jobs.values()}
        if held.get("dir/a.cpp.o", 0) > 40 * MIB and held.get("b.o", 0) > 55 * MIB and "sleep" in held:
            return total
        time.sleep(0.05)
    raise AssertionError(f"never seen: {watch.jobs}")


@pytest.mark.parametrize("lists", [True, False])
def test_each_job_with_all_below_it(root: int, lists: bool) -> None:
    """With the kernel's lists of children, and as on phones, where it has none."""
    watch = Watch(root)
    watch._lists = lists
    total = look_until_all_hold(watch)
    jobs = {job.unit: job for job in watch.jobs.values()}
    assert set(jobs) == {"dir/a.cpp.o", "b.o", "sleep"}
    # A Python takes about ten of its own; the driver is a second one.
    assert 40 * MIB < jobs["dir/a.cpp.o"].resident < 56 * MIB
    assert 50 * MIB < jobs["b.o"].resident < 78 * MIB
    assert jobs["sleep"].resident < 4 * MIB
    assert total > sum(job.resident for job in jobs.values())
    assert all(job.peak >= job.resident for job in jobs.values())


def test_both_ways_find_the_same_children(root: int) -> None:
    listed, read = Watch(root), Watch(root)
    assert listed._lists
    read._lists = False
    look_until_all_hold(listed)
    look_until_all_hold(read)
    assert list(listed.jobs) == list(read.jobs)


def test_a_job_that_has_ended_keeps_its_peak(root: int) -> None:
    watch = Watch(root)
    look_until_all_hold(watch)
    pid = next(pid for pid, job in watch.jobs.items() if job.unit == "dir/a.cpp.o")
    os.kill(pid, 9)
    for _ in range(100):
        watch.look()
        # Its parent never waits for it: it stays as a process without memory.
        if not watch.jobs[pid].resident:
            break
        time.sleep(0.02)
    assert watch.jobs[pid].resident == 0
    assert 40 * MIB < watch.jobs[pid].peak < 56 * MIB


def test_where_there_is_no_proc_nothing_is_seen(tmp_path: Path) -> None:
    watch = Watch(os.getpid(), proc=tmp_path / "none")
    assert watch.look() == 0
    assert (watch.jobs, watch.ended) == ({}, [])


def test_a_root_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    watch = Watch(process.pid)
    assert watch.look() == 0
    assert not watch.jobs
