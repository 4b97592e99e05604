"""A folder whose files are listed in it with their SHA-256: what was damaged since does not count.

Against accidents: a bit that flipped, a file that a full disk cut short. Against other users `trust` stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from floatllm_build.files import settle, sha256_file, write_whole
from floatllm_build.trust import Me, judge, me_in, status_of

_LIST = ".floatllm-files.json"
_VERSION = 1


def seal(folder: Path) -> None:
    """Lists the folder's files and has the list written to the disk, last of all. Raises OSError."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, sha256_file(path)]
        for path in sorted(_files(folder))
    }
    whole = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    text = json.dumps({"schema_version": _VERSION, "files": files, "sha256": whole}, sort_keys=True)
    write_whole(folder / _LIST, text.encode())
    settle(folder)


def is_whole(folder: Path, read: Callable[[str], bool] = lambda _path: True) -> bool:
    """Whether every listed file is there, ours, and as long as it was; and as it was, where `read` says so.

    `read` gets a path inside the folder with `/` in it. Nothing else may be there: a module that came later
    could hide one that is listed. Only what Python compiled, in __pycache__, is not listed, and must be ours.
    A list that leaves the folder, and a folder without a list, is not whole.
    """
    try:
        me = me_in(folder)
        # Earlier versions listed what Python had compiled as well.
        listed = {name: told for name, told in _listed(folder).items() if not _is_compiled(name)}
        found = set(_found(folder, me))
        return listed.keys() == found and all(
            _as_listed(folder / name, size, digest if read(name) else "", me)
            for name, (size, digest) in listed.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False


def _listed(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    files: dict[str, Any] = told["files"]
    whole = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    if told["schema_version"] != _VERSION or told["sha256"] != whole or not files:
        message = "the list is damaged"
        raise ValueError(message)
    return files


def _found(folder: Path, me: Me | None) -> Iterator[str]:
    """Files that have to be listed. Raises ValueError for links, and for what is not ours.

    Their names come from the folder itself, so one in the list with `..`, an absolute one and one behind a
    link are none of them.
    """
    waiting = [(folder, "")]
    while waiting:
        home, before = waiting.pop()
        with os.scandir(home) as entries:
            inside = list(entries)
        for entry in inside:
            path, name = Path(entry.path), before + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and not entry.is_file(follow_symlinks=False):
                message = f"{path} is a link or no ordinary file"
                raise ValueError(message)
            if me and judge(status_of(path), me)[0]:
                message = f"{path} is not ours alone"
                raise ValueError(message)
            if is_folder:
                waiting.append((path, f"{name}/"))
            elif name != _LIST and not _is_compiled(name):
                yield name


def _is_compiled(name: str) -> bool:
    """Whether Python may make the file anew at any time."""
    return "__pycache__" in name.split("/")[:-1]


def _as_listed(path: Path, size: int, digest: str, me: Me | None) -> bool:
    """An empty digest is not compared."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        return False
    if me and judge(status_of(path), me)[0]:
        return False
    return not digest or sha256_file(path) == digest


def _files(folder: Path) -> Iterator[Path]:
    for home, _, names in os.walk(folder):
        for name in names:
            path = Path(home, name)
            if path == folder / _LIST or _is_compiled(path.relative_to(folder).as_posix()):
                continue
            if stat.S_ISREG(path.lstat().st_mode):
                yield path
