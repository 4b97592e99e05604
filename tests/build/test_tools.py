"""Programs in an environment that pip makes for one build: cmake and ninja are kept, its own pip is found."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from machines import PC

from floatllm_build.pip import own_pip
from floatllm_build.system import LiveSystem
from floatllm_build.tools import with_tools
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
