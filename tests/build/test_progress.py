"""What a build shows while it runs: the events of one, played on a terminal and into a file."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from rich.console import Console
from tool_environment import ROOT

from floatllm_build.events import BuildSummary, Event, Hint, StepDone, StepStarted, UnitProgress
from floatllm_build.render.bar import LiveBar
from floatllm_build.render.progress import listening
from floatllm_build.sizes import GIB, MIB

OPS = "ggml/src/ggml-cpu/ops.cpp"
# As a build of 20 units on two CPUs tells it.
BUILD: list[Event] = [
    StepStarted("build"),
    UnitProgress(0, 20, "", 0.0, 3 * MIB, 2 * GIB, 2),
    *(UnitProgress(0, 20, OPS, second / 10, 300 * MIB, 2 * GIB, 2) for second in range(1, 100)),
    *(UnitProgress(done, 20, OPS, done * 10.0, 310 * MIB, 2 * GIB, 2, 200.0 - done) for done in range(1, 19)),
    Hint("ops.cpp was ended for want of memory; from here on: one job at a time"),
    UnitProgress(19, 20, "libfloatllm.so", 191.0, 64 * MIB, 1 * GIB, 1, 4.2),
    UnitProgress(20, 20, "", 195.0, 0, 1 * GIB, 1),
    BuildSummary(((OPS, 21.4), ("a.cpp", 3.0)), ((OPS, 382 * MIB), ("a.cpp", 0))),
    StepDone("build", "20 units in 195 s"),
]


def played(events: list[Event], width: int) -> str:
    """On a terminal of that width."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=True,
        width=width,
        highlight=False,
        soft_wrap=True,
        color_system=None,
        _environ={"TERM": "xterm"},
    )
    shown = LiveBar(console)
    try:
        for event in events:
            shown(event)
            shown.bar.refresh()
    finally:
        shown.close()
    return stream.getvalue()


def logged(events: list[Event]) -> str:
    """In a file."""
    stream = io.StringIO()
    with redirect_stderr(stream), listening() as tell:
        for event in events:
            tell(event)
    return stream.getvalue()


def test_plain_lines_one_for_each_tenth() -> None:
    lines = logged(BUILD).splitlines()
    assert len([line for line in lines if re.match(r"build +\d+/20", line)]) == 10
    assert lines[:2] == [
        "build    cmake configures",
        f"build    2/20 {OPS} (20 s, 310 MiB of 2.0 GiB, 2 jobs, 3 min left)",
    ]
    assert lines[-4:] == [
        "build    20/20 (195 s)",
        f"slowest  {OPS} 21 s, a.cpp 3 s",
        f"hungry   {OPS} 382 MiB",
        "build    20 units in 195 s",
    ]
    assert "ops.cpp was ended for want of memory; from here on: one job at a time" in lines


def test_nobody_waits_for_a_line_longer_than_half_a_minute() -> None:
    seen = [UnitProgress(3, 46, OPS, float(second), 64 * MIB, 1 * GIB, 1) for second in range(100)]
    lines = logged(seen).splitlines()
    assert [line.partition("(")[2].partition(" s")[0] for line in lines] == ["30", "60", "90"]


def test_seconds_are_said_when_few_are_left() -> None:
    now = UnitProgress(19, 20, "libfloatllm.so", 191.0, 64 * MIB, 1 * GIB, 1, 4.2)
    assert logged([now]) == ("build    19/20 libfloatllm.so (191 s, 64.0 MiB of 1.0 GiB, 1 job, 4 s left)\n")


def test_where_nothing_could_be_seen_nothing_is_claimed() -> None:
    """As on macOS and Windows, where there is no /proc."""
    events: list[Event] = [UnitProgress(10, 10, "", 3.0, 0, GIB, 2), BuildSummary((("a.cpp", 3.0),), ())]
    assert logged(events) == "build    10/10 (3 s)\nslowest  a.cpp 3 s\n"
    assert logged([BuildSummary((), ()), UnitProgress(0, 0, "", 0.0)]) == ""


_LISTENS = """
import sys
from floatllm_build.events import UnitProgress
from floatllm_build.render.progress import listening
with listening() as tell:
    tell(UnitProgress(10, 10, "", 3.0, 0, 1, 2))
    tell.put("said", "\N{MULTIPLICATION SIGN}")
print("rich" in sys.modules)
"""


def listens(stderr: int, **variables: str) -> str:
    words = [sys.executable, "-c", _LISTENS]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        env.pop(name, None)
    return subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True).stdout


def test_without_a_terminal_no_rich_is_loaded(tmp_path: Path) -> None:
    """It takes three megabytes that compilers may need."""
    with (tmp_path / "said").open("wb") as file:
        assert listens(file.fileno(), PYTHONIOENCODING="ascii") == "False\n"
    assert (tmp_path / "said").read_text() == "build    10/10 (3 s)\nsaid     x\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
@pytest.mark.parametrize(("terminal", "bar"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_can_draw_no_bar_gets_lines(terminal: str, bar: bool) -> None:
    ours, theirs = os.openpty()
    try:
        assert listens(theirs, TERM=terminal) == "True\n"
        said = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert ("build    10/10 (3 s)" in said) is not bar
    assert ("\x1b[" in said) is bar


@pytest.mark.parametrize("width", [30, 40, 80, 120, 200])
def test_the_bar_is_one_line_however_narrow_the_terminal(width: int) -> None:
    text = played(BUILD, width)
    # What the bar draws over itself; rich goes up a line for each further one.
    assert "\x1b[1A" not in text
    bars = [
        part for part in re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)) if "/20" in part
    ]
    assert bars
    assert max(map(len, bars)) <= width


def test_the_bar_shows_all_of_it_where_there_is_room() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", played(BUILD, 160))
    assert f"310 MiB of 2.0 GiB, 2 jobs, 3 min left, {OPS}" in text
    assert "19/20" in text
    assert "64.0 MiB of 1.0 GiB, 1 job, 4 s left, libfloatllm.so" in text
    assert "slowest" in text
    assert "ops.cpp was ended for want of memory" in text
