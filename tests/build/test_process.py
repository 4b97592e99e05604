"""Long children: read as they speak, ended with all their children; and the lock between two tools."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from floatllm_build.events import Event, Hint
from floatllm_build.lock import cache_lock
from floatllm_build.process import run_child

# A shell whose own child would live on for a minute.
FAMILY = ("sh", "-c", "sleep 60 & echo $!; wait")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed process that nobody has waited for yet is no longer at work.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("terminal", [False, True])
def test_both_outputs_arrive_and_the_status_too(tmp_path: Path, terminal: bool) -> None:
    said: list[str] = []
    argv = ("sh", "-c", "echo out; echo err >&2; printf 'ä'; exit 7")
    status = run_child(argv, cwd=tmp_path, env=dict(os.environ), on_text=said.append, terminal=terminal)
    assert status == 7
    assert "".join(said) == "out\nerr\nä"


def test_only_with_a_terminal_is_there_one(tmp_path: Path) -> None:
    for terminal in (False, True):
        argv = (sys.executable, "-c", "import os; os._exit(os.isatty(1))")
        found = run_child(argv, cwd=tmp_path, env={}, on_text=lambda _: None, terminal=terminal)
        assert found == terminal


def test_an_interrupt_ends_the_whole_family(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(text: str) -> None:
        if text.strip():
            pids.append(int(text))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(FAMILY, cwd=tmp_path, env=dict(os.environ), on_text=interrupt)
    assert gone(pids[0])


def test_so_does_a_time_limit(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(FAMILY, cwd=tmp_path, env=dict(os.environ), on_text=said.append, timeout=0.5)
    assert gone(int("".join(said)))


def test_what_cannot_be_started_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_child((str(tmp_path / "none"),), cwd=tmp_path, env={}, on_text=lambda _: None)


def test_a_second_tool_waits_and_says_so(tmp_path: Path) -> None:
    heard: list[Event] = []
    order: list[str] = []
    told = threading.Event()

    def hear(event: Event) -> None:
        heard.append(event)
        told.set()

    def second() -> None:
        with cache_lock(tmp_path, hear):
            order.append("second")

    thread = threading.Thread(target=second)
    with cache_lock(tmp_path, hear):
        thread.start()
        assert told.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert len(heard) == 1
    assert isinstance(heard[0], Hint)
    assert str(tmp_path) in heard[0].text
