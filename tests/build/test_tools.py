"""Programs in an environment that pip makes for one build: cmake and ninja are kept, its own pip is found."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from machines import PC

from floatllm_build import tools
from floatllm_build.pip import Fetched, own_pip
from floatllm_build.system import Completed, LiveSystem
from floatllm_build.tools import read_tools, with_tools
from floatllm_build.values import Program


def wheel_of(site: Path, name: str, said: str) -> Path:
    """An installed package whose program, in a folder beside, says its version."""
    program = site.parent / "bin" / name
    program.parent.mkdir(exist_ok=True, parents=True)
    program.write_text(f"#!/bin/sh\necho {said}\n")
    program.chmod(0o755)
    info = site / f"{name}-4.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.1\n")
    (info / "RECORD").write_text(f"../bin/{name},,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    return program


def test_programs_of_a_passing_environment_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build folder remembers its cmake, and pip throws its own away."""
    for name in ("cmake", "ninja"):
        try:
            distribution(name)
        except PackageNotFoundError:
            continue
        pytest.skip(f"the environment of the tests has the package {name}")
    site, cache = tmp_path / "site", tmp_path / "cache"
    cmake = wheel_of(site, "cmake", "cmake version 4.1.0")
    wheel_of(site, "ninja", "1.12.1")
    monkeypatch.syspath_prepend(site)
    system = LiveSystem()
    found = Program(path=str(cmake), version="4.1.0")
    own = Program(path="/usr/bin/ninja", version="1.11.1")
    chain = replace(PC.toolchain, cmake=found, ninja=own)
    left = with_tools(system, chain, cache)
    assert (left.cmake, left.ninja) == (found, own)
    kept = with_tools(system, chain, cache, passing=True)
    assert kept.cmake == Program(path=str(cache / "tools/cmake/bin/cmake"), version="4.1.0")
    # A program of the machine stays where it is.
    assert kept.ninja == own
    bare = with_tools(system, replace(chain, ninja=None), cache, passing=True)
    assert bare.ninja == Program(path=str(cache / "tools/ninja/bin/ninja"), version="1.12.1")


@pytest.mark.slow
def test_pip_is_found_where_a_build_hides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip's own environments for builds do it, by a module that every Python imports when it starts."""
    system = LiveSystem()
    assert own_pip(system, tmp_path) == (sys.executable, "-m", "pip")
    hide = "import sys\nsys.path[:] = [path for path in sys.path if not path.endswith('-packages')]\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = own_pip(system, tmp_path)
    assert command == (sys.executable, "-E", "-m", "pip")
    assert system.run((*command, "--version"), timeout=60).rc == 0


class Index:
    """A pip that brings a cmake of two files and counts how often."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _system: object, _cache: Path, *words: str, **_: object) -> Fetched:
        self.asked += 1
        target = Path(words[words.index("--target") + 1])
        (target / "bin").mkdir(parents=True)
        (target / "bin" / "cmake").write_text("#!/bin/sh\necho cmake version 4.1.0\n")
        (target / "bin" / "cmake").chmod(0o755)
        (target / "Modules").mkdir()
        (target / "Modules" / "Find.cmake").write_text("words of a module")
        return Fetched(done=Completed(rc=0, out="", err=""))


def test_a_damaged_tool_is_brought_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, system = Index(), LiveSystem()
    monkeypatch.setattr(tools, "fetch_with_pip", index)
    bare = replace(PC.toolchain, cmake=None)
    chain = with_tools(system, bare, tmp_path)
    program = tmp_path / "tools/cmake/bin/cmake"
    assert chain.cmake == Program(path=str(program), version="4.1.0")
    assert with_tools(system, bare, tmp_path) == chain
    assert read_tools(system, chain, tmp_path) == chain
    assert index.asked == 1
    # What is run is read each time.
    program.write_text("#!/bin/sh\necho cmake version 4.1.1\n")
    assert with_tools(system, bare, tmp_path) == chain
    assert index.asked == 2
    # The rest, which is a hundred megabytes, before a build.
    module = tmp_path / "tools/cmake/Modules/Find.cmake"
    module.write_text("wordz of a module")
    assert with_tools(system, bare, tmp_path) == chain
    assert index.asked == 2
    assert read_tools(system, chain, tmp_path) == chain
    assert index.asked == 3
    assert module.read_text() == "words of a module"
    module.unlink()
    assert with_tools(system, bare, tmp_path) == chain
    assert index.asked == 4


def test_a_tool_of_an_earlier_version_of_this_one_has_no_list_and_is_brought_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index()
    index(None, tmp_path, "--target", str(tmp_path / "tools/cmake"))
    monkeypatch.setattr(tools, "fetch_with_pip", index)
    with_tools(LiveSystem(), replace(PC.toolchain, cmake=None), tmp_path)
    assert index.asked == 2


def test_a_tool_of_the_machine_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "is_whole", lambda *_: pytest.fail("reads what is not in the cache"))
    assert read_tools(LiveSystem(), PC.toolchain, tmp_path) == PC.toolchain
