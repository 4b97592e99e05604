"""Proves a wheel in a fresh environment, where no compiler and no cmake is in reach.

    python .github/prove_wheel.py --proof cpu --tag manylinux_2_28_x86_64 WHEEL [OTHER_WHEEL ...]

The first wheel is the one that is proven. A plugin needs the engine's wheel beside it, and the tool's wheel
verifies what was installed. Ends with the status of the first command that fails. Needs only a Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

# What an engine could be compiled with, had it to be.
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cl", "nvcc", "cmake", "ninja", "make")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proof", choices=("cpu", "device"), required=True)
    parser.add_argument("--tag", required=True, help="the platform tag that the first wheel must have")
    parser.add_argument("wheels", nargs="+", type=Path)
    asked = parser.parse_args()
    wheels = [wheel.resolve() for wheel in asked.wheels]
    if fault := tag_fault(wheels[0].name, asked.tag):
        sys.stderr.write(f"{fault}\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        return prove(Path(folder), wheels, device="CPU" if asked.proof == "cpu" else "")


def tag_fault(name: str, tag: str) -> str:
    """Why a wheel of this file name is not one for every Python 3 of the platform; empty where it is."""
    *_, python, abi, platforms = name.removesuffix(".whl").split("-")
    if (python, abi) == ("py3", "none") and tag in platforms.split("."):
        return ""
    return f"{name} is not the wheel that was asked for: its tag must be py3-none-{tag}."


def prove(folder: Path, wheels: list[Path], device: str) -> int:
    """The status of the first of the commands that fails, else 0."""
    venv.create(folder / "venv", with_pip=True, symlinks=os.name != "nt")
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    env = bare(os.environ, programs)
    found = [name for name in COMPILERS if shutil.which(name, path=env["PATH"])]
    if found:
        sys.stderr.write(f"{', '.join(found)} can be reached: this environment proves nothing.\n")
        return 1
    on_device = ["--device", device] if device else []
    commands = [
        # Only wheels: what has none for this platform would be compiled.
        [python, "-m", "pip", "install", "--only-binary=:all:", *map(str, wheels)],
        [python, "-m", "floatllm", "devices"],
        [python, "-m", "floatllm.selftest", *on_device],
    ]
    if any(wheel.name.startswith("floatllm_build-") for wheel in wheels):
        commands.append([str(programs / "floatllm-build"), "verify", *on_device])
    for command in commands:
        sys.stdout.write(f"$ {' '.join(command)}\n")
        sys.stdout.flush()
        status = subprocess.run(command, cwd=folder, env=env, check=False).returncode
        if status:
            return status
    return 0


def bare(env: Mapping[str, str], programs: Path) -> dict[str, str]:
    """Ours with no program on PATH but the environment's own, and nothing that would load other code."""
    dropped = ("FLOATLLM_", "PYTHON", "GGML_", "LD_")
    kept = {name: value for name, value in env.items() if not name.startswith(dropped)}
    return {**kept, "PATH": str(programs), "VIRTUAL_ENV": str(programs.parent)}


if __name__ == "__main__":
    sys.exit(main())
