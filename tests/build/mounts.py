"""File systems mounted for a while, because disks that are full or forbid something are tested for real."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tool_environment import skip_or_fail


@contextlib.contextmanager
def mounted(folder: Path, *options: str, of: str = "tmpfs") -> Iterator[None]:
    """Something mounted there for a while; needs the right to."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, of, folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
