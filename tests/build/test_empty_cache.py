"""Each documented way to the engine through pip, from an empty cache: ggml comes, and the build begins.

Compiling the engine is the subject of other tests: here the compiler refuses the first file of ggml.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkouts import NAME, Place, copied
from tool_environment import fresh_environment, make_venv, skip_or_fail

# They configure with a real compiler, and wait for pip to make its environments.
pytestmark = pytest.mark.build

_STOPS = """#!/bin/sh
case "$*" in *ggml/*/src/*) echo "it comes to compiling ggml" >&2; exit 1;; esac
exec {} "$@"
"""
FETCHED = "fetched and verified"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("empty") / "floatllm")


@pytest.fixture
def empty(tmp_path: Path) -> Mapping[str, str]:
    """An environment whose home and caches are empty, with compilers that go no further than ggml."""
    if not (shutil.which("gcc") and shutil.which("g++")):
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    env = fresh_environment(tmp_path / "user")
    for name, real in (("CC", "gcc"), ("CXX", "g++")):
        program = tmp_path / real
        program.write_text(_STOPS.format(shutil.which(real)))
        program.chmod(0o755)
        env[name] = str(program)
    return {**env, "FLOATLLM_BACKEND": "cpu"}


def place(folder: Path, env: Mapping[str, str], pip: str = "") -> Place:
    made = Place(make_venv(folder / "venv"), env)
    if pip and made.pip("install", "--quiet", "--upgrade", pip).returncode != 0:
        skip_or_fail(f"{pip} could not be installed, perhaps without a network")
    return made


def builds(done: subprocess.CompletedProcess[str]) -> str:
    """What was said by a pip that came to compiling."""
    said = done.stdout + done.stderr
    assert "Compiling failed" in said, said
    assert "exit code: 4" in said
    assert "Traceback" not in said
    return said


# What Debian 12 has, what came next, and the newest; each with another of the ways.
@pytest.mark.parametrize(
    ("pip", "words"),
    [
        pytest.param(
            "pip==23.0.1",
            ("install",),
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 12), reason="pip 23.0 is older than this Python"
            ),
        ),
        ("pip==23.2.1", ("install", "-v")),
        ("pip", ("install", "-e")),
    ],
)
def test_from_a_checkout(
    empty: Mapping[str, str], checkout: Path, tmp_path: Path, pip: str, words: tuple[str, ...]
) -> None:
    assert FETCHED in builds(place(tmp_path, empty, pip).pip(*words, checkout / "native"))


def test_by_a_source_archive(empty: Mapping[str, str], checkout: Path, tmp_path: Path) -> None:
    made = place(tmp_path, empty, "build")
    done = made.run("-m", "build", "--sdist", checkout / "native", "--outdir", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert FETCHED in done.stdout + done.stderr
    (archive,) = (tmp_path / "out").iterdir()
    assert archive.name == f"{NAME}.tar.gz"
    shutil.rmtree(empty["XDG_CACHE_HOME"])
    assert FETCHED not in builds(made.pip("install", archive)), "the archive has it"


def test_without_a_network_a_variable_for_pip_is_named(
    empty: Mapping[str, str], checkout: Path, tmp_path: Path
) -> None:
    """The requirements of the build are there; ggml is not."""
    made = place(tmp_path, empty)
    done = made.pip("install", "--quiet", "scikit-build-core>=1.1", "platformdirs>=4", "packaging>=23")
    if done.returncode != 0:
        skip_or_fail(f"the build's requirements could not be installed: {done.stderr.strip()[-300:]}")
    nothing = {
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "NO_PROXY": "*",
    }
    done = made.pip(
        *("install", "-v", "--no-build-isolation", checkout / "native"),
        **nothing,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
    )
    said = done.stdout + done.stderr
    assert "exit code: 6" in said
    assert "there is no network, or it does not lead to 127.0.0.1 (Connection refused)" in said
    assert "FLOATLLM_GGML_DIR=FOLDER pip install ./native" in said, said
    assert "--ggml-dir" not in said
