"""What the command line says of what it cannot take: one sentence, the right exit code."""

from __future__ import annotations

import _ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import gguf_files
import pytest
from floatllm import Model, ModelError
from installed import Installed


def _refused(engine: Installed, code: int, *arguments: object) -> str:
    done = engine.run(*arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("floatllm")
    assert "Traceback" not in done.stderr
    return lines[0]


def _bad(kind: str, folder: Path, tiny: Path) -> Path:
    path = folder / "bad.gguf"
    size = tiny.stat().st_size
    if kind == "missing":
        return folder / "nothing-here.gguf"
    if kind == "directory":
        return folder
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "magic alone":
        gguf_files.truncated(path, tiny, 4)
    elif kind == "truncated header":
        gguf_files.truncated(path, tiny, gguf_files.data_start(tiny) // 2)
    elif kind == "truncated data":
        gguf_files.truncated(path, tiny, size - size // 4)
    elif kind == "not a GGUF":
        gguf_files.not_gguf(path)
    elif kind == "version 99":
        data = bytearray(tiny.read_bytes())
        data[4] = 99
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("command", ["inspect", "plan", "map", "run"])
@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "directory",
        "empty",
        "magic alone",
        "truncated header",
        "truncated data",
        "not a GGUF",
        "version 99",
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(
    engine: Installed, tmp_path: Path, tiny: Path, command: str, kind: str
) -> None:
    path = _bad(kind, tmp_path, tiny)
    prompt = ("-p", "hi") if command == "run" else ()
    said = _refused(engine, 7, command, path, *prompt)
    assert path.name in said
    with pytest.raises(ModelError):
        Model.open(path)


def test_each_cut_of_the_header_is_refused(engine: Installed, tmp_path: Path, tiny: Path) -> None:
    start = gguf_files.data_start(tiny)
    for size in [*range(64), *range(64, start, 97), start - 1]:
        with pytest.raises(ModelError):
            Model.open(gguf_files.truncated(tmp_path / "cut.gguf", tiny, size))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(engine: Installed, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    _refused(engine, 7, "inspect", tmp_path / "pipe.gguf")


def test_an_architecture_that_is_not_computed_is_refused_by_name(engine: Installed, image_like: Path) -> None:
    assert "tinyvision" in _refused(engine, 7, "plan", image_like)
    assert engine.run("plan", image_like, "--mode", "map").returncode == 0
    assert engine.run("map", image_like).returncode == 0


def test_a_model_without_a_tokenizer_cannot_take_text(engine: Installed, made: Callable[..., Path]) -> None:
    assert "tokenizer" in _refused(engine, 7, "run", made(), "-p", "hello")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--memory", "many"), 2, "'many' is not a size"),
        (("--memory", "64K"), 8, "smallest that works"),
        (("--chunk", "1K"), 2, "chunk"),
        (("--device", "Abacus0"), 3, "Abacus0"),
        (("--threads", "-2"), 2, "threads is -2"),
        (("--threads", "9999"), 2, "threads is 9999"),
        (("--threads", "two"), 2, "--threads"),
        (("--ctx", "0"), 2, "ctx is 0"),
        (("--nonsense",), 2, "--nonsense"),
    ],
)
def test_arguments_that_cannot_be_met(
    engine: Installed, tiny: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert said in _refused(engine, code, "plan", tiny, *arguments)


def test_a_chunk_too_small_names_one_that_is_not(engine: Installed, tiny: Path) -> None:
    said = _refused(engine, 2, "plan", tiny, "--chunk", "1")
    named = int(said.rpartition("--chunk ")[2].partition("K or more")[0])
    assert engine.run("plan", tiny, "--chunk", f"{named}K").returncode == 0
    assert f"--chunk {named}K or more" in _refused(engine, 2, "plan", tiny, "--chunk", f"{named - 1}K")


def test_an_option_that_a_command_lacks_leads_to_its_own_help(engine: Installed) -> None:
    said = _refused(engine, 2, "batch", "model", "in", "out", "more", "-x")
    assert said == "floatllm batch: unrecognized arguments: more -x; see `floatllm batch --help`."
    said = _refused(engine, 2, "batch", "model", "in", "out", "--chat")
    assert said == "floatllm batch: unrecognized arguments: --chat; see `floatllm batch --help`."


@pytest.mark.parametrize("prompt", ["--- a diff line", "-- be quiet", "--memroy is a slip"])
def test_a_prompt_that_begins_with_dashes_is_a_prompt(engine: Installed, prompt: str) -> None:
    assert "none.gguf" in _refused(engine, 7, "run", "none.gguf", "-p", prompt)


def test_a_slip_in_an_option_is_told_before_what_is_missing(engine: Installed) -> None:
    said = _refused(engine, 2, "run", "model", "--memroy", "64M")
    assert said == (
        "floatllm run: unrecognized arguments: --memroy (did you mean --memory?); see `floatllm run --help`."
    )


def test_no_command_is_a_usage_error(engine: Installed) -> None:
    done = engine.run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: floatllm" in done.stderr


def test_a_name_with_control_characters_does_not_reach_the_terminal(
    engine: Installed, tmp_path: Path
) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows takes no control characters in names")
    said = _refused(engine, 7, "inspect", tmp_path / "a\x1b[31m\nb.gguf")
    assert "\x1b" not in said


def test_a_missing_library_names_the_command(engine: Installed, tmp_path: Path) -> None:
    nowhere = Installed(engine.python, {**engine.env, "FLOATLLM_LIBRARY": str(tmp_path / "lib.so")})
    assert "floatllm-build install" in _refused(nowhere, 3, "devices")
    (tmp_path / "lib.so").write_bytes(b"not a library")
    assert "floatllm-build install" in _refused(nowhere, 3, "devices")


def test_a_library_of_another_kind_is_not_used(engine: Installed) -> None:
    # Any shared library that is not ours: Python has some of its own.
    other = Installed(engine.python, {**engine.env, "FLOATLLM_LIBRARY": _ctypes.__file__})
    assert "not the engine's library" in _refused(other, 3, "devices")


def test_a_library_in_the_current_folder_is_not_used(
    engine: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("libfloatllm.so", "libfloatllm.dylib", "floatllm.dll", "libggml-cpu.so"):
        (tmp_path / name).write_bytes(b"not a library")
    monkeypatch.chdir(tmp_path)
    hijack = Installed(engine.python, {**engine.env, "LD_LIBRARY_PATH": str(tmp_path)})
    assert hijack.run("devices").returncode == 0
