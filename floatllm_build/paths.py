"""Where the tool's own files are, and where it keeps what it makes."""

from __future__ import annotations

import os
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
    """FLOATLLM_CACHE_DIR, else the user's cache folder. ggml/FloatllmGgml.cmake has the same rule."""
    chosen = os.environ.get("FLOATLLM_CACHE_DIR")
    return Path(chosen).absolute() if chosen else Path(platformdirs.user_cache_dir("floatllm"))
