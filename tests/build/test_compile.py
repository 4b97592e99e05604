"""Real builds of units that take what they are told to: what is seen of them, odd cases, broken off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from running import LIMIT
from tiny_build import (
    Told,
    Unit,
    build,
    build_command,
    known,
    make_order,
    make_project,
)

from floatllm_build.build import jobserver
from floatllm_build.build.compile import Outcome, compile_all
from floatllm_build.build.governed import nameable
from floatllm_build.errors import BuildFailedError
from floatllm_build.events import Event, UnitProgress
from floatllm_build.sizes import MIB

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="made for POSIX"),
    pytest.mark.compiler,
    pytest.mark.usefixtures("cc"),
    pytest.mark.network,
]


def compilers_of(folder: Path) -> list[int]:
    """Processes whose program is this folder's compiler."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "exe").readlink() == folder / "cc1plus":
                found.append(int(process.name))
    return found


def wait_for(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


# ---- what is seen -----------------------------------------------------------------------------


def progress(events: list[Event]) -> list[UnitProgress]:
    return [event for event in events if isinstance(event, UnitProgress)]


def test_peaks_are_what_the_units_really_took(tmp_path: Path, ninja: str) -> None:
    units = [Unit("a/x.o", 30), Unit("b/x.o", 60), Unit("y.o", 120), Unit("z.o", 240)]
    make_project(tmp_path / "b", units)
    outcome, _ = build(Told(str(tmp_path / "b"), 2, ninja, known(units), room=4000))
    for unit in units:
        assert outcome.peaks[unit.name] / MIB == pytest.approx(unit.mib, rel=0.15)
    # And are kept, with their seconds.
    kept = json.loads((tmp_path / "b" / "costs-00.json").read_text())["units"]
    assert set(kept) == {unit.name for unit in units}
    assert all(0.3 < cost["seconds"] < 30 for cost in kept.values())


def test_a_script_around_ninja_is_looked_through(tmp_path: Path, ninja: str) -> None:
    script = tmp_path / "ninja"
    script.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\nsys.exit(subprocess.call([{ninja!r}, *sys.argv[1:]]))\n"
    )
    script.chmod(0o755)
    units = [Unit("a.o", 50), Unit("b.o", 50)]
    make_project(tmp_path / "b", units)
    outcome, _ = build(Told(str(tmp_path / "b"), 2, str(script), known(units), room=4000))
    assert outcome.peaks["a.o"] / MIB == pytest.approx(50, rel=0.15)
    assert outcome.peaks["b.o"] / MIB == pytest.approx(50, rel=0.15)


def test_progress(tmp_path: Path, ninja: str) -> None:
    """One long unit and many short ones, in two phases: counted as one build, the long one named."""
    units = [Unit("dir/long.cpp.o", 60, 1500), *(Unit(f"s{n}.cpp.o", 5, 250) for n in range(8))]
    make_project(tmp_path / "b", units)
    # Room for the long one and no other: it comes first.
    _, events = build(Told(str(tmp_path / "b"), 2, ninja, known(units), room=66))
    seen = progress(events)
    assert {now.total for now in seen} == {9}
    done = [now.done for now in seen]
    assert done == sorted(done)
    assert done[-1] == 9
    names = {now.current for now in seen}
    assert names <= {"", "dir/long.cpp", *(f"s{n}.cpp" for n in range(8))}
    assert max(now.used for now in seen) > 60 * MIB
    assert {now.room for now in seen} == {66 * MIB}
    # The second time it is known how long each takes: there is a time left, and it was about right.
    for unit in units:
        (tmp_path / "b" / "out" / unit.name).unlink()
    _, events = build(Told(str(tmp_path / "b"), 1, ninja, room=4000))
    seen = progress(events)
    end = seen[-1].seconds
    guesses = [(now.left, end - now.seconds) for now in seen if now.left]
    assert guesses
    left, really = guesses[0]
    assert left == pytest.approx(really, abs=1.5)


def test_the_longest_running_is_named_not_the_last_started(tmp_path: Path, ninja: str) -> None:
    units = [Unit("z/long.cpp.o", 5, 2000), *(Unit(f"a{n}.cpp.o", 5, 200) for n in range(6))]
    make_project(tmp_path / "b", units)
    _, events = build(Told(str(tmp_path / "b"), 2, ninja, known(units), room=4000))
    # While units beside it come and go.
    between = [now.current for now in progress(events) if 2 <= now.done <= 5]
    assert between
    assert set(between) == {"z/long.cpp"}


def test_the_only_one_that_runs_is_named(tmp_path: Path, ninja: str) -> None:
    units = [Unit(f"d/{n}.cpp.o", 5, 600) for n in range(3)]
    make_project(tmp_path / "b", units)
    _, events = build(Told(str(tmp_path / "b"), 1, ninja, known(units), room=4000))
    seen = progress(events)
    names = [now.current for now in seen]
    assert {"d/0.cpp", "d/1.cpp", "d/2.cpp"} <= set(names)
    # But for the first look, the last one, and some between an end and a start.
    assert names.count("") < len(names) / 2


# ---- odd cases --------------------------------------------------------------------------------


def test_nothing_to_do(tmp_path: Path, ninja: str) -> None:
    make_project(tmp_path / "b", [Unit("a.o", 1, 10)])
    told = Told(str(tmp_path / "b"), 4, ninja, room=0)
    build(told)
    outcome, events = build(told)
    assert (outcome.spans, outcome.peaks) == ([], {})
    assert {(now.done, now.total) for now in progress(events)} <= {(0, 0)}


def test_an_error_in_the_source_is_no_want_of_memory(tmp_path: Path, ninja: str) -> None:
    make_project(tmp_path / "b", [Unit("a.o", 1, 10), Unit("bad.o", 1, 10, "fail")])
    with pytest.raises(BuildFailedError) as caught:
        build(Told(str(tmp_path / "b"), 2, ninja, room=4000))
    assert "error: no such thing" in str(caught.value)
    assert "memory" not in str(caught.value)
    # What was made before is known to the next build all the same.
    assert "a.o" in (tmp_path / "b" / "out" / ".ninja_log").read_text()


def test_a_ninja_that_says_nothing(tmp_path: Path, ninja: str) -> None:
    script = tmp_path / "ninja"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {ninja} --version\nexec {ninja} --quiet "$@"\n'
    )
    script.chmod(0o755)
    units = [Unit("a.o", 5, 100), Unit("b.o", 5, 100)]
    make_project(tmp_path / "b", units)
    outcome, events = build(Told(str(tmp_path / "b"), 2, str(script), room=4000))
    assert {span.unit for span in outcome.spans} == {"a.o", "b.o"}
    assert all(now.done <= now.total for now in progress(events))


def test_very_many_units(tmp_path: Path, ninja: str) -> None:
    units = [Unit(f"a/folder/with/a/long/name/{number}.cpp.o", 1, 0) for number in range(300)]
    make_project(tmp_path / "b", units)
    # Each is too large for two at once: all are named to ninja as targets.
    outcome, _ = build(Told(str(tmp_path / "b"), 2, ninja, known(units), room=3))
    assert len(outcome.spans) == 300
    assert "299.cpp.o" in (tmp_path / "b" / "build.log").read_text().splitlines()[0]


def test_more_targets_than_a_command_holds_are_not_named() -> None:
    assert nameable(("a.o", "b.o"), 8) == ("a.o", "b.o")
    assert nameable(("a.o", "b.o"), 7) == ()
    assert nameable(()) == ()


def test_where_there_can_be_no_jobserver_ninja_gets_a_number(
    tmp_path: Path, modern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(jobserver.os, "mkfifo")
    make_project(tmp_path / "b", [Unit("a.o", 1, 10)])
    build(Told(str(tmp_path / "b"), 3, modern, room=4000))
    assert (tmp_path / "b" / "build.log").read_text().splitlines()[0].endswith("-j3")


def test_old_ninja_gets_a_number_and_new_a_jobserver(tmp_path: Path, ninja: str) -> None:
    make_project(tmp_path / "b", [Unit("a.o", 1, 10)])
    build(Told(str(tmp_path / "b"), 3, ninja, room=4000))
    first, *rest = (tmp_path / "b" / "build.log").read_text().splitlines()
    old = "1.11" in subprocess.run([ninja, "--version"], capture_output=True, text=True, check=True).stdout
    assert first.endswith("-j3") == old
    assert any("Jobserver mode detected" in line for line in rest) != old


# ---- broken off -------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="looks at /proc")
@pytest.mark.parametrize("kind", ["", "stubborn"])
def test_an_interrupt_ends_everything(tmp_path: Path, ninja: str, kind: str) -> None:
    units = [Unit(f"{number}.o", 5, 30_000, kind) for number in range(4)]
    make_project(tmp_path / "b", units)
    told = Told(str(tmp_path / "b"), 4, ninja, known(units), room=4000)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # As a terminal does it: to the tool's own group. Ninja has a session of its own.
    process = subprocess.Popen(build_command(told), env=env, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: len(compilers_of(tmp_path / "b")) == 8)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=LIMIT)
    wait_for(lambda: not compilers_of(tmp_path / "b"))
    found = json.loads(said)
    assert (found["code"], found["threads"]) == (130, 1)


def test_an_interrupt_while_the_governor_starts_leaves_no_thread(
    tmp_path: Path, modern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine compilers run before that thread does."""
    make_project(tmp_path / "b", [Unit("a.o", 5, 30_000)])
    order = make_order(Told(str(tmp_path / "b"), 4, modern, room=4000))
    real, here = threading.Thread.start, threading.current_thread()

    def room(used: int) -> int:
        if threading.current_thread() is not here:
            time.sleep(2)
        return 4000 * MIB

    def start(thread: threading.Thread) -> None:
        real(thread)
        if getattr(thread, "_target", None) and "_govern" in str(thread._target):  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        compile_all(replace(order, room=room), lambda _: None, Outcome())
    assert threading.active_count() == threads


@pytest.mark.parametrize("when", [1, 5])
def test_what_the_listener_raises_is_not_lost(tmp_path: Path, ninja: str, when: int) -> None:
    """It is told from the thread that governs: that must end the build, and say why."""
    units = [Unit(f"{number}.o", 5, 30_000) for number in range(4)]
    make_project(tmp_path / "b", units)
    order = make_order(Told(str(tmp_path / "b"), 4, ninja, known(units), room=4000))
    calls: list[Event] = []

    def tell(event: Event) -> None:
        calls.append(event)
        if len(calls) == when:
            raise BrokenPipeError("nobody listens")

    threads = threading.active_count()
    with pytest.raises(BrokenPipeError, match="nobody listens"):
        compile_all(order, tell, Outcome())
    assert len(calls) == when
    assert threading.active_count() == threads
    wait_for(lambda: not compilers_of(tmp_path / "b"))


def test_a_probe_of_memory_that_fails_is_not_lost_either(tmp_path: Path, ninja: str) -> None:
    make_project(tmp_path / "b", [Unit("a.o", 5, 30_000)])
    order = make_order(Told(str(tmp_path / "b"), 4, ninja, room=4000))

    def room(used: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no memory to be seen")
        return 4000 * MIB

    with pytest.raises(RuntimeError, match="no memory to be seen"):
        compile_all(replace(order, room=room), lambda _: None, Outcome())


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="looks at /proc")
def test_a_killed_ninja_is_a_want_of_memory_and_leaves_nobody_behind(tmp_path: Path, ninja: str) -> None:
    """Its jobs have process groups of their own: they would go on beside those of the next ninja."""
    units = [Unit(f"{number}.o", 5, 1500) for number in range(3)]
    make_project(tmp_path / "b", units)
    outcome, events = Outcome(), list[Event]()
    seen: list[int] = []

    def tell(event: Event) -> None:
        events.append(event)
        running = len(compilers_of(tmp_path / "b"))
        seen.append(running)
        if running == 6 and len(seen) == seen.index(6) + 1:
            parent = Path(f"/proc/{compilers_of(tmp_path / 'b')[0]}/stat").read_text().rpartition(")")[2]
            session = int(parent.split()[3])
            os.kill(session, signal.SIGKILL)

    order = make_order(Told(str(tmp_path / "b"), 3, ninja, known(units), room=4000))
    compile_all(order, tell, outcome)
    assert max(seen) == 6
    assert "a unit was ended for want of memory; from here on: one job at a time" in str(events)
    assert {span.unit for span in outcome.spans} == {unit.name for unit in units}
    # Then one at a time: a driver and its child.
    assert max(seen[seen.index(6) + 3 :]) == 2
