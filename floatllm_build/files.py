"""Small truths about files that several steps need."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from floatllm_build.errors import UsageFaultError

_PIECE = 1 << 20


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def remove_folder(folder: Path) -> str:
    """Deletes a folder as far as it can be; returns what stayed first and why, or nothing."""
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

    Those that a killed tool has left go first. Only for who holds the lock.
    """
    home.mkdir(parents=True, exist_ok=True)
    for folder in home.glob(f"{prefix}*"):
        shutil.rmtree(folder, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=home, prefix=prefix))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def in_the_future(folder: Path) -> list[Path]:
    """Files below `folder` that are younger than the clock says, as after it was set back."""
    # File systems keep times as coarse as two seconds.
    latest = time.time() + 2
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime > latest]


def ordinary(path: Path, what: str) -> Path:
    """Where `write_whole` may write: a link stays one, and a device or a pipe is not replaced by a file.

    Raises UsageFaultError for these; `what` begins its sentence: "The host cannot be saved".
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise UsageFaultError(f"{what} to {path}: that is no ordinary file. Name a file.")
    return target


def write_whole(path: Path, content: bytes) -> None:
    """Writes so that nobody, after a crash either, sees half of it. Raises OSError that names the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
