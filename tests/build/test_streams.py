"""The tool with streams that are closed, full, or read by nobody: the documented status, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tool_environment import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells")

_PRINTING = (("matrix", "--json"), ("--help",))


def _run(*command: str, how: str = "", unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "bash",
            "-c",
            f'set -o pipefail; "$@" {how}',
            "bash",
            sys.executable,
            "-m",
            "floatllm_build",
            *command,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("how", "unbuffered", "said"),
    [
        ("1>&-", "", True),
        ("1>/dev/full", "", True),
        ("1>/dev/full", "1", True),
        ("0<&- 1>&-", "", True),
        ("1>&- 2>&-", "", False),
        ("1>/dev/full 2>/dev/full", "", False),
    ],
)
def test_what_stdout_does_not_take_is_said_and_ends_with_3(how: str, unbuffered: str, said: bool) -> None:
    for command in _PRINTING:
        done = _run(*command, how=how, unbuffered=unbuffered)
        assert (done.returncode, done.stdout) == (3, ""), (command, done.stderr)
        told = ("floatllm-build: The output cannot be written: ", "floatllm-build: The system refused: ")
        assert done.stderr.startswith(told) is said
        assert done.stderr.count("\n") == said


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "0<&-", "0<&- 2>&-"])
def test_what_stderr_does_not_take_stops_nothing(how: str) -> None:
    done = _run("matrix", "--json", how=how)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["include"]
    assert _run("nonsense", how=how).returncode == 2
    # An error of the tool's own keeps its status.
    assert _run("plan", "--from", "/nowhere", how=how).returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_ends_it_quietly(unbuffered: str) -> None:
    for command in _PRINTING:
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "floatllm_build", *command],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (141, "")


def test_a_path_that_is_no_text_comes_out_as_it_is_and_a_terminal_obeys_none() -> None:
    """As `wheel --out` writes a folder's name that is no UTF-8: a script has to find the file."""
    begin = "from floatllm_build.streams import Streams, write_paths; Streams(); write_paths"
    code = begin + "(['w\\udcff'])"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"w\xff\n"), done.stderr
    env["PYTHONIOENCODING"] = "ascii:strict"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"w\\udcff\n"), done.stderr
    pty = "import pty, sys; pty.spawn([sys.executable, '-c', sys.argv[1]])"
    shown = begin + "(['x\\x1b]0;OWNED\\x07'])"
    done = subprocess.run([sys.executable, "-c", pty, shown], env=env, capture_output=True, check=False)
    assert b"\\x1b]0;OWNED" in done.stdout
    assert b"\x1b" not in done.stdout
