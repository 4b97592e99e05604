"""What the disk of a folder has free, and whether programs may be run from it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from floatllm_build.errors import MissingError
from floatllm_build.files import write_refusal
from floatllm_build.paths import CACHE_FOLDERS, cache_dir, existing
from floatllm_build.start import NOWHERE, TooLateError, start, which
from floatllm_build.trust import distrust

# What a build may find here and need not make again. Costs, proofs and errors take next to nothing.
_REUSED = ("build", "cuda", "ggml", "tools", "wheels")
_REFUSED = {errno.EPERM, errno.EACCES}
_SECONDS = 20.0


def look() -> dict[str, Any]:
    """Bytes free where the cache is (`free`), in it already (`held`), of those in `ggml/0.15`, `tools/cmake`
    and the like (`kept`), free in TMPDIR where that is elsewhere (`temp`); files that can still be made
    (`inodes`); 1 where nothing may be run there (`noexec`); why the cache cannot be used (`refusal`).

    What nobody says is left out.
    """
    kept = _kept(cache_dir())
    others = (taken(cache_dir() / name) for name in CACHE_FOLDERS if name not in _REUSED)
    found: dict[str, Any] = {"held": sum(kept.values()) + sum(others), "kept": kept}
    if refusal := _refusal(cache_dir()):
        found["refusal"] = refusal
    cache, temp = existing(cache_dir()), Path(tempfile.gettempdir())
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


def _refusal(cache: Path) -> str:
    """Why the cache cannot be used, without names: the end of a sentence that begins with it; else empty.

    What `install` finds out as it begins to work there; here nothing is made and nothing is put right.
    """
    try:
        place = existing(cache)
        unwritten = os.strerror(errno.EEXIST) if cache.is_file() else write_refusal(place)
        refused = f"cannot be written to: {unwritten}" if unwritten else ""
        # Where it is not there yet it has to be made first.
        return (refused if place != cache else "") or distrust(cache, CACHE_FOLDERS) or refused
    except OSError as error:
        # A home that this user may not look into.
        return f"cannot be written to: {error.strerror or error}"


def _kept(cache: Path) -> dict[str, int]:
    """What each entry of the folders takes that a later build may reuse."""
    found = {}
    for name in _REUSED:
        with contextlib.suppress(OSError), os.scandir(cache / name) as entries:
            for entry in entries:
                found[f"{name}/{entry.name}"] = taken(Path(entry.path))
    return found


def taken(place: Path) -> int:
    """Bytes that a file or a folder really takes of the disk, or what a link to one leads to. A file with
    several names counts once.

    Windows does not say; there it is the length of the files.
    """
    seen: dict[tuple[int, int], int] = {}
    waiting = [os.path.realpath(place)]
    while waiting:
        path = waiting.pop()
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if stat.S_ISDIR(found.st_mode):
                waiting += (os.path.join(path, name) for name in os.listdir(path))  # noqa: PTH118, PTH208  thousands
            else:
                blocks = getattr(found, "st_blocks", None)
                size = found.st_size if blocks is None else blocks * 512
                seen[(found.st_dev, found.st_ino or len(seen))] = size
    return sum(seen.values())


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
    """Raises MissingError if the engine cannot be loaded from the environment that it goes into, or is in."""
    try:
        refusal = forbids_programs(site)
    except OSError:  # this user may not write there
        libraries = site.glob("floatllm/*.so*")
        refusal = next(filter(None, (_refused_mapping(str(path)) for path in libraries)), "")
    if refusal:
        raise MissingError(
            f"The engine could not be loaded from {site}: {refusal}. Its file system is mounted without "
            "permission to execute (noexec), or a security policy forbids it. Make an environment on another "
            "file system, and name its Python with --python."
        )
