"""One tool at a time works in the cache, and one installer in an environment; the next one waits and says so.

A lock dies with its processes.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from floatllm_build.errors import MissingError
from floatllm_build.events import Hint, Listener
from floatllm_build.paths import CACHE_FOLDERS, borrowed_home
from floatllm_build.process import inherited
from floatllm_build.trust import check_cache, check_inside

_POLL = 0.2


@contextmanager
def cache_lock(cache: Path, tell: Listener, *, cleaning: bool = False) -> Iterator[None]:
    """Holds {cache}/lock. `cleaning`: nothing of the cache will be used.

    Raises MissingError where the cache folder cannot be written, or where it or something in it is not ours
    alone.
    """
    if home := borrowed_home():
        tell(Hint(f"The cache would lie in {home}, which is another user's: root works in {cache} instead."))
    try:
        check_cache(cache, cleaning=cleaning)
        file = _open(cache / "lock")
    except OSError as error:
        raise MissingError(
            f"The cache folder {cache} cannot be written to: {error.strerror}. Make it writable, or name "
            "another folder in FLOATLLM_CACHE_DIR."
        ) from error
    with file, _held(file.fileno(), f"Another floatllm-build is at work in {cache}; waiting for it.", tell):
        if not cleaning:
            check_inside(cache, CACHE_FOLDERS)
        yield


def _open(path: Path) -> IO[bytes]:
    """Raises OSError; for a pipe or a link, too, which would stop us or lead elsewhere."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, f"{path} is not an ordinary file")
    # In a folder that others can add to, one may come between.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    return os.fdopen(handle, "r+b")


@contextmanager
def target_lock(prefix: Path, tell: Listener) -> Iterator[None]:
    """Keeps other tools, whose caches may be elsewhere, from installing into the environment meanwhile.

    The lock is on the folder of the environment itself: nothing is written there, so nothing stays. Where a
    folder cannot be locked, as on Windows and some network disks, there is none.
    """
    words = f"Another floatllm-build installs into {prefix}; waiting for it."
    with ExitStack() as stack:
        if sys.platform != "win32":
            with suppress(OSError):
                handle = os.open(prefix, os.O_RDONLY)
                stack.callback(os.close, handle)
                stack.enter_context(_held(handle, words, tell))
        yield


@contextmanager
def _held(handle: int, words: str, tell: Listener) -> Iterator[None]:
    told = False
    while not _try(handle):
        if not told:
            tell(Hint(words))
            told = True
        time.sleep(_POLL)
    try:
        with inherited(handle):
            yield
    finally:
        # For all that hold it: a job may have left a server behind, as sccache does.
        _unlock(handle)


def _unlock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415

        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl  # noqa: PLC0415

        fcntl.flock(handle, fcntl.LOCK_UN)


def _try(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
