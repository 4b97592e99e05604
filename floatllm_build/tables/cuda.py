"""What is known of CUDA toolkits that do not say it themselves, or say it wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# ggml's CMake asks for no version. 86, which its list for unknown GPUs always holds, came with 11.1 (read).
OLDEST_TOOLKIT = (11, 1)
# First toolkit that knows a capability (NVIDIA's release notes); 13.0 dropped what is older than 75.
_KNOWN_SINCE: tuple[tuple[tuple[int, int], tuple[str, ...]], ...] = (
    ((11, 0), ("50", "52", "53", "60", "61", "62", "70", "72", "75", "80")),
    ((11, 1), ("86",)),
    ((11, 4), ("87",)),
    ((11, 8), ("89", "90")),
    ((12, 8), ("100", "120")),
    ((12, 9), ("103", "121")),
    ((13, 0), ("110",)),
)
OLDEST_OF_13 = 75
# Major version of CUDA -> first driver on Linux that runs its code (NVIDIA's CUDA release notes, table of
# minor version compatibility; read in November 2026).
FIRST_DRIVER: Mapping[int, int] = {11: 450, 12: 525, 13: 580}
# On Arm, glibc has vector functions since the first, and nvcc knows GCC's types for them (__Float32x4_t)
# since the second (vllm-project/vllm#9964, AOSC-Dev/aosc-os-abbs#6151, canonical/inference-snaps#114).
VECTORS_SINCE_GLIBC, VECTORS_SINCE_CUDA = (2, 38), (12, 5)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A compiler that a toolkit's header lets through and that it cannot compile with."""

    since: tuple[int, int]
    before: tuple[int, int]
    """Versions of the toolkit."""
    kind: str
    major: int
    """The oldest major version that fails."""
    why: str


# ggml-org/llama.cpp#11112, #9554 (11.5), NVIDIA/FasterTransformer#793 (11.6.55), NVIDIA/nccl#650; read in
# November 2026. For older ones there is no report; their headers take gcc 11 since 11.4.
_FAILURES = (
    Failure(
        since=(11, 1),
        before=(11, 7),
        kind="gcc",
        major=11,
        why="its header lets gcc 11 through, and it fails in <functional> (std_function.h: parameter packs "
        "not expanded)",
    ),
)
# Newest _MSC_VER of toolkits before a version (microsoft/vcpkg#18958, #36145, NVIDIA's installation guide for
# Windows): Visual Studio 2019 at first, 2022 up to 17.9, then all of 2022.
_NEWEST_MSVC = (((11, 6), 1929), ((12, 4), 1939), ((13, 1), 1949))


def architectures_of(version: tuple[int, ...]) -> tuple[str, ...]:
    """What a toolkit of the version can compile for."""
    known = [name for since, names in _KNOWN_SINCE if version >= since for name in names]
    return tuple(name for name in known if version < (13,) or int(name) >= OLDEST_OF_13)


def failure_of(version: tuple[int, ...], kind: str, major: int = 1000) -> Failure | None:
    """What goes wrong with a toolkit of the version and a host compiler; None if nothing is known to."""
    for one in _FAILURES:
        if one.since <= version < one.before and one.kind == kind and major >= one.major:
            return one
    return None


def newest_msvc_of(version: tuple[int, ...]) -> int:
    """Newest _MSC_VER that a toolkit of the version takes, 0 unknown."""
    return next((newest for before, newest in _NEWEST_MSVC if () < version < before), 0)
