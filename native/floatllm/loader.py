"""What the system's loader says of a library that it cannot load, and what helps."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_CUDA = "CUDA's run-time libraries are missing: pip install --force-reinstall floatllm-cuda13 brings them"
# Missing libraries that are no part of the engine, and what brings them.
_DRIVERS = {
    "libcuda.so": "NVIDIA's driver is not installed",
    "libcudart.so": _CUDA,
    "libcublas": _CUDA,
    "libvulkan.so": "the Vulkan loader is missing: install the GPU's driver and its Vulkan loader "
    "(Debian: apt install libvulkan1 mesa-vulkan-drivers)",
    "libamdhip64": "ROCm's run-time libraries are not installed",
    "libhipblas": "ROCm's run-time libraries are not installed",
}
# glibc: PATH: version `GLIBCXX_3.4.30' not found (required by PATH)
_OLDER = re.compile(
    r"(?:(?P<library>/[^:]*): )?version [`'](?P<what>GLIBCXX|CXXABI|GCC|GLIBC)_[^']*' not found"
)


def explained(said: str, *, conda: bool | None = None) -> str:
    """The loader's words, after what to do where that is known.

    `conda`: whether Python is conda's; None asks this one.
    """
    advice = _advice(said, in_conda() if conda is None else conda)
    return f"{advice} ({said})" if advice else said


def in_conda() -> bool:
    """Whether this Python belongs to conda, which has a C++ runtime of its own."""
    return Path(sys.base_prefix, "conda-meta").is_dir()


def _advice(said: str, conda: bool) -> str:
    missing = said.split(": cannot open shared object", maxsplit=1)[0]
    for name, text in _DRIVERS.items():
        if name in missing:
            return text
    older = _OLDER.search(said)
    if older:
        return _newer(older["what"], older["library"] or "", conda)
    # What glibc and musl say of a file system that is mounted noexec.
    if re.search("failed to map segment|shared (object|library).*: Operation not permitted", said):
        return (
            "its folder is on a file system without permission to execute (noexec): install it into an "
            "environment on another one"
        )
    return ""


def _newer(what: str, library: str, conda: bool) -> str:
    if what == "GLIBC":
        return (
            "it was built with a newer C library than the one that this Python runs with: build it with a "
            "compiler of the system that Python belongs to"
        )
    # Whatever is built with the same compiler asks for the same runtime again.
    why = f"this Python loads an older C++ runtime than the compiler's{f', {library}' if library else ''}"
    if conda:
        return f"{why}: conda install -c conda-forge libstdcxx-ng brings a newer one"
    return (
        f"{why}: take its folder out of LD_LIBRARY_PATH, or install the compiler's static one (Fedora: dnf "
        "install libstdc++-static) and run `floatllm-build install` again"
    )
