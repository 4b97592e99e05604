"""Ninja's output, whole or in pieces, on a terminal or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from floatllm_build.build_folder import Folder, failure
from floatllm_build.ninja import NinjaReader, Progress, first_errors, unit_name

TERMINAL = (
    "[0/3/1] Building CXX object CMakeFiles/floatllm.dir/src/plan.cpp.o\x1b[K\r"
    "[0/3/2] Building C object ggml/src/CMakeFiles/ggml-base.dir/ggml.c.o\x1b[K\r"
    "[1/3/2] Building CXX object CMakeFiles/floatllm.dir/src/plan.cpp.o\x1b[K\r\n"
    "warning: something\r\n"
    "[2/3/3] Linking CXX shared library libfloatllm.so\x1b[K"
)


def test_starts_and_ends_are_progress_and_only_ends_are_logged() -> None:
    reader = NinjaReader()
    seen = reader.feed(TERMINAL)
    reader.close()
    assert seen[0] == Progress(0, 3, "src/plan.cpp")
    assert seen[1] == Progress(0, 3, "ggml/src/ggml.c")
    assert [progress.done for progress in seen] == [0, 0, 1]
    assert reader.done == 2
    assert reader.take_log() == (
        "[1/3] Building CXX object CMakeFiles/floatllm.dir/src/plan.cpp.o\n"
        "warning: something\n"
        "[2/3] Linking CXX shared library libfloatllm.so\n"
    )
    assert reader.take_log() == ""


def test_pieces_of_any_size_give_the_same() -> None:
    whole, pieces = NinjaReader(), NinjaReader()
    expected = whole.feed(TERMINAL)
    assert [progress for letter in TERMINAL for progress in pieces.feed(letter)] == expected
    assert pieces.take_log() == whole.take_log()


@pytest.mark.parametrize(
    ("description", "name"),
    [
        (
            "Building CXX object ggml/src/CMakeFiles/ggml-cpu.dir/ggml-cpu/ops.cpp.o",
            "ggml/src/ggml-cpu/ops.cpp",
        ),
        ("Building CXX object CMakeFiles\\x.dir\\a.cpp.obj", "CMakeFiles\\x.dir\\a.cpp"),
        ("Linking CXX shared library libfloatllm.so", "libfloatllm.so"),
        ("Re-running CMake...", "CMake..."),
        ("something else", "something else"),
    ],
)
def test_names_of_units(description: str, name: str) -> None:
    assert unit_name(description) == name


@pytest.mark.parametrize(
    ("log", "first"),
    [
        ("[1/2] a\nFAILED: b.o\ng++ ...\nb.cpp:1:2: error: no\nmore\n", "b.cpp:1:2: error: no"),
        (
            "x\nc++: fatal error: Killed signal terminated program cc1plus\n",
            "c++: fatal error: Killed signal",
        ),
        ("-- a\nCMake Error at x.cmake:3 (message):\n  No ggml source\n", "CMake Error at x.cmake:3"),
        ("FAILED: b.o\nsilence\n", "FAILED: b.o"),
        ("one\ntwo\n", "one"),
        (
            "a.o: in function `f':\na.c:(.text): undefined reference to `g'\n",
            "a.c:(.text): undefined reference",
        ),
    ],
)
def test_the_first_errors_of_a_log(log: str, first: str) -> None:
    assert first_errors(log)[0].startswith(first)


def test_what_cmake_says_stays_together() -> None:
    log = "-- a\nCMake Error at x.cmake:3 (message):\n  No ggml source\n  Run fetch\n"
    assert first_errors(log)[:3] == ("CMake Error at x.cmake:3 (message):", "  No ggml source", "  Run fetch")


def test_a_full_disk_is_said_with_what_to_do(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    full = str(failure("Compiling", "c++: fatal error: x.s: No space left on device\n", folder))
    assert "FLOATLLM_CACHE_DIR" in full
    assert "No space left" in full
    assert "disk is full" not in str(failure("Compiling", "x.c:1: error: no\n", folder))
