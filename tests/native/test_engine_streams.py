"""Standard streams of every kind: terminals that obey, closed ones, full ones, and readers that left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import gguf_files
import pytest
from floatllm import Model
from floatllm.render import harmless
from installed import Installed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals and shells")

_HOSTILE = "\x1b]52;c;ZXZpbA==\x07\x1b[31m\x9b2J\u202e"


def _in_terminal(engine: Installed, *arguments: object, stderr: bool = False) -> str:
    """What a terminal gets on stdout, or on stderr, of a command that ends with 0."""
    ours, theirs = os.openpty()
    streams = {"stdout": subprocess.DEVNULL, "stderr": theirs} if stderr else {"stdout": theirs}
    with subprocess.Popen(engine.command(*arguments), env=engine.env, **streams) as child:
        os.close(theirs)
        found = b""
        # Linux ends a terminal whose other side is closed with an error.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                found += piece
        assert child.wait() == 0
    os.close(ours)
    # The terminal itself makes \r\n of each \n.
    return found.decode().replace("\r\n", "\n")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that can say nothing but what a terminal obeys."""
    symbols = gguf_files.byte_symbols()
    said = ["".join(symbols[byte] for byte in f"{_HOSTILE}{place}".encode()) for place in range(256)]
    said[ord("a")] = "a"
    monkeypatch.setattr(gguf_files, "byte_symbols", lambda: said)
    return gguf_files.llama(tmp_path / "hostile.gguf", gguf_files.Llama(tokenizer=True))


def test_a_terminal_obeys_nothing_that_a_model_says(engine: Installed, hostile: Path) -> None:
    command = ("run", hostile, "-p", "a", "-n", 3, "--ctx", 64, "--device", "CPU")
    raw = engine.run(*command)
    assert raw.returncode == 0, raw.stderr
    # A file gets what the model said.
    assert raw.stdout.count(_HOSTILE) >= 2
    shown = _in_terminal(engine, *command)
    assert shown == harmless(raw.stdout) + "\n"
    assert r"\x1b]52;c;ZXZpbA==\x07\x1b[31m\x9b2J\u202e" in shown
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_what_is_said_on_stderr_is_harmless(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    done = engine.run("devices", "\x1b[31m\x9b")
    assert (done.returncode, done.stdout) == (2, "")
    assert r"\x1b[31m\x9b" in done.stderr
    (tmp_path / "in").write_text('{"tokens": [1], "max_tokens": 1}\n')
    out = tmp_path / "out\x1b[31m"
    said = _in_terminal(engine, "batch", tiny, tmp_path / "in", out, "--device", "CPU", stderr=True)
    assert "1/1 done" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zwölf Boxkämpfer\n\tjagen", "Zwölf Boxkämpfer\n\tjagen"),
        ("👩‍💻🏴󠁧󠁢󠁳󠁣󠁴󠁿 می‌خواهم\u200f שלום\xa0\u3000x\xad", "👩‍💻🏴󠁧󠁢󠁳󠁣󠁴󠁿 می‌خواهم\u200f שלום\xa0\u3000x\xad"),
        ("\x00\x08\x0b\x1b\x7f", r"\x00\x08\x0b\x1b\x7f"),
        ("\x80\x85\x9b\x9d\x9f", r"\x80\x85\x9b\x9d\x9f"),
        ("\u202a\u202e\u2066\u2069", r"\u202a\u202e\u2066\u2069"),
        ("a\r\nb\u2028c", "a\\r\nb\\u2028c"),
    ],
)
def test_letters_of_all_languages_stay_and_nothing_is_obeyed(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_characters_that_come_in_pieces_are_whole_and_harmless(engine: Installed, tiny: Path) -> None:
    text = "é\x9b2J👩‍💻\x1b]0;x\x07"
    with Model.open(tiny) as model:
        decoder = model.tokenizer.decoder()
        # One token for each byte.
        shown = "".join(harmless(decoder.push(byte)) for byte in text.encode())
        assert shown + harmless(decoder.finish()) == r"é\x9b2J👩‍💻\x1b]0;x\x07"


_SENTENCE = re.compile(r"floatllm: .*\n")
_NOTHING_WRONG = ("Traceback", "Exception ignored", "lost sys.stderr")


@pytest.mark.parametrize(
    ("redirection", "unbuffered", "said"),
    [
        ("1>&-", "", True),
        ("1>/dev/full", "", True),
        ("1>/dev/full", "1", True),
        ("1</dev/null", "", True),
        ("0<&- 1>&-", "1", True),
        ("1>&- 2>&-", "", False),
        ("1>/dev/full 2>/dev/full", "", False),
        ("0<&- 1>&- 2>&-", "", False),
    ],
)
def test_what_cannot_be_written_is_said_and_ends_with_8(
    engine: Installed, tiny: Path, redirection: str, unbuffered: str, said: bool
) -> None:
    for command in _commands(tiny):
        done = _shell(engine, command, redirection, unbuffered)
        assert done.returncode == 8, (command, done.stderr)
        assert done.stdout == ""
        assert bool(_SENTENCE.search(done.stderr)) is said, (command, done.stderr)
        assert done.stderr.count("cannot be written") == said


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2</dev/null", "0<&-", "0<&- 2>&-"])
def test_what_cannot_be_told_stops_nothing(engine: Installed, tiny: Path, redirection: str) -> None:
    for command in _commands(tiny):
        expected = _shell(engine, command, "")
        done = _shell(engine, command, redirection)
        assert done.returncode == 0, (command, done.stderr)
        # Free memory differs from moment to moment.
        if command[0] != "devices":
            assert done.stdout == expected.stdout
        assert len(done.stdout.splitlines()) == len(expected.stdout.splitlines())
        assert not any(wrong in done.stderr for wrong in _NOTHING_WRONG)
    wrong = _shell(engine, ("inspect", tiny.parent / "nowhere"), redirection)
    assert (wrong.returncode, wrong.stdout) == (7, "")
    for usage in (("nonsense",), ("devices", "--nonsense"), ()):
        assert _shell(engine, usage, redirection).returncode == 2


def _commands(model: Path) -> list[tuple[object, ...]]:
    """Some that print at once, one that prints in pieces, and one whose log goes to stderr."""
    generate = ("run", model, "-p", "a", "-n", 3, "--ctx", 64, "--device", "CPU", "-vv")
    return [("--help",), ("--version",), ("devices", "--json"), ("map", model, "--device", "CPU"), generate]


def _shell(
    engine: Installed, command: tuple[object, ...], redirection: str, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *engine.command(*command)],
        env={**engine.env, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_batch_needs_neither_stdout_nor_stderr_and_keeps_both_out_of_its_files(
    engine: Installed, tiny: Path, tmp_path: Path
) -> None:
    rows = [{"tokens": [1 + row], "max_tokens": 2} for row in range(3)]
    (tmp_path / "in").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for place, redirection in enumerate(("", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "1>/dev/full 2>/dev/full")):
        out = tmp_path / f"out{place}"
        command = ("batch", tiny, tmp_path / "in", out, "--device", "CPU", "--threads", 1, "-vv")
        done = _shell(engine, command, redirection)
        assert done.returncode == 0, done.stderr
        assert out.read_bytes() == (tmp_path / "out0").read_bytes()


def test_a_prompt_from_a_stdin_that_is_closed_is_told(engine: Installed, tiny: Path) -> None:
    for redirection, why in (("0<&-", "closed"), ("0>/dev/null", "cannot be read")):
        done = _shell(engine, ("run", tiny, "-p", "-"), redirection)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_left(engine: Installed, tiny: Path, stream: str) -> None:
    for command in _commands(tiny):
        with subprocess.Popen(
            engine.command(*command), env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            left, other = (child.stdout, child.stderr)[:: 1 if stream == "stdout" else -1]
            assert left is not None
            assert other is not None
            left.close()
            said = other.read().decode()
            assert child.wait() == (141 if stream == "stdout" else 0), (command, said)
            assert not any(wrong in said for wrong in _NOTHING_WRONG)


def test_a_self_test_that_cannot_tell_says_so(engine: Installed) -> None:
    command = [engine.python, "-m", "floatllm.selftest", "--device", "CPU"]
    done = subprocess.run(
        ["sh", "-c", '"$@" >/dev/full', "sh", *command],
        env=engine.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 8
    assert _SENTENCE.fullmatch(done.stderr)
