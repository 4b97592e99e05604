"""Control groups of the tests' own, because what the tool reads of limits is tested inside real ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tool_environment import skip_or_fail

GROUPS = Path("/sys/fs/cgroup")


def enter(*folders: Path) -> str:
    """Code that moves the process that runs it into control groups."""
    files = [str(folder / "cgroup.procs") for folder in folders]
    return f"for file in {files!r}:\n    open(file, 'w').write(str(os.getpid()))"


@contextlib.contextmanager
def group(parent: Path, **settings: str) -> Iterator[Path]:
    """A control group of our own; settings by file name, with __ for the dot."""
    folder = parent / f"floatllm-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        skip_or_fail(f"needs a control group of its own: {error}")
    try:
        for name, value in settings.items():
            setting(folder / name.replace("__", "."), value)
        yield folder
    finally:
        folder.rmdir()


def setting(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        skip_or_fail(f"the control group does not take {path.name} = {value}: {error}")


def own_group(controller: str) -> Path:
    """The folder of our own group in a hierarchy of version 1."""
    mount = GROUPS / controller
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    groups = [line.split(":", 2)[2] for line in lines if controller in line.split(":", 2)[1].split(",")]
    inside = mount / groups[0].strip("/")
    return inside if inside.is_dir() else mount
