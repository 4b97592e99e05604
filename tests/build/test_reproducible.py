"""The same sources give the same wheel, whoever builds it and wherever, and nothing in it tells where."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from tool_environment import ROOT, Environment

pytestmark = pytest.mark.build


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def telling(wheel: Path, folders: Iterable[Path | str]) -> dict[str, list[str]]:
    """Members that hold the name of one of these folders, with those names."""
    names = [os.fsencode(folder) for folder in folders]
    with zipfile.ZipFile(wheel) as archive:
        found = {
            member: [name.decode() for name in names if name in archive.read(member)]
            for member in archive.namelist()
        }
    return {member: told for member, told in found.items() if told}


def wheel_in(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def first(engine_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's wheel for this machine, from the tool's own environment."""
    out = tmp_path_factory.mktemp("first")
    done = engine_env.tool("wheel", "--backend", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    return wheel_in(out)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("second") / "a_folder_with_a_far_longer_name"


@pytest.fixture(scope="module")
def second(first: Path, engine_env: Environment, elsewhere: Path) -> Path:
    """The same from this checkout, by another user: another home, cache, working folder and umask."""
    del first
    elsewhere.mkdir()
    (elsewhere / "home").mkdir()
    env = {
        **engine_env.env,
        "PYTHONPATH": str(ROOT),
        "HOME": str(elsewhere / "home"),
        "XDG_CACHE_HOME": str(elsewhere / "home" / ".cache"),
        "FLOATLLM_CACHE_DIR": str(elsewhere / "cache"),
        "TZ": "Asia/Tokyo",
    }
    command = [engine_env.python, "-m", "floatllm_build", "wheel", "--backend", "cpu", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--out", elsewhere / "out"],
        cwd=elsewhere,
        env=env,
        umask=0o077,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "reusing" not in done.stderr
    return wheel_in(elsewhere / "out")


@pytest.mark.ci
def test_two_builds_give_one_wheel(first: Path, second: Path) -> None:
    assert first.name == second.name
    assert sha256(first) == sha256(second)


def test_a_wheel_for_this_machine_alone_promises_no_other(first: Path) -> None:
    assert not re.search("manylinux|musllinux", first.name)


@pytest.mark.ci
def test_no_folder_of_this_machine_is_in_it(
    first: Path, second: Path, engine_env: Environment, elsewhere: Path
) -> None:
    folders = (engine_env.cache, engine_env.prefix, engine_env.env["HOME"], elsewhere, ROOT)
    for wheel in (first, second):
        assert telling(wheel, folders) == {}
    # What the search would find: the libraries do name their sources, below words for folders.
    assert telling(first, ("ggml/src/ggml.c",)).keys() == {"floatllm/libfloatllm.so"}


def test_a_fixed_time_does_not_cost_the_cpus_instructions(first: Path, engine_env: Environment) -> None:
    """Of itself, ggml builds for no CPU in particular where SOURCE_DATE_EPOCH is set, as it is in ours."""
    with zipfile.ZipFile(first) as archive:
        manifest = json.loads(archive.read("floatllm/manifest.json"))
    assert manifest["options"]["GGML_NATIVE"] is True
    if platform.machine() == "x86_64":
        ninja = next((engine_env.cache / "build").glob("cpu-*/out/build.ninja")).read_text()
        rules = ninja.split("\nbuild ")
        kernels = [rule for rule in rules if rule.partition(" ")[0].endswith("/ggml-cpu.c.o:")]
        assert len(kernels) == 1
        assert "-march=native" in kernels[0]


def test_no_folder_of_this_machine_is_in_the_portable_wheel(
    portable_wheel: Path, packing_env: Environment
) -> None:
    # The objects that it was made of are in a folder beside its own.
    folders = (portable_wheel.parents[1], packing_env.prefix, packing_env.env["HOME"], ROOT)
    assert telling(portable_wheel, folders) == {}
    assert "floatllm/libfloatllm.so" in telling(portable_wheel, ("floatllm_",))
