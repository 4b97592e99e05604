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

    `read` gets a path inside the folder with `/` in it. Files that came later, as Python's compiled modules
    do, are nobody's concern. A folder without a list is not whole.
    """
    try:
        me = me_in(folder)
        listed = _listed(folder)
        return all(
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
            if name != _LIST and stat.S_ISREG(path.lstat().st_mode):
                yield path
