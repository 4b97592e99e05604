"""ROCm without an AMD GPU: Debian's, unpacked into a folder, and its programs run as if that were the system.

Debian 12 and 13 have ROCm 5, and ggml wants 6.1: so it is that of the release after them, whose programs
need that release's C library, and so all of its own folder. A download of 250 MB, of which 1 GB comes.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
from tool_environment import skip_or_fail
from toolchains import keep, kept, on_debian, unpack_from

_SUITE = "forky"
_PACKAGES = ("hipcc", "libhipblas-dev", "librocblas-dev", "cmake", "ninja-build", "g++", "coreutils", "dash")
# Kernels for every GPU there is, 730 MB. CMake wants to see the first by its name.
_WITHOUT = ("librocblas4", "librocsolver", "librocsparse")
# Inside, where it is nobody else's.
_SCRATCH = "/tmp"  # noqa: S108
_UNREAD = ("share/doc", "share/man", "share/locale")


@cache
def rocm_root() -> Path:
    """The folder. Skips a user's run where it is not kept yet."""
    if not sys.platform.startswith("linux") or not on_debian():
        pytest.skip("ROCm 6.1 or newer is known to come from Debian's own sources only")
    if not shutil.which("bwrap"):
        skip_or_fail("bwrap is not on PATH (Debian: apt install bubblewrap)")
    name = f"rocm-{_SUITE}"
    if not kept(name) and os.environ.get("CI") != "true":
        pytest.skip("ROCm is a download of 250 MB; with CI=true it is fetched and kept")
    return keep(name, _download)


def _download(folder: Path) -> None:
    unpack_from(_SUITE, folder, _PACKAGES, whole=True, without=_WITHOUT)
    for place in _UNREAD:
        shutil.rmtree(folder / "usr" / place)
    for targets in (folder / "usr" / "lib").glob("*/cmake/rocblas/rocblas-targets-*.cmake"):
        for name in set(re.findall(r"librocblas\.so[.\d]*\d", targets.read_text())):
            (targets.parents[2] / name).touch()


def inside(*shown: Path, folder: Path) -> list[str]:
    """The start of a command that runs there and sees the folders `shown`; it begins in `folder`."""
    root = rocm_root()
    words = ["bwrap", "--ro-bind", str(root / "usr"), "/usr", "--ro-bind", str(root / "etc"), "/etc"]
    for name in ("bin", "sbin", "lib", "lib64"):
        words += ["--symlink", f"usr/{name}", f"/{name}"]
    words += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", _SCRATCH]
    for place in shown:
        words += ["--bind", str(place), str(place)]
    words += ["--clearenv"]
    # No package was set up, so nothing points from cc to gcc.
    for name, value in {"PATH": "/usr/bin", "HOME": _SCRATCH, "CC": "gcc", "CXX": "g++"}.items():
        words += ["--setenv", name, value]
    return [*words, "--chdir", str(folder), "--"]
