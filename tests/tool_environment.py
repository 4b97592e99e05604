"""The tool in an environment of its own, with a home and caches that only tests use; or the checkout's."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def skip_or_fail(reason: str) -> None:
    """Skips for a user; under CI=true a test that cannot run is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the tool in it, and a home and cache that only the tests use."""

    python: Path
    env: Mapping[str, str]
    cache: Path

    @property
    def prefix(self) -> Path:
        return self.python.parent.parent

    @property
    def data(self) -> Path:
        """The sources that travel inside the installed tool."""
        return next(self.prefix.glob("lib/python*/site-packages/floatllm_build/data"))

    @property
    def source(self) -> Path:
        """The tree of llama.cpp in the tool's cache."""
        return next((self.cache / "ggml").glob("0.*"))

    def tool(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs floatllm-build, far from the checkout."""
        return subprocess.run(
            [self.python.parent / "floatllm-build", *map(str, arguments)],
            cwd=self.prefix,
            env={**self.env, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def tool(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the checkout's floatllm-build by the Python of the tests, without their settings of it."""
    dropped = ("CMAKE_ARGS", "VIRTUAL_ENV", "CONDA_PREFIX")
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith("FLOATLLM_")
    }
    return subprocess.run(
        [sys.executable, "-m", "floatllm_build", *map(str, arguments)],
        cwd="/",
        env={**env, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        # One that waits where it must not is ended.
        timeout=120,
    )


def closed_folder(tmp_path: Path) -> Path:
    """A folder that nothing can be written to; root can write to any but the system's own."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        if not Path("/proc/self").exists():
            skip_or_fail("needs a user other than root, or a /proc")
        return Path("/proc")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500, exist_ok=True)
    return folder


@cache
def _with_pip() -> Path:
    """An environment with the pip that this Python brings: to copy it saves five seconds each time."""
    folder = Path(tempfile.mkdtemp(prefix="floatllm-venv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    return folder / "venv"


def make_venv(folder: Path) -> Path:
    """A virtual environment with pip; returns its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    original = _with_pip()
    for package in original.glob("lib/python*/site-packages/*"):
        copy = folder / package.relative_to(original)
        shutil.copytree(package, copy) if package.is_dir() else shutil.copy2(package, copy)
    for program in original.glob("bin/pip*"):
        copy = folder / "bin" / program.name
        copy.write_text(program.read_text().replace(str(original), str(folder)))
        copy.chmod(0o755)
    return folder / "bin" / "python"


def copied_environment(original: Environment, folder: Path) -> Environment:
    """Another environment with the tool: its sources can be changed while the other one's are used."""
    python = make_venv(folder)
    (site,) = original.prefix.glob("lib/python*/site-packages")
    copy = folder / site.relative_to(original.prefix)
    shutil.copytree(site, copy, dirs_exist_ok=True)
    program = python.parent / "floatllm-build"
    words = (original.python.parent / program.name).read_text()
    program.write_text(words.replace(str(original.prefix), str(folder)))
    program.chmod(0o755)
    return Environment(python, original.env, original.cache)


def light_compilers(folder: Path) -> dict[str, str]:
    """CC and CXX that optimise less, for engines of which it is looked at what they compute, not how fast.

    They take two thirds of the time. Their names are part of a build's key, so the folder had better stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for variable, name in (("CC", "cc"), ("CXX", "c++")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {os.environ.get(variable) or shutil.which(name)} "$@" -O1\n')
        program.chmod(0o755)
        found[variable] = str(program)
    return found


def portable_variables(kept: Path) -> dict[str, str]:
    """The environment in which the portable wheel was made, and its objects are found again."""
    return {"FLOATLLM_CACHE_DIR": str(kept / "tool"), **light_compilers(kept / "compilers")}


def fresh_environment(folder: Path) -> dict[str, str]:
    """Ours with an empty home and empty caches; only pip's own index settings come along."""
    dropped = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "CMAKE_ARGS", "GGML_DIR")
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith(("FLOATLLM_", "PYTEST_"))
    }
    for config in (Path.home() / ".config" / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf"):
        if config.is_file():
            env.setdefault("PIP_CONFIG_FILE", str(config))
    home = folder / "home"
    (home / ".cache").mkdir(parents=True, exist_ok=True)
    return {**env, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
