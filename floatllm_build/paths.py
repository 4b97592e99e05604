"""Where the tool's own files are, and where it keeps what it makes."""

from __future__ import annotations

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
    """FLOATLLM_CACHE_DIR, else the user's cache folder. ggml/FloatllmGgml.cmake has the same rule.

    For root it is root's own, even where HOME is another user's, as sudo leaves it on a Mac: whoever owns a
    home can replace what lies in it.
    """
    chosen = os.environ.get("FLOATLLM_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute()
    usual = Path(platformdirs.user_cache_dir("floatllm"))
    return _own_cache_of_root() if borrowed_home() else usual


def borrowed_home() -> str:
    """The home of another user that root was given, where the cache would lie in it; else empty."""
    if sys.platform == "win32" or os.geteuid() != 0 or os.environ.get("FLOATLLM_CACHE_DIR"):
        return ""
    usual = Path(platformdirs.user_cache_dir("floatllm"))
    home = Path.home()
    if not usual.is_relative_to(home) or _own_cache_of_root().is_relative_to(home):
        return ""
    try:
        return "" if home.stat().st_uid == 0 else str(home)
    except OSError:
        return ""  # it will be made, and is root's then


def _own_cache_of_root() -> Path:
    import pwd  # noqa: PLC0415  not on Windows

    try:
        home = Path(pwd.getpwuid(0).pw_dir)
    except KeyError:
        home = Path("/root")
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "floatllm"
