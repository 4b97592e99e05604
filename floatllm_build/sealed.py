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

from floatllm_build.files import settle, sha256_file, write_whole
from floatllm_build.trust import Me, judge, me_inside, status_of

_LIST = ".floatllm-files"


def seal(folder: Path) -> None:
    """Lists the folder's files and has the list written to the disk, last of all. Raises OSError.

    A line for each file, in the order of their names: `SHA-256 size "name"`. The last line is the SHA-256 of
    all others. The tool reads and writes it line by line, because CMake has some thousand files and the
    compilers beside us need the memory.
    """
    home = os.fspath(folder)
    text = bytearray()
    for name in sorted(_files(home)):
        path = f"{home}/{name}"
        text += f"{sha256_file(path)} {os.lstat(path).st_size} {json.dumps(name)}\n".encode()
    text += f"{hashlib.sha256(text).hexdigest()}\n".encode()
    write_whole(folder / _LIST, bytes(text))
    settle(folder)


def is_whole(folder: Path, read: Callable[[str], bool] = lambda _path: True) -> bool:
    """Whether every listed file is there, ours, and as long as it was; and as it was, where `read` says so.

    `read` gets a path inside the folder with `/` in it. Nothing else may be there: a module that came later
    could hide one that is listed. Only what Python compiled, in __pycache__, is not listed, and must be ours.
    A list that leaves the folder, and a folder without a list, is not whole.
    """
    try:
        me, home = me_inside(folder), os.fspath(folder)
        count, before = 0, ""
        for digest, size, name in _listed(f"{home}/{_LIST}"):
            # Each once, and inside: then as many files as there are names are just those.
            if name <= before or not _is_inside(name):
                return False
            if not _as_listed(f"{home}/{name}", size, digest if read(name) else "", me):
                return False
            count, before = count + 1, name
        return count > 0 and count == sum(1 for _ in _found(home, me))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _listed(path: str) -> Iterator[tuple[str, int, str]]:
    """(SHA-256, size, name) of each file. Raises ValueError for a list that is not as it was written."""
    whole, last = hashlib.sha256(), b""
    with open(path, "rb") as lines:  # noqa: PTH123  as the other paths here
        for line in lines:
            if last:
                whole.update(last)
                digest, size, name = last.decode().split(" ", 2)
                yield digest, int(size), str(json.loads(name))
            last = line
    if last.decode() != f"{whole.hexdigest()}\n":
        message = "the list is damaged"
        raise ValueError(message)


def _is_inside(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/"))


def _found(folder: str, me: Me | None) -> Iterator[str]:
    """Files that have to be listed. Raises ValueError for links, and for what is not ours.

    Their names come from the folder itself, so one in the list with `..`, an absolute one and one behind a
    link are none of them.
    """
    waiting = [""]
    while waiting:
        before = waiting.pop()
        with os.scandir(f"{folder}/{before}") as entries:
            for entry in entries:
                name = before + entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if not is_folder and not entry.is_file(follow_symlinks=False):
                    message = f"{entry.path} is a link or no ordinary file"
                    raise ValueError(message)
                if me and judge(status_of(entry.path), me)[0]:
                    message = f"{entry.path} is not ours alone"
                    raise ValueError(message)
                if is_folder:
                    waiting.append(f"{name}/")
                elif name != _LIST and not _is_compiled(name):
                    yield name


def _is_compiled(name: str) -> bool:
    """Whether Python may make the file anew at any time."""
    return "__pycache__" in name.split("/")[:-1]


def _as_listed(path: str, size: int, digest: str, me: Me | None) -> bool:
    """An empty digest is not compared."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        return False
    if me and judge(status_of(path), me)[0]:
        return False
    return not digest or sha256_file(path) == digest


def _files(folder: str) -> Iterator[str]:
    for home, _, names in os.walk(folder):
        before = home[len(folder) + 1 :].replace(os.sep, "/")
        for name in names:
            inside = f"{before}/{name}" if before else name
            if inside == _LIST or _is_compiled(inside):
                continue
            if stat.S_ISREG(os.lstat(f"{home}/{name}").st_mode):
                yield inside
