"""What all tests share: the tool in an environment of its own, and the engine that it built there, once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from tool_environment import ROOT, Environment, fresh_environment, make_venv, skip_or_fail

# These machines are shared: how long a case takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell starts background jobs with SIGINT ignored, and children inherit that: no Ctrl-C could be tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tool_env(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The tool, installed as the README says, in a fresh environment with empty caches."""
    folder = tmp_path_factory.mktemp("tool")
    env = fresh_environment(folder)
    python = make_venv(folder / "venv")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(f"`pip install .` failed, perhaps without a network: {done.stderr.strip()[-500:]}")
    return Environment(python, env, Path(env["XDG_CACHE_HOME"]) / "floatllm")


@pytest.fixture(scope="session")
def engine_env(tool_env: Environment) -> Environment:
    """The engine, built, proven and installed by the tool beside itself: once for the whole session."""
    if not (shutil.which("c++") or os.environ.get("CXX")):
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    done = tool_env.tool("install")
    sys.stdout.write(done.stderr)
    assert done.returncode == 0, done.stderr
    return tool_env


@pytest.fixture(scope="session")
def portable_wheel(tool_env: Environment, request: pytest.FixtureRequest) -> Path:
    """The portable wheel of the engine (preset wheel-cpu), as `floatllm-build wheel --portable` leaves it.

    Repaired to the tag that auditwheel finds, and proven. Its file lies in a folder of its own, which holds
    nothing else. Its objects are kept in pytest's cache, because its fourteen variants of the CPU's kernels
    take seven minutes of two CPUs: another session compiles what has changed since.
    """
    if not (shutil.which("c++") or os.environ.get("CXX")):
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    assert request.config.cache is not None
    kept = request.config.cache.mkdir("floatllm-portable")
    out = kept / "wheel"
    shutil.rmtree(out, ignore_errors=True)
    arguments = ("wheel", "--portable", "--backend", "cpu", "--out", out)
    done = tool_env.tool(*arguments, FLOATLLM_CACHE_DIR=str(kept / "tool"))
    sys.stdout.write(done.stderr)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.iterdir()
    assert done.stdout == f"{wheel}\n"
    return wheel
