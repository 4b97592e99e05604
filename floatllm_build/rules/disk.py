"""What a build takes of the disk, as far as it was measured, and what the disk that is there lacks for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PureWindowsPath

from floatllm_build.presets import Preset
from floatllm_build.sizes import MIB, show_size
from floatllm_build.values import Backend, Download, Host, Lack, Plan, PlannedToolkit

# Measured in December 2026 on ext4 (du): llama.cpp's tree, and the archive that it is taken from, which goes
# again; what the wheels of the tools hold once unpacked.
_TREE = 19 * MIB
_ARCHIVE = 36 * MIB
_SOURCE = _TREE + _ARCHIVE
_UNPACKED: Mapping[str, int] = {"cmake": 87 * MIB, "ninja": MIB, "auditwheel and patchelf": 6 * MIB}
# Where they lie in the cache once they are there.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "cmake": ("tools/cmake",),
    "ninja": ("tools/ninja",),
    "auditwheel and patchelf": ("tools/auditwheel", "tools/patchelf"),
}
# Build folder, and wheel: packed, in the cache, and unpacked for its proof. Of `cpu` measured in December
# 2026 with GCC 12 on x86-64. The others are lower bounds, which are told as "at least".
# cuda: as the review of December 2026 gave it for one architecture on an H200 with 16 jobs, and not measured
# again: a wheel of 22 MiB, roughly 400 MiB in the build folder. Further architectures come on top.
# vulkan, hip and metal: not measured. Each compiles what `cpu` does, and its own kernels besides (vulkan:
# about a thousand shaders).
_BUILD: Mapping[Backend, int] = {"cuda": 400 * MIB}
_WHEEL: Mapping[Backend, int] = {"cuda": 3 * 22 * MIB}
_BUILD_OF_CPU = 14 * MIB
_WHEEL_OF_CPU = 6 * MIB
# The variants of the CPU's kernels besides the first, reckoned: 1.9 MiB of objects for each, and as much
# again for its library.
_VARIANTS = 13 * 4 * MIB
# For each byte of the CUDA toolkit's wheels, while they are unpacked: the wheels themselves and what is in
# them (measured: 620 MB, 1.05 GB).
_TOOLKIT = 2.8
# Files and folders of a tree of ggml and a build (measured together), and those of cmake's wheel: 4,272.
_FILES = 1_600
_FILES_OF_CMAKE = 4_300
# The compilers' assembly, for each job, and what pip unpacks there. Of llama.cpp's archive that is all of it
# (measured: 245 MB with what its metadata is made with).
_TEMP_PER_JOB = 8 * MIB
_TEMP_PER_DOWNLOAD = 4
_TEMP_OF_SOURCE = 250 * MIB


def disk_needed(preset: Preset, downloads: tuple[Download, ...], toolkit: PlannedToolkit | None) -> int:
    """Bytes that a build takes in an empty cache; at least, where its backend was not measured."""
    tools = sum(_UNPACKED.get(one.what, 0) for one in downloads)
    kit = toolkit_room(toolkit.download) if toolkit else 0
    every = _VARIANTS if preset.variables.get("GGML_CPU_ALL_VARIANTS") == "ON" else 0
    build = _BUILD.get(preset.backend, _BUILD_OF_CPU) + every
    return _SOURCE + tools + kit + build + _wheel(preset.backend)


def toolkit_room(download: int) -> int:
    """Bytes that a CUDA toolkit takes while it is fetched."""
    return int(download * _TOOLKIT)


def room_lack(what: str, needed: int, where: str, free: int) -> Lack | None:
    """The lack where fewer bytes are free in a folder than `what` ("the build takes") needs."""
    if free >= needed:
        return None
    return Lack(
        what="room on the disk",
        why=f"{what} {show_size(needed)} in {where}, where {show_size(free)} are free",
        fix="free space there, or name a folder on another disk in FLOATLLM_CACHE_DIR",
    )


def disk_lacks(
    host: Host, plan: Plan, cache: str = "the cache's folder", *, ggml: str = "", build: str = ""
) -> tuple[Lack, ...]:
    """What the cache's disk lacks for a build that starts now; `cache` as the sentences name it.

    `ggml` and `build` name the folders in {cache}/ggml and {cache}/build that it will use. Where the second
    is not known yet (empty), it may be any of the plan's preset.
    """
    disk = host.disk
    if disk.refusal:
        # What is free there is nothing that a build could use.
        return (
            Lack(
                what="a cache that can be used",
                why=f"{cache} {disk.refusal}",
                fix="make it writable, and for you alone, or name another folder in FLOATLLM_CACHE_DIR",
            ),
        )
    if disk.noexec:
        return (
            Lack(
                what="a cache that programs can be run from",
                why=f"{cache} is on a file system without permission to execute (noexec)",
                fix="name a folder on another file system in FLOATLLM_CACHE_DIR",
            ),
        )
    there = _there(plan, {one.what: one.size for one in disk.kept}, ggml, build)
    lacks = []
    what = "the build takes" if plan.backend == "cpu" else "the build takes at least"
    room = (
        room_lack(what, max(0, plan.disk - sum(there.values())), cache, disk.free)
        if disk.free is not None
        else None
    )
    files = _files(plan, there)
    if room:
        lacks.append(room)
    elif disk.inodes is not None and disk.inodes < files:
        why = f"the build makes {files:,} files in {cache}, where {disk.inodes:,} more can be made"
        fix = "delete files there, or name a folder on another disk in FLOATLLM_CACHE_DIR"
        lacks.append(Lack(what="room for files on the disk", why=why, fix=fix))
    temp = _temp_needed(plan, there)
    if disk.temp is not None and disk.temp < temp:
        why = f"compilers and pip take {show_size(temp)} in TMPDIR, where {show_size(disk.temp)} are free"
        lacks.append(
            Lack(what="room in TMPDIR", why=why, fix="free space there, or set TMPDIR to a folder elsewhere")
        )
    return tuple(lacks)


def _wheel(backend: Backend) -> int:
    return _WHEEL.get(backend, _WHEEL_OF_CPU)


def _there(plan: Plan, kept: Mapping[str, int], ggml: str, build: str) -> dict[str, int]:
    """Bytes of what the plan needs and need not make again, at most as many as it reckons with for each.

    What other plans left behind does not count.
    """
    tree = kept.get(f"ggml/{ggml}", 0)
    parts = {"ggml": (_SOURCE, tree + _ARCHIVE if tree else 0)}
    for one in plan.downloads:
        places = _PLACES.get(one.what, ())
        if places and all(place in kept for place in places):
            parts[one.what] = (_UNPACKED[one.what], sum(kept[place] for place in places))
    kit = toolkit_room(plan.toolkit.download) if plan.toolkit else 0
    # .../cuda/13.4.3/toolkit/nvidia/cu13/bin/nvcc, with the separators of either system; whole or not at all.
    if plan.toolkit and kit and f"cuda/{PureWindowsPath(plan.toolkit.nvcc).parents[4].name}" in kept:
        parts["toolkit"] = (kit, kit)
    tools = sum(_UNPACKED.get(one.what, 0) for one in plan.downloads)
    rest = plan.disk - _SOURCE - tools - kit - _wheel(plan.backend)
    folder = re.compile(re.escape(build) if build else rf"{re.escape(plan.preset)}-[0-9a-f]{{10}}")
    folders = (size for name, size in kept.items() if folder.fullmatch(name.removeprefix("build/")))
    parts["build"] = (rest, max(folders, default=0))
    return {name: min(reckoned, size) for name, (reckoned, size) in parts.items() if size}


def _files(plan: Plan, there: Mapping[str, int]) -> int:
    """Of a tree of ggml and of a build folder, only both make no new files."""
    own = 0 if {"ggml", "build"} <= there.keys() else _FILES
    cmake = "cmake" not in there and any(one.what == "cmake" for one in plan.downloads)
    return own + _FILES_OF_CMAKE * cmake


def _temp_needed(plan: Plan, there: Mapping[str, int]) -> int:
    # The toolkit is unpacked where it stays.
    fetched = (one for one in plan.downloads if one.what in _UNPACKED and one.what not in there)
    source = 0 if "ggml" in there else _TEMP_OF_SOURCE
    tools = sum(one.size for one in fetched) * _TEMP_PER_DOWNLOAD
    # They are fetched one after another.
    return max(plan.jobs * _TEMP_PER_JOB, source, tools)
