"""Small truths about files that several steps need."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.trust import close, make_private

# Larger ones grow the heap for good: glibc maps no piece of a size that was freed before.
_PIECE = 1 << 16


def sha256_file(path: Path | str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def remove_folder(folder: Path) -> str:
    """Deletes a folder as far as it can be; returns what stayed first and why, or nothing.

    What a link leads to is somebody's decision: neither is touched.
    """
    if folder.is_symlink():
        return (
            f"{folder} is a link to {folder.resolve()}, and neither was touched. Delete what is there "
            f"yourself, and the link: {'rmdir' if sys.platform == 'win32' else 'rm'} {folder}"
        )
    shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror or error}"
    return ""


@contextmanager
def scratch_in(home: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `home` while the block runs; what is to stay is renamed away, even the folder itself.

    Those that a killed tool has left go first, and what stays in `home` is closed to others. Only for who
    holds the lock.
    """
    make_private(home)
    for folder in home.glob(f"{prefix}*"):
        shutil.rmtree(folder, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=home, prefix=prefix))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            for kept in home.iterdir():
                close(kept)


def settle(*paths: Path) -> None:
    """Has files and folders written to the disk, so that a rename after it never names half of them."""
    for path in paths:
        if sys.platform == "win32" and path.is_dir():
            continue  # it opens no folders, and NTFS keeps a journal of their entries
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        except OSError as error:
            # Some file systems, network drives among them, cannot do it for a folder.
            if error.errno not in {errno.EINVAL, errno.EBADF, errno.ENOTSUP}:
                raise
        finally:
            os.close(handle)


def in_the_future(folder: Path) -> list[Path]:
    """Files below `folder` that are younger than the clock says, as after it was set back."""
    # File systems keep times as coarse as two seconds.
    latest = time.time() + 2
    # A Path for each file of a toolkit would be megabytes.
    every = (f"{home}{os.sep}{name}" for home, _, names in os.walk(folder) for name in names)
    return [Path(path) for path in every if os.path.isfile(path) and os.path.getmtime(path) > latest]  # noqa: PTH113, PTH204


def ordinary(path: Path, what: str) -> Path:
    """Where `write_whole` may write: a link stays one, and a device or a pipe is not replaced by a file.

    Raises UsageFaultError for these; `what` begins its sentence: "The host cannot be saved".
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise UsageFaultError(f"{what} to {path}: that is no ordinary file. Name a file.")
    return target


def write_refusal(folder: Path) -> str:
    """Why no file can be made in a folder, found by making one; empty where one can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        # On a full disk there may be room by the time that it is needed.
        return "" if error.errno == errno.ENOSPC else error.strerror or str(error)


def check_folder(folder: Path, what: str, fix: str) -> None:
    """Looks whether files can be made in a folder that was named: at once, and not when the work is done.

    `what` begins the sentence ("The report cannot be written to x"), `fix` ends it. Raises UsageFaultError
    where there is no such folder, MissingError where nothing can be written to it.
    """
    try:
        there = stat.S_ISDIR(folder.stat().st_mode)
    except OSError as error:
        # One that this user may not look into may be there, and takes no file either.
        there = error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
    if not there:
        raise UsageFaultError(f"{what}: there is no folder {folder}. {fix}")
    if refusal := write_refusal(folder):
        raise MissingError(f"{what}: {folder} takes no file ({refusal}). {fix}")


def write_whole(path: Path, content: bytes, *, shared: bool = False) -> None:
    """Writes so that nobody, after a crash either, sees half of it. Raises OSError that names the path.

    `shared`: what the user asked for, whose mode is by the umask as that of any file; else for them alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if shared:
            # Not every file system can.
            with contextlib.suppress(OSError):
                Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _umask() -> int:
    """It can only be read by setting it."""
    found = os.umask(0o077)
    os.umask(found)
    return found
