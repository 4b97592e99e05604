"""Brings the package index's CUDA toolkit into the cache: {cache}/cuda/<version>/, whole or not at all.

Its folder `toolkit` is what pip unpacked; `wheels` keeps those of its wheels that the engine needs where it
runs, so that installing these asks no index again.
"""

from __future__ import annotations

import csv
import shutil
import zipfile
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.events import Hint, Listener, Said
from floatllm_build.files import scratch_in, settle
from floatllm_build.pip import fetch_with_pip, last_lines
from floatllm_build.rules.cuda_index import INDEX_REQUIREMENT
from floatllm_build.rules.disk import room_lack, toolkit_room
from floatllm_build.sealed import is_whole, seal
from floatllm_build.sizes import show_size
from floatllm_build.system import System
from floatllm_build.trust import make_private
from floatllm_build.values import PlannedToolkit

# cuBLAS asks for the second of them.
_AT_RUN_TIME = ("nvidia_cublas", "nvidia_cuda_nvrtc", "nvidia_cuda_runtime")
# For each byte of the wheels, what stays: all that is unpacked, and the wheels of `_AT_RUN_TIME`.
_STAYS = 2.6


def home_of(toolkit: PlannedToolkit) -> Path:
    """{cache}/cuda/<version> of a toolkit that is fetched."""
    # .../toolkit/nvidia/cu13/bin/nvcc
    return Path(toolkit.nvcc).parents[4]


def runtime_wheels(toolkit: PlannedToolkit) -> Path:
    """The folder with the wheels that the engine needs where it runs."""
    return home_of(toolkit) / "wheels"


def fetch_toolkit(
    system: System, toolkit: PlannedToolkit, cache: Path, tell: Listener, *, compiles: bool = True
) -> bool:
    """Brings it where it is not there whole; returns whether it had to. Says how much before it downloads.

    `compiles`: all of it is wanted and read, which takes seconds; else only its wheels for the run time.

    Raises MissingError where it cannot be had; the cache then holds nothing of it.
    """
    home = home_of(toolkit)
    if is_whole(home, lambda path: compiles or path.startswith("wheels/")):
        return False
    where, size = home.parent, show_size(toolkit.download)
    stays = show_size(int(toolkit.download * _STAYS))
    tell(
        Hint(
            f"CUDA {toolkit.version} is fetched once from the package index: {size} to download, and {stays} "
            f"in {home}. `floatllm-build clean` deletes it."
        )
    )
    _check_room(where, toolkit_room(toolkit.download))
    with scratch_in(where, ".fetch-") as scratch:
        every = scratch / "all"
        options = ("--only-binary=:all:", "--dest", str(every))
        _pip(system, cache, tell, "download", *options, INDEX_REQUIREMENT)
        wheels = sorted(every.glob("*.whl"))
        unpacked = ("--no-deps", "--no-index", "--no-compile", "--target", str(scratch / "toolkit"))
        _pip(system, cache, tell, "install", *unpacked, *map(str, wheels), asks=False)
        (scratch / "wheels").mkdir()
        for wheel in wheels:
            if wheel.name.startswith(tuple(f"{name}-" for name in _AT_RUN_TIME)):
                wheel.rename(scratch / "wheels" / wheel.name)
        shutil.rmtree(every)
        _check(system, scratch, toolkit)
        seal(scratch)
        shutil.rmtree(home, ignore_errors=True)
        scratch.rename(home)
        settle(where)
    return True


def _check_room(where: Path, needed: int) -> None:
    make_private(where)
    lack = room_lack("CUDA's toolkit takes", needed, str(where), shutil.disk_usage(where).free)
    if lack:
        raise MissingError(lack.told)


def _pip(
    system: System, cache: Path, tell: Listener, command: str, *arguments: str, asks: bool = True
) -> None:
    """Runs pip, for as long as the line takes, and shows what it downloads."""
    rest = ""

    def take(text: str) -> None:
        nonlocal rest
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if line.strip().startswith("Downloading ") and not line.rstrip().endswith(".metadata"):
                tell(Said(f"  {line.strip()}"))

    quiet = ("--progress-bar=off", *arguments)
    fetched = fetch_with_pip(system, cache, command, *quiet, on_text=take, asks=asks)
    if fetched.done.rc == 0:
        return
    raise MissingError(
        f"The CUDA toolkit ({INDEX_REQUIREMENT}) could not be fetched: {fetched.why}"
        "Fix this and run the command again, or install NVIDIA's CUDA toolkit yourself, and set CUDACXX to "
        "its nvcc."
    )


def _check(system: System, home: Path, toolkit: PlannedToolkit) -> None:
    nvcc = home / Path(toolkit.nvcc).relative_to(home_of(toolkit))
    answer = system.run((str(nvcc), "--version"), timeout=60.0)
    if not _is_whole(home) or answer.rc != 0:
        why = last_lines(answer) if answer.rc else "files are missing"
        raise MissingError(
            f"The CUDA toolkit was fetched, but it is of no use: {why}. Where the cache's disk forbids "
            "running programs, name a folder on another one in FLOATLLM_CACHE_DIR; else install NVIDIA's "
            "CUDA toolkit yourself, and set CUDACXX to its nvcc."
        )


def _is_whole(home: Path) -> bool:
    """Whether every file is there with its size, and every wheel that is needed later."""
    records = list(home.glob("toolkit/*.dist-info/RECORD"))
    try:
        whole = all(_has_all(record) for record in records)
    except OSError:
        return False
    wheels = [next(home.glob(f"wheels/{name}-*.whl"), None) for name in _AT_RUN_TIME]
    return bool(records) and whole and all(wheel and zipfile.is_zipfile(wheel) for wheel in wheels)


def _has_all(record: Path) -> bool:
    """Raises OSError where a file of a package is not there."""
    packages = record.parents[1]
    with record.open(encoding="utf-8", newline="") as file:
        rows = [(row[0], row[2]) for row in csv.reader(file) if len(row) > 2 and row[2]]
    return bool(rows) and all((packages / path).stat().st_size == int(size) for path, size in rows)
