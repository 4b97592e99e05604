"""Ctrl-C, a polite kill, a closed terminal, at several moments of an install: nothing goes on behind it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
from running import LIMIT, Place, Running, working_in
from tool_environment import ROOT

pytestmark = [
    pytest.mark.ci,
    pytest.mark.build,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]

# Moment -> (what is deleted so that it comes, the line after which it is, seconds after that).
MOMENTS = {
    "probe": ((), "", 0.3),
    "fetch": (("ggml", "wheels"), "plan ", 0.6),
    "compile": (("objects", "wheels"), "ggml ", 3.5),
    "verify": (("wheels",), "package ", 0.2),
    "replace": (("installed", "wheels"), "verify ", 0.4),
}
# Starts a program on a terminal of its own, as a terminal's window does.
ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def ended_whole(place: Place, run: Running) -> int:
    """The exit status, once it is sure that no child is left."""
    began = time.monotonic()
    status = run.wait()
    # A second is promised on a machine that has nothing else to do.
    sys.stdout.write(f"{time.monotonic() - began:.2f} s\n")
    assert working_in(place.cache) == {}
    return status


def goes_on(place: Place) -> str:
    done = place.install()
    assert done.returncode == 0, done.stderr
    assert place.is_whole()
    assert place.works()
    return done.stderr


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        *((signal.SIGINT, moment) for moment in MOMENTS),
        (signal.SIGTERM, "fetch"),
        (signal.SIGTERM, "compile"),
        (signal.SIGHUP, "compile"),
    ],
)
def test_an_interrupt_stops_all_and_the_next_install_goes_on(
    place: Place, number: signal.Signals, moment: str
) -> None:
    deleted, mark, later = MOMENTS[moment]
    for _ in range(3):
        for what in deleted:
            place.delete(what)
        former = place.engine()
        with place.started() as run:
            assert run.wait_for(mark)
            assert run.sleep(later), run.said
            run.signal_group(number)
            # What replaces the engine is waited for, or there would be none.
            status = ended_whole(place, run)
        # Beside other work it may come when the tool is about to end by itself, or has hardly begun: again.
        if status != -number:
            break
    assert status == 130, run.said
    assert "interrupted. Run it again to go on where it stopped." in run.said
    assert "Traceback" not in run.said
    assert place.engine() == former or (moment == "replace" and place.is_whole())
    said = goes_on(place)
    if moment == "compile":
        units = re.search(r"build +(\d+) units in", said)
        assert units
        assert int(units[1]) < 30, "it began anew"


@pytest.mark.parametrize("how", ["", "2>&-"])
def test_one_before_the_command_has_begun(how: str) -> None:
    code = (
        "import floatllm_build.cli as c, floatllm_build.__main__ as m\n"
        "def main(): raise KeyboardInterrupt\n"
        "c.main = main\nm.main()"
    )
    words = ["sh", "-c", f'exec "$@" {how}', "sh", sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    said = "" if how else "floatllm-build: interrupted. Run it again to go on where it stopped.\n"
    assert (done.returncode, done.stderr) == (130, said)


def test_impatience_changes_nothing(place: Place) -> None:
    """Ctrl-C three times, and then the children are gone all the same."""
    for what in MOMENTS["compile"][0]:
        place.delete(what)
    with place.started() as run:
        assert run.wait_for("ggml ")
        assert run.sleep(5.0), run.said
        for _ in range(3):
            run.signal_group(signal.SIGINT)
            time.sleep(0.02)
        assert ended_whole(place, run) == 130
    assert "Traceback" not in run.said
    goes_on(place)


@pytest.mark.parametrize("how", ["Ctrl-C", "closed"])
def test_a_real_terminal(place: Place, how: str) -> None:
    for what in MOMENTS["compile"][0]:
        place.delete(what)
    ours, theirs = pty.openpty()
    tool = str(place.env.python.parent / "floatllm-build")
    child = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, tool, *map(str, place.arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=place.folder,
        env={**place.env.env, **place.variables, "TERM": "xterm"},
    )
    os.close(theirs)
    said = b""
    ends = time.monotonic() + LIMIT
    while not re.search(rb" [1-9]\d?/\d\d", said):
        assert child.poll() is None, said.decode(errors="replace")
        assert time.monotonic() < ends
        try:
            said += os.read(ours, 65536)
        except OSError:  # it has ended
            pytest.fail(said.decode(errors="replace"))
    if how == "Ctrl-C":
        os.write(ours, b"\x03")
        # Someone has to read, or the terminal is full.
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:
            pass
    os.close(ours)
    assert child.wait(LIMIT) in ({130} if how == "Ctrl-C" else {130, 120, 1, 3})
    assert working_in(place.cache) == {}
    if how == "Ctrl-C":
        assert b"interrupted. Run it again" in said
    assert b"Traceback" not in said
    goes_on(place)
