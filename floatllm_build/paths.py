"""Where the tool's own files are, and where it keeps what it makes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import platformdirs

from floatllm_build.errors import MissingError

CACHE_FOLDERS = ("build", "costs", "cuda", "errors", "ggml", "proofs", "tools", "wheels")

_HERE = Path(__file__).resolve().parent


def data_dir() -> Path:
    """The folder that holds native/, presets/ and ggml/: inside the installed tool, or the checkout."""
    for folder in (_HERE / "data", _HERE.parent):
        if (folder / "native" / "CMakeLists.txt").is_file():
            return folder
    raise MissingError(
        f"This floatllm-build lacks the engine's sources (looked in {_HERE / 'data'} and {_HERE.parent}): "
        "its installation is damaged. Install it again."
    )


def cache_dir() -> Path:
    """FLOATLLM_CACHE_DIR, else the user's cache folder. ggml/FloatllmGgml.cmake has this rule too.

    For root it is root's own, even where HOME is another user's, as sudo leaves it on a Mac: whoever owns a
    home can replace what lies in it. That is the tool's rule alone; CMake goes where HOME leads.
    """
    chosen = os.environ.get("FLOATLLM_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute()
    return _own_cache_of_root() if borrowed_home() else _usual_cache()


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    # Path.is_dir() raises for a home that this user may not look into.
    there = (place for place in (folder, *folder.parents) if os.path.isdir(place))  # noqa: PTH112
    return next(there, Path(folder.anchor))


def borrowed_home() -> str:
    """A folder of another user in which root's cache would lie, since HOME leads there; else empty."""
    if sys.platform == "win32" or os.geteuid() != 0 or os.environ.get("FLOATLLM_CACHE_DIR"):
        return ""
    foreign = _foreign_above(_usual_cache())
    # In some containers the root folder itself is another's, and no cache is better than the other.
    return "" if _foreign_above(_own_cache_of_root()) else foreign


def _usual_cache() -> Path:
    return Path(platformdirs.user_cache_dir("floatllm"))


def _foreign_above(cache: Path) -> str:
    """The first folder above it that is not root's."""
    for folder in reversed(cache.parents):
        with contextlib.suppress(OSError):  # one that is not there yet will be root's
            if folder.stat().st_uid != 0:
                return str(folder)
    return ""


def _own_cache_of_root() -> Path:
    import pwd  # noqa: PLC0415  not on Windows

    try:
        home = Path(pwd.getpwuid(0).pw_dir)
    except KeyError:
        home = Path("/root")
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "floatllm"
