"""What the tests themselves stand on: what is made once, what is kept, and which tests are quick."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from needs import left_to_ci, never_quick
from sharing import kept_folder, once
from tool_environment import ROOT
from toolchains import quick_glslc


def test_without_pytests_cache_there_is_a_folder_all_the_same() -> None:
    """As with `pytest -p no:cacheprovider`."""
    nothing: Any = SimpleNamespace(cache=None)
    folder = kept_folder(nothing, "here")
    assert folder.is_dir()
    assert kept_folder(nothing, "here") == folder


def test_what_is_made_once_is_made_by_the_first(tmp_path: Path) -> None:
    made: list[Path] = []
    assert once(tmp_path / "a", made.append) == once(tmp_path / "a", made.append) == tmp_path / "a"
    assert made == [tmp_path / "a"]


def test_what_failed_for_the_first_is_not_tried_again(tmp_path: Path) -> None:
    tried: list[Path] = []

    def make(folder: Path) -> None:
        tried.append(folder)
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        once(tmp_path / "a", make)
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        once(tmp_path / "a", make)
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("arguments", "marker", "left"),
    [
        (["tests"], "", True),
        (["tests/build", "tests/native"], "not build", True),
        (["tests"], "ci", False),
        (["tests"], "build and ci", False),
        (["tests/build/test_kills.py"], "", False),
        (["tests/build/test_kills.py::test_killed_is_not_lost"], "", False),
        (["tests/build/test_kills.py", "tests/native"], "", True),
    ],
)
def test_who_asks_for_what_takes_minutes_gets_it(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], marker: str, left: bool
) -> None:
    monkeypatch.delenv("CI", raising=False)
    config: Any = SimpleNamespace(args=arguments, option=SimpleNamespace(markexpr=marker))
    assert left_to_ci(config) is left
    monkeypatch.setenv("CI", "true")
    assert not left_to_ci(config)


def test_what_needs_an_engine_or_a_compiler_is_not_even_read_for_the_quick_set() -> None:
    tests = ROOT / "tests"
    for name in (
        "build/test_kills.py",
        "build/test_compile.py",
        "native/test_batch.py",
        "native/test_fuzz.py",
    ):
        assert never_quick(tests / name), name
    for name in ("build/test_select.py", "build/test_hosts.py", "native/test_journal.py"):
        assert not never_quick(tests / name), name


@pytest.mark.slow
def test_a_file_stays_in_one_worker() -> None:
    """Whatever versions of pytest and pytest-xdist have made of groups."""
    pytest.importorskip("xdist")
    files = ("build/test_sizes.py", "build/test_settings.py")
    words = ["-m", "quick", "-k", "test_sizes or test_settings", "-v", "-n", "2", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", *words, str(ROOT / "tests")]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    ran = re.findall(r"^\[(gw\d)\].* tests/(\S+?)::", done.stdout, re.MULTILINE)
    assert {file for _, file in ran} >= set(files)
    for file in files:
        assert len({worker for worker, where in ran if where == file}) == 1, file


def test_the_linters_versions_stand_once() -> None:
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip(f"no {script}: it is part of a checkout alone")
    # Not in an extra: who has no access to its download cannot install it.
    assert [
        word for word in re.findall(r"[\w-]+==[\d.]+", script.read_text()) if "actionlint" not in word
    ] == []


@pytest.mark.skipif(sys.platform == "win32", reason="a script of the shell")
def test_a_shader_is_compiled_once_until_something_in_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real" / "glslc"
    real.parent.mkdir()
    # Writes what it reads, and that it ran.
    real.write_text(
        f"#!/bin/sh\necho ran >> {tmp_path}/runs\n"
        "for word; do case $word in *.spv) made=$word ;; *.comp) shader=$word ;; esac; done\n"
        '[ -z "$shader" ] || cp "$shader" "$made"\n'
    )
    real.chmod(0o755)
    monkeypatch.setenv("PATH", str(real.parent), prepend=os.pathsep)
    kept = tmp_path / "kept"
    kept.mkdir()
    program = Path(quick_glslc(kept)["PATH"].split(os.pathsep)[0]) / "glslc"

    def runs(*words: str, folder: str = "a") -> int:
        command = [program, "-O", *words, tmp_path / folder / "add.comp", "-o", tmp_path / "add.spv"]
        subprocess.run([*command, "-MF", tmp_path / "add.d"], check=True)
        assert (tmp_path / "add.spv").read_text() == (tmp_path / folder / "add.comp").read_text()
        return len((tmp_path / "runs").read_text().split())

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "add.comp").write_text("void main() {}")
        (tmp_path / folder / "types.glsl").write_text("#define A 1")
    assert [runs(), runs(), runs(folder="b")] == [1, 1, 1]
    assert runs("-DA=2") == 2
    (tmp_path / "b" / "types.glsl").write_text("#define A 3")
    assert [runs(folder="b"), runs()] == [3, 3]
    (tmp_path / "a" / "add.comp").write_text("void main() { }")
    assert runs() == 4
    # What is no shader goes through.
    subprocess.run([program, "--version"], check=True)
    assert runs() == 5
