"""cmake and ninja: those of the machine when recent enough, else their wheels in the tool's own cache."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.files import scratch_in
from floatllm_build.pip import disk_is_full, fetch_with_pip, last_lines
from floatllm_build.system import System
from floatllm_build.values import Program, ToolchainFacts
from floatllm_build.versions import CMAKE_MINIMUM, NINJA_MINIMUM, version_tuple

_MINIMUM = {"cmake": CMAKE_MINIMUM, "ninja": NINJA_MINIMUM}
# Where the wheels of today and of former years put the program.
_PLACES = {
    "cmake": ("cmake/data/bin/cmake", "cmake/data/CMake.app/Contents/bin/cmake", "bin/cmake"),
    "ninja": ("bin/ninja", "ninja/data/bin/ninja"),
}


def with_tools(system: System, toolchain: ToolchainFacts, cache: Path) -> ToolchainFacts:
    """The toolchain with a usable cmake and ninja. Raises MissingError where one cannot be had."""
    cmake = _usable("cmake", toolchain.cmake) or _from_wheel(system, "cmake", toolchain.cmake, cache)
    ninja = _usable("ninja", toolchain.ninja) or _from_wheel(system, "ninja", toolchain.ninja, cache)
    return replace(toolchain, cmake=cmake, ninja=ninja)


def _usable(name: str, program: Program | None) -> Program | None:
    return program if program and version_tuple(program.version) >= _MINIMUM[name] else None


def _from_wheel(system: System, name: str, found: Program | None, cache: Path) -> Program:
    folder = cache / "tools" / name
    program = _installed(system, name, folder)
    if program:
        return program
    at_least = ".".join(map(str, _MINIMUM[name]))
    with scratch_in(folder.parent, f".{name}-") as scratch:
        wanted = f"{name}>={at_least}"
        done = fetch_with_pip(
            system, cache, "install", "--only-binary=:all:", "--no-deps", "--target", str(scratch), wanted
        )
        if done.rc == 0 and _installed(system, name, scratch):
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
    program = _installed(system, name, folder)
    if program:
        return program
    full = disk_is_full(done)
    if full:
        raise MissingError(
            f"{name} {at_least} or newer is needed, and its wheel could not be fetched: {full}"
        )
    have = f"{found.path} is {found.version}" if found else "there is none on PATH"
    raise MissingError(
        f"{name} {at_least} or newer is needed, {have}, and its wheel could not be used: {last_lines(done)}\n"
        f"Install {name} with the system's package manager ({_package_hint(name)}) and run this again."
    )


def _installed(system: System, name: str, folder: Path) -> Program | None:
    suffix = ".exe" if sys.platform == "win32" else ""
    for place in _PLACES[name]:
        path = folder / (place + suffix)
        if path.is_file() and os.access(path, os.X_OK):
            answer = system.run((str(path), "--version"), timeout=20.0)
            words = answer.out.split()
            if answer.rc == 0 and words:
                return Program(path=str(path), version=words[2] if name == "cmake" else words[0])
    return None


def _package_hint(name: str) -> str:
    return f"Debian: apt install {'ninja-build' if name == 'ninja' else name}; Termux: pkg install {name}"
