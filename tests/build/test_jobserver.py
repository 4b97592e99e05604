"""The jobserver, with a real ninja as its client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_build import Unit, make_project, ninja_from_wheel
from tool_environment import skip_or_fail

from floatllm_build.build import jobserver as module
from floatllm_build.build.governed import Ninja, Outcome, governed
from floatllm_build.build.jobserver import Jobserver, jobserver
from floatllm_build.build.pace import Pace
from floatllm_build.build.watch import Watch
from floatllm_build.build_folder import Folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.compiler,
    pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes"),
]


def take(server: Jobserver, most: int = 100) -> int:
    """Takes tokens as a client does; returns how many there were."""
    handle = os.open(server.pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return len(os.read(handle, most))
    except BlockingIOError:
        return 0
    finally:
        os.close(handle)


def give(server: Jobserver, tokens: int) -> None:
    handle = os.open(server.pipe, os.O_WRONLY | os.O_NONBLOCK)
    os.write(handle, b"+" * tokens)
    os.close(handle)


def left(server: Jobserver, tokens: int) -> bool:
    """Whether just as many come to lie there; a thread takes what is too many."""
    for _ in range(500):
        found = take(server)
        if found:
            give(server, found)
        if found == tokens:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("jobs", [-3, 0, 1, 2, 5, 64])
def test_one_token_less_than_jobs(jobs: int) -> None:
    with jobserver() as server:
        assert server
        assert take(server) == 0
        server.allow(jobs)
        server.allow(jobs)
        assert take(server) == max(jobs - 1, 0)


def test_fewer_are_taken_back_as_soon_as_clients_give_them_back() -> None:
    with jobserver() as server:
        assert server
        server.allow(5)
        assert take(server, 3) == 3
        server.allow(2)
        # One lay there; of the three that are in use two are too many.
        assert left(server, 0)
        give(server, 1)
        assert left(server, 0)
        give(server, 2)
        assert left(server, 1)
        server.allow(4)
        assert left(server, 3)


def test_more_again_before_the_fewer_came_back() -> None:
    with jobserver() as server:
        assert server
        server.allow(5)
        assert take(server) == 4
        server.allow(1)
        server.allow(5)
        give(server, 4)
        assert left(server, 4)


def test_nothing_stays_behind() -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with jobserver() as server:
        assert server
        pipe = server.pipe
        assert pipe.is_fifo()
        assert server.makeflags == f"--jobserver-auth=fifo:{pipe}"
    assert not pipe.parent.exists()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_none_where_there_cannot_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = tmp_path / "a folder"
    spaced.mkdir()
    monkeypatch.setattr(module.tempfile, "tempdir", str(spaced))
    with jobserver() as server:
        assert server is None
    assert not list(spaced.iterdir())
    monkeypatch.setattr(module.tempfile, "tempdir", None)
    monkeypatch.delattr(module.os, "mkfifo")
    with jobserver() as server:
        assert server is None


@pytest.mark.ci
def test_a_running_ninja_follows_down_and_up(tmp_path: Path) -> None:
    """A token that ninja puts back it takes again at once: only who waits for it gets it."""
    if not Path("/proc/self/task").exists():
        skip_or_fail("needs /proc to see what runs")
    ninja = ninja_from_wheel("ninja==1.13.*")
    folder = make_project(tmp_path / "b", [Unit(f"{number}.o", 2, 200) for number in range(300)])
    seen: dict[int, list[int]] = {4: [], 2: [], 3: []}
    with jobserver() as server:
        assert server
        server.allow(4)
        env = {**os.environ, "MAKEFLAGS": server.makeflags}
        process = subprocess.Popen([ninja, "-C", folder.out], env=env, stdout=subprocess.DEVNULL)
        try:
            watch = Watch(process.pid)
            for allowed, counts in seen.items():
                server.allow(allowed)
                # On a busy machine ninja may be quicker a few times.
                for _ in range(40):
                    time.sleep(0.1)
                    watch.look()
                    counts.append(len(watch.jobs))
        finally:
            process.terminate()
            process.wait(20)
    # Some time to get there.
    assert {allowed: max(counts[30:]) for allowed, counts in seen.items()} == {4: 4, 2: 2, 3: 3}


@pytest.mark.parametrize(
    ("version", "jobs", "served"), [("1.12.1", 2, False), ("1.13.0", 1, False), ("1.13.0", 2, True)]
)
def test_one_is_opened_only_for_a_ninja_that_would_ask_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, jobs: int, served: bool
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    seen = tmp_path / "seen"
    program = tmp_path / "ninja"
    program.write_text(f'#!/bin/sh\necho "$@" >{seen}\nls {tmp_path} | grep floatllm-jobs >>{seen}\nexit 0\n')
    program.chmod(0o755)
    folder = Folder(tmp_path / "build")
    for place in (folder.native, folder.out):
        place.mkdir(parents=True)
    ninja = Ninja(
        program=str(program),
        version=version,
        folder=folder,
        env=os.environ,
        targets=(),
        jobs=jobs,
        room=lambda used: 1 << 40,
        tell=lambda event: None,
        started=time.monotonic(),
        next_peak=1,
        expected={},
    )
    assert governed(ninja, Outcome(), Pace(0, {}), 0).status == 0
    assert ("floatllm-jobs-" in seen.read_text()) is served
    assert (f"-j{jobs}" in seen.read_text()) is not served
    assert list(tmp_path.glob("floatllm-jobs-*")) == []
