"""The one door through which children start. None of them runs or obeys what lies in the user's folder.

Pip, Python and uv look for modules and settings in the folder that they start in, and whoever can write there
is not always the user. So a child that does not need a certain folder starts in one of ours, which is new,
empty and closed to others. tests/build/test_house.py finds a child that starts anywhere else.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Child = subprocess.Popen[bytes]
TooLateError = subprocess.TimeoutExpired
# The constant exists on Windows only.
NEW_GROUP = int(getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))
PIPE, NOWHERE, TO_OUTPUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT

_WINDOWS = sys.platform == "win32"
# A build backend is told about itself in these (pip 23 and 26, build). A pip that it starts would hand them
# to the backend of another project, and would take itself for a part of the pip outside.
_OF_AN_OUTER_PIP = (
    *("PEP517_", "_PYPROJECT_HOOKS_", "_PIP_RUNNING_IN_SUBPROCESS", "_PIP_STANDALONE_CERT"),
    *("PIP_BUILD_TRACKER", "PIP_REQ_TRACKER"),
)
_PYTHONS = ("python", "pypy")

_empty: list[str] = []
_lock = threading.Lock()


def start(argv: tuple[str, ...], *, env: Mapping[str, str], cwd: Path | None = None, **how: Any) -> Child:
    """Starts argv with the environment `env` in `cwd`, or in an empty folder; `how` is Popen's.

    Without input, if `how` names none. A relative path to the program counts from the user's folder. Raises
    OSError or ValueError if argv cannot be started.
    """
    command = (_program(argv[0], env, windows=_WINDOWS), *argv[1:])
    clean = clean_environment(env, command[0], windows=_WINDOWS)
    how.setdefault("stdin", NOWHERE)
    return subprocess.Popen(command, cwd=cwd or empty_folder(), env=clean, **how)


def changed(env: Mapping[str, str], variables: Mapping[str, str | None] | None) -> dict[str, str]:
    """`env` with these variables; without those that are None."""
    merged = {**env, **(variables or {})}
    return {name: value for name, value in merged.items() if value is not None}


def clean_environment(env: Mapping[str, str], program: str, *, windows: bool) -> dict[str, str]:
    """What a child may see of `env`: no way back into the user's folder, nothing of a pip that started us."""
    clean = {name: value for name, value in env.items() if not name.startswith(_OF_AN_OUTER_PIP)}
    if "PATH" in clean:
        clean["PATH"] = os.pathsep.join(_folders(clean)) or os.defpath
    if Path(program).name.lower().startswith(_PYTHONS) or program == sys.executable:
        clean["PYTHONSAFEPATH"] = "1"  # Python 3.11 and newer
    if windows:
        clean["NoDefaultCurrentDirectoryInExePath"] = "1"
    return clean


def which(name: str, env: Mapping[str, str] | None = None, *, windows: bool = _WINDOWS) -> str | None:
    """The path of a program by PATH, never one in the current folder: Windows would look there first."""
    env = os.environ if env is None else env
    folders = [""] if _says_where(name) else _folders(env)
    endings = [""]
    if windows:
        known = (env.get("PATHEXT") or ".COM;.EXE;.BAT;.CMD").lower().split(";")
        endings = [""] if name.lower().endswith(tuple(known)) else known
    paths = (os.path.join(folder, name + ending) for folder in folders for ending in endings)  # noqa: PTH118
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)  # noqa: PTH113  Path's own raises for a folder that is closed to us


def _folders(env: Mapping[str, str]) -> list[str]:
    """PATH without its empty and relative entries, which mean whatever folder the user is in."""
    entries = env.get("PATH", os.defpath).split(os.pathsep)
    return [folder for folder in entries if Path(folder).is_absolute()]


def _says_where(name: str) -> bool:
    return bool(os.path.dirname(name))  # noqa: PTH120  to a Path, ./cc is cc


def _program(name: str, env: Mapping[str, str], *, windows: bool) -> str:
    if _says_where(name):
        with contextlib.suppress(FileNotFoundError):  # of a folder that is gone
            return str(Path.cwd() / name)  # an absolute name stays as it is
        return name
    found = which(name, env, windows=True) if windows else name
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


def empty_folder() -> Path:
    """A folder of this process alone, gone when it ends."""
    with _lock:
        if not (_empty and Path(_empty[0]).is_dir()):
            _empty[:] = [_new_folder()]
        return Path(_empty[0])


def _new_folder() -> str:
    try:
        folder = tempfile.mkdtemp(prefix="floatllm-empty-")
    except OSError:
        # Nothing can be written anywhere; there only the system's owner can.
        return os.environ.get("SYSTEMROOT", os.sep)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
