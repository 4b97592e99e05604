"""Long children: read as they speak, ended with all their children; and the lock between two tools."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from floatllm_build.events import Event, Hint
from floatllm_build.lock import cache_lock, target_lock
from floatllm_build.process import run_child, run_to_its_end

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


def test_without_pseudo_terminals_it_is_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a chroot whose /dev has no devpts."""

    def refuse() -> None:
        raise OSError("out of pty devices")

    monkeypatch.setattr("pty.openpty", refuse)
    said: list[str] = []
    code = "import os, time; print(os.isatty(1), flush=True); time.sleep(0.2); print('end')"
    argv = (sys.executable, "-c", code)
    status = run_child(argv, cwd=tmp_path, env=dict(os.environ), on_text=said.append, terminal=True)
    assert (status, "".join(said)) == (0, "False\nend\n")
    assert len(said) > 1  # as it comes
    env = dict(os.environ)
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(FAMILY, cwd=tmp_path, env=env, on_text=said.append, terminal=True, timeout=0.5)
    assert gone(int(said[-1]))


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


# As an installer does: the former file goes, some time passes, the new one comes.
REPLACES = """
import os, pathlib, sys, time
file = pathlib.Path(sys.argv[1])
file.unlink()
time.sleep(1.5)
file.write_text("new")
print("session", os.getsid(0))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_waits_for_a_child_that_must_not_stop_half_way(
    tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "engine"
    file.write_text("former")

    def interrupt() -> None:
        while file.exists():
            time.sleep(0.01)
        for _ in range(3):
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    before = signal.signal(number, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run_to_its_end((sys.executable, "-c", REPLACES, str(file)), os.environ)
        thread.join()
        assert file.read_text() == "new"
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        argv = ("sh", "-c", f"kill -HUP {os.getpid()}; sleep 0.2; exit 3")
        assert run_to_its_end(argv, os.environ) == (3, "")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_such_a_child_has_a_session_of_its_own_and_tells_how_it_ended(tmp_path: Path) -> None:
    (tmp_path / "engine").touch()
    status, said = run_to_its_end((sys.executable, "-c", REPLACES, str(tmp_path / "engine")), os.environ)
    assert status == 0
    assert int(said.split()[1]) != os.getsid(0)
    assert run_to_its_end(("sh", "-c", "echo out; echo err >&2; exit 7"), os.environ) == (7, "out\nerr\n")
    with pytest.raises(FileNotFoundError):
        run_to_its_end((str(tmp_path / "none"),), os.environ)


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


# Waits for the lock on an environment, says so, and says when it has it.
SECOND = """
import pathlib, sys
from floatllm_build.lock import target_lock
tell = lambda event: print("waits", flush=True)
with target_lock(pathlib.Path(sys.argv[1]), tell):
    print("has it", flush=True)
"""


def test_two_installers_take_turns_in_one_environment(tmp_path: Path) -> None:
    """Whatever caches they have; and nothing of the lock stays there."""
    with target_lock(tmp_path, lambda _: None):
        tmp_path.chmod(0o555)
        second = start_python(SECOND, tmp_path)
        assert second.stdout.readline() == "waits\n"
    with second:
        assert second.stdout.readline() == "has it\n"
    assert list(tmp_path.iterdir()) == []


def test_the_lock_on_an_environment_ends_with_the_last_that_works_there(tmp_path: Path) -> None:
    """An installer lives on when the tool is killed."""
    with start_python(HOLDS, tmp_path) as first:
        installer = int(first.stdout.readline())
        first.kill()
    with start_python(SECOND, tmp_path) as second:
        assert second.stdout.readline() == "waits\n"
        os.kill(installer, signal.SIGKILL)
        assert second.stdout.readline() == "has it\n"


def start_python(code: str, folder: Path) -> Any:
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)


# Holds the lock with a child that gets it too, whose id it says.
HOLDS = """
import os, pathlib, sys
from floatllm_build.lock import target_lock
from floatllm_build.process import run_child
with target_lock(pathlib.Path(sys.argv[1]), lambda _: None):
    start = lambda pid: print(pid, flush=True)
    run_child(("sleep", "60"), cwd=None, env=os.environ, on_text=print, on_start=start)
"""


def test_a_folder_that_cannot_be_locked_is_no_hindrance(tmp_path: Path) -> None:
    with target_lock(tmp_path / "none", lambda _: pytest.fail("it waits")):
        pass
