"""Copies of the checkout, and environments whose pip builds the engine from them with nothing else's help."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tool_environment import ROOT

NAME = "floatllm-0.1.0"
PARTS = ("native", "presets", "ggml", "floatllm_build", "LICENSE")


def copied(target: Path) -> Path:
    """What the engine is built from, as a checkout has it."""
    target.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "data")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target / part, ignore=unwanted)
        else:
            shutil.copy2(ROOT / part, target)
    shutil.rmtree(target / "native" / "build", ignore_errors=True)
    shutil.rmtree(target / "ggml" / "source", ignore_errors=True)
    return target


@dataclass(frozen=True)
class Place:
    """An environment that the engine is installed into, with the caches of the session's tool."""

    python: Path
    env: Mapping[str, str]

    def run(
        self, *command: object, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, *map(str, command)],
            cwd=cwd or self.python.parent,
            env={**self.env, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def pip(self, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "pip", "--disable-pip-version-check", *arguments, **variables)

    def hook(self, checkout: Path, call: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Calls a hook of the backend as its front ends do, in a process of its own."""
        code = f"import sys; sys.path.insert(0, '.'); import _backend; print(_backend.{call})"
        return self.run("-c", code, cwd=checkout / "native", **variables)

    @property
    def site(self) -> Path:
        return next(self.python.parents[1].glob("lib/python*/site-packages"))

    def computes(self) -> bool:
        done = self.run("-m", "floatllm", "devices")
        return done.returncode == 0 and "CPU" in done.stdout
