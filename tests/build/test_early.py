"""What is wrong in a request is said at once, and not once another build has given the cache free."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tool_environment import closed_folder, tool

from floatllm_build.lock import cache_lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="starts the tool beside a held lock")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--preset", "foo"), "There is no preset `foo`"),
        (("--backend", "foo"), "'foo' is not one of"),
        (("--memory", "much"), "much"),
        (("--memory", "5M"), "--memory is 5.0 MiB"),
        (("--jobs", "0"), "`0` is no number of jobs. Write one from 1 on."),
        (("--architectures", "foo"), "`foo` is no architecture"),
        (("--backend", "cuda", "--preset", "cpu"), "These options contradict each other"),
        (("--preset", "cuda", "--low-mem"), "is no low-memory preset"),
        (("--preset", "android-ndk-arm64"), "is for another machine"),
        (("--ggml-dir", "/nowhere"), "/nowhere is not the source of llama.cpp"),
        (("--trace", "/nowhere/file"), "The timeline cannot be written"),
    ],
)
def test_a_name_that_makes_no_sense_does_not_wait_for_the_lock(
    tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    with cache_lock(tmp_path, lambda _: None):
        for command in (("install", "--python", sys.executable), ("wheel", "--out", str(tmp_path / "out"))):
            done = tool(*command, *arguments, FLOATLLM_CACHE_DIR=str(tmp_path), COLUMNS="200")
            assert done.returncode == 2, done.stderr
            assert told in done.stderr
            assert "waiting" not in done.stderr


@pytest.mark.parametrize("name", ["", "below"])
def test_a_folder_for_the_wheel_that_cannot_be_written_is_told_before_the_build(
    tmp_path: Path, name: str
) -> None:
    out = closed_folder(tmp_path) / name
    with cache_lock(tmp_path, lambda _: None):
        done = tool("wheel", "--out", out, FLOATLLM_CACHE_DIR=str(tmp_path), COLUMNS="200")
    assert done.returncode == 3, done.stderr
    assert str(out) in done.stderr
    assert "with --out" in done.stderr
    assert "FLOATLLM_CACHE_DIR" not in done.stderr
    assert "waiting" not in done.stderr


@pytest.mark.parametrize("command", [("detect", "--save"), ("report", "--out"), ("install", "--trace")])
def test_a_file_to_write_is_looked_at_before_the_work(tmp_path: Path, command: tuple[str, ...]) -> None:
    """A folder that is not there is a wrong name, and is not made; one that takes no file is a lack."""
    for folder, status, why in (
        (tmp_path / "none", 2, "there is no folder"),
        (closed_folder(tmp_path), 3, "takes no file"),
    ):
        with cache_lock(tmp_path, lambda _: None):
            done = tool(*command, folder / "f.zip", FLOATLLM_CACHE_DIR=str(tmp_path), COLUMNS="200")
        assert done.returncode == status, done.stderr
        assert f"{why} {folder}" in done.stderr or f"{folder} {why}" in done.stderr
        assert done.stdout == ""
        assert "waiting" not in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_number_of_jobs_that_is_none_is_told_in_plain_words(tmp_path: Path) -> None:
    done = tool("plan", FLOATLLM_CACHE_DIR=str(tmp_path), FLOATLLM_JOBS="abc", COLUMNS="200")
    assert done.returncode == 2, done.stderr
    assert "FLOATLLM_JOBS" in done.stderr
    assert "`abc` is no number of jobs. Write one from 1 on." in done.stderr
    assert "int range" not in done.stderr


def test_an_option_of_cmake_that_cannot_be_read_does_not_wait_either(tmp_path: Path) -> None:
    with cache_lock(tmp_path, lambda _: None):
        done = tool("wheel", "--out", tmp_path / "out", FLOATLLM_CACHE_DIR=str(tmp_path), CMAKE_ARGS="-DX='1")
        assert done.returncode == 2, done.stderr
        assert "Close its quotes" in done.stderr


def test_a_slip_in_the_name_of_a_variable_asks_for_no_other_build(tmp_path: Path) -> None:
    for command in (("plan",), ("detect",), ("wheel", "--out", str(tmp_path / "out"))):
        done = tool(*command, FLOATLLM_CACHE_DIR=str(tmp_path), FLOATLLM_BACKND="cuda")
        assert done.returncode == 2, done.stderr
        assert "There is no variable FLOATLLM_BACKND. Did you mean FLOATLLM_BACKEND?" in done.stderr
