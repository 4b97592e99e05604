"""Small truths about files that several steps need."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

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


def write_whole(path: Path, content: bytes) -> None:
    """Writes so that nobody, after a crash either, sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
