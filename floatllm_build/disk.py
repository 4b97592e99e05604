"""What the disk of a folder has free, and whether programs may be run from it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import sys
import tempfile
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.paths import CACHE_FOLDERS, cache_dir
from floatllm_build.start import NOWHERE, TooLateError, start, which

# A CUDA toolkit has some thousand files; more than this are not counted to the end.
_MOST_FILES = 50_000
_REFUSED = {errno.EPERM, errno.EACCES}
_SECONDS = 20.0


def look() -> dict[str, int]:
    """Bytes free where the cache is (`free`), in it already (`held`), free in TMPDIR where that is elsewhere
    (`temp`); files that can still be made (`inodes`); 1 where nothing may be run there (`noexec`).

    What nobody says is left out.
    """
    found: dict[str, int] = {"held": _held(cache_dir())}
    cache, temp = _existing(cache_dir()), Path(tempfile.gettempdir())
    with contextlib.suppress(OSError):
        found["free"] = shutil.disk_usage(cache).free
        if temp.stat().st_dev != cache.stat().st_dev:
            found["temp"] = shutil.disk_usage(temp).free
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            told = os.statvfs(cache)
            # Some file systems make as many as they have room for, and say 0 of 0.
            if told.f_files:
                found["inodes"] = told.f_favail
            # Not every system has a name for it.
            found["noexec"] = int(bool(told.f_flag & getattr(os, "ST_NOEXEC", 0)))
    return found


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((place for place in (folder, *folder.parents) if place.is_dir()), Path(folder.anchor))


def _held(cache: Path) -> int:
    folders = [os.fspath(cache / name) for name in CACHE_FOLDERS]
    size = count = 0
    while folders and count < _MOST_FILES:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    found = entry.stat(follow_symlinks=False)
                    # As much as it really takes of the disk; Windows does not say.
                    size += getattr(found, "st_blocks", found.st_size >> 9) << 9
    return size


def forbids_programs(folder: Path) -> str:
    """Why neither libraries nor programs can be run from a folder, found by trying it; empty where they can.

    Raises OSError where it cannot be written to.
    """
    if sys.platform == "win32":
        return ""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".floatllm-run-", suffix=".sh")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(b"#!/bin/sh\nexit 0\n")
        Path(name).chmod(0o700)
        return _refused_mapping(name) or _refused_start(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _refused_mapping(name: str) -> str:
    """As a library is loaded. Apple's kernel wants a signature for this, which says nothing of the folder."""
    if not sys.platform.startswith(("linux", "android")):
        return ""
    try:
        with Path(name).open("rb") as file:
            mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    except OSError as error:
        # Other file systems cannot map at all; starting a program tells then.
        return error.strerror or str(error) if error.errno in _REFUSED else ""
    return ""


def _refused_start(name: str) -> str:
    shell = which("sh")
    if not shell:
        return ""
    try:
        Path(name).write_text(f"#!{shell}\nexit 0\n", encoding="utf-8")
        child = start((name,), env=os.environ, stdout=NOWHERE, stderr=NOWHERE)
    except OSError as error:
        return error.strerror or str(error) if error.errno in _REFUSED else ""
    try:
        child.wait(_SECONDS)
    except TooLateError:
        child.kill()
        child.wait()
    return ""


def check_runs_programs(cache: Path) -> None:
    """Raises MissingError where nothing can be run from the cache: the tools, the self-test's engine."""
    try:
        refusal = forbids_programs(cache)
    except OSError:
        return  # as on a full disk, where all may be there already
    if refusal:
        raise MissingError(
            f"Nothing may be run from the cache folder {cache}: {refusal}. Its file system is mounted "
            "without permission to execute (noexec), or a security policy forbids it; the build and its "
            "proof run programs from there. Name a folder on another file system in FLOATLLM_CACHE_DIR."
        )


def check_loads_libraries(site: Path) -> None:
    """Raises MissingError where the engine could not be loaded from the environment that it goes into."""
    try:
        refusal = forbids_programs(site)
    except OSError:
        return  # that it cannot be written to is said in other words
    if refusal:
        raise MissingError(
            f"The engine could not be loaded from {site}: {refusal}. Its file system is mounted without "
            "permission to execute (noexec), or a security policy forbids it. Make an environment on another "
            "file system, and name its Python with --python."
        )
