"""What wheels.yml has machines do, done here without their containers: the same words of the same file."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import workflow
from tool_environment import ROOT, Environment, make_venv, portable_variables
from workflow import BY_ID, bash

from floatllm_build.wheel_file import read_record

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(sys.platform != "linux", reason="these are the steps for Linux"),
]


@pytest.fixture
def machine(
    packing_env: Environment, portable_wheel: Path, for_vulkan: dict[str, str], tmp_path: Path
) -> Environment:
    """A fresh Python, and the cache that knows the portable wheel's objects already."""
    kept = portable_wheel.parents[1]
    env = {**packing_env.env, **for_vulkan, **portable_variables(kept)}
    return Environment(make_venv(tmp_path / "venv"), env, kept / "tool")


def checkout(folder: Path) -> Path:
    """A copy, because the steps write into the folder that they run in."""
    skipped = shutil.ignore_patterns(".*_cache", ".hypothesis", "__pycache__", ".git")
    return shutil.copytree(ROOT, folder / "checkout", ignore=skipped)


def test_the_engines_step_makes_the_portable_wheel(
    machine: Environment, portable_wheel: Path, tmp_path: Path
) -> None:
    row = BY_ID["cpu-manylinux-x86_64"]
    step = workflow.find("Engine")
    (words,) = workflow.commands(step.run, "python -m cibuildwheel")
    pairs = shlex.split(step.env_for(row)["CIBW_ENVIRONMENT"])
    variables = dict(pair.split("=", 1) for pair in pairs)
    # What cibuildwheel runs in the image.
    command = [machine.python, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path / "wheels", f"./{words[-1]}"]
    env = {**machine.env, **variables}
    done = subprocess.run(
        command, cwd=checkout(tmp_path), env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (tmp_path / "wheels").iterdir()
    assert made.name == portable_wheel.name
    assert set(read_record(made)) == set(read_record(portable_wheel))


def test_the_plugins_step_makes_the_plugin_and_the_proof_takes_both(
    machine: Environment, tmp_path: Path
) -> None:
    row = BY_ID["vulkan-manylinux-x86_64"]
    step = workflow.find("Plugin")
    assert step.runs_for(row)
    # What the image lacks is here.
    env = {**step.env_for(row), "PREPARE": ""}
    folder = checkout(tmp_path)
    done = bash(workflow.inner_script(step), folder, machine, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    (plugin,) = (folder / "made").glob(f"{row.distribution.replace('-', '_')}-*.whl")
    (base,) = (folder / "made").glob("floatllm-*.whl")
    tag = plugin.stem.split("-")[-1]
    prove = [
        machine.python,
        folder / ".github" / "prove_wheel.py",
        "--proof",
        row.proof,
        "--tag",
        tag.split(".")[0],
    ]
    done = subprocess.run(
        [*prove, plugin, base], env=machine.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
