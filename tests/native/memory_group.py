"""A control group with a hard limit on memory: what exceeds it is killed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tool_environment import skip_or_fail

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


class Group:
    """A control group of our own with a hard limit and no swap."""

    def __init__(self, folder: Path, *, v1: bool) -> None:
        self.folder, self.v1 = folder, v1

    def limit(self, size: int) -> None:
        """Sets the limit in bytes."""
        if self.v1:
            (self.folder / "memory.limit_in_bytes").write_text(str(size))
            return
        (self.folder / "memory.max").write_text(str(size))
        (self.folder / "memory.swap.max").write_text("0")

    def run(self, command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Runs a command inside the group."""
        members = self.folder / ("tasks" if self.v1 else "cgroup.procs")
        entered = ["sh", "-c", f'echo $$ > "{members}" && exec "$@"', "sh", *command]
        return subprocess.run(entered, env=env, capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def memory_group() -> Iterator[Group]:
    v1 = _V1.is_dir()
    folder = (_V1 if v1 else _V2) / f"floatllm-test-{os.getpid()}"
    try:
        folder.mkdir()
        made = Group(folder, v1=v1)
        made.limit(256 << 20)
    except OSError as error:
        skip_or_fail(f"needs a control group that may limit memory: {error}")
    yield made
    folder.rmdir()
