"""A build folder, and how its children are run: for the steps that compile and that pack."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from floatllm_build.diagnosis import diagnose
from floatllm_build.errors import BuildFailedError
from floatllm_build.ninja import STATUS, first_errors
from floatllm_build.process import run_child
from floatllm_build.sizes import show_size
from floatllm_build.values import Plan, ToolchainFacts

# Would change what is built behind the plan's back, or what the children print.
NOT_INHERITED = (
    *("CMAKE_ARGS", "CMAKE_GENERATOR", "CMAKE_BUILD_TYPE", "CMAKE_TOOLCHAIN_FILE", "CMAKE_INSTALL_PREFIX"),
    *("CMAKE_BUILD_PARALLEL_LEVEL", "CMAKE_COLOR_DIAGNOSTICS", "CMAKE_INSTALL_MODE", "DESTDIR"),
    *("MAKEFLAGS", "MFLAGS", "NINJA_STATUS", "CLICOLOR_FORCE", "VERBOSE", "LANG", "LANGUAGE", "GGML_DIR"),
)


# Options of the user's own that reach the compilers.
FLAGS = (
    *("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDAFLAGS", "HIPFLAGS"),
    *("NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS", "CL", "_CL_", "LINK", "_LINK_"),
)
# Bytes free on a disk where a unit may have found no room.
_FULL = 8 << 20


@dataclass(frozen=True)
class Folder:
    """One build folder: {cache}/build/<name>."""

    root: Path

    @property
    def sources(self) -> Path:
        return self.root / "src"

    @property
    def native(self) -> Path:
        return self.sources / "native"

    def project(self, plugin: str) -> Path:
        """The folder of the wheel's pyproject.toml; `plugin` as the plan has it."""
        return self.native / "plugins" / plugin if plugin else self.native

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def log(self) -> Path:
        return self.root / "build.log"

    @property
    def flags(self) -> Path:
        """Further compiler flags, read by the compilers themselves: changing them recompiles nothing."""
        return self.root / "memory.flags"


def child_environment(plan: Plan, toolchain: ToolchainFacts) -> dict[str, str]:
    """What cmake, ninja, the compilers and the packer see: ours, less what would speak against the plan."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in NOT_INHERITED and not name.startswith(("SKBUILD_", "NINJA_"))
    }
    # A fixed time makes the wheel the same byte for byte; ggml would turn its native build off when it
    # sees one, but the presets decide that.
    env.update({"LC_ALL": "C", "SOURCE_DATE_EPOCH": "315532800", "NINJA_STATUS": STATUS})
    if plan.cc:
        env["CC"] = plan.cc
    if plan.cxx:
        env["CXX"] = plan.cxx
    if toolchain.cmake and toolchain.ninja:
        env["CMAKE_EXECUTABLE"] = toolchain.cmake.path
        # The packer looks for ninja on PATH; at its end, so that compilers are found where they were.
        env["PATH"] = os.pathsep.join((env.get("PATH", os.defpath), str(Path(toolchain.ninja.path).parent)))
    return env


def cmake_options(plan: Plan, toolchain: ToolchainFacts, ggml_folder: str, folder: Folder) -> tuple[str, ...]:
    """The plan's cmake line without program, source and build folder, with its words filled in."""
    ninja = toolchain.ninja.path if toolchain.ninja else "ninja"
    filled = (word.replace("{ggml}", ggml_folder) for word in plan.cmake[7:])
    flags = f"-DFLOATLLM_FLAGS_FILE={folder.flags}"
    return (f"--preset={plan.preset}", "-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}", flags, *filled)


def run_logged(argv: tuple[str, ...], folder: Folder, env: Mapping[str, str], cwd: Path) -> tuple[int, str]:
    """Runs a child and appends what it says to the log; returns its exit status and that text."""
    said: list[str] = []
    with folder.log.open("a", encoding="utf-8", errors="replace") as log:

        def take(text: str) -> None:
            said.append(text)
            log.write(text)
            log.flush()

        log.write(f"$ {' '.join(argv)}\n")
        status = run_child(argv, cwd=cwd, env=env, on_text=take)
        if status < 0:
            take(f"\n{Path(argv[0]).name} was ended by signal {-status}\n")
    return status, "".join(said)


def failure(what: str, text: str, folder: Folder) -> BuildFailedError:
    """The error of a failed child: the cause and the fix where they are known, its first errors, the log."""
    found = diagnose(text)
    yours = "" if found and found.is_of_machine else _flags_first()
    free = shutil.disk_usage(folder.root).free
    if found:
        cause, fix = f" {found.cause}.", f"To go on: {yours}{found.fix}.\n"
    elif free < _FULL:
        # Archivers end without a word.
        cause, fix = f" only {show_size(free)} are free on the disk.", f"{free_space_hint(folder)}\n"
    else:
        cause, fix = "", f"To go on: {yours.removesuffix('; else ')}.\n" if yours else ""
    lines = "".join(f"  {line}\n" for line in first_errors(text))
    return BuildFailedError(
        f"{what} failed:{cause}\n{lines}{fix}Everything it said is in {folder.log}", log=str(folder.log)
    )


def _flags_first() -> str:
    """The variables by which the user changes what compilers get: the first suspects of what they refuse."""
    given = ((name, os.environ.get(name, "").strip()) for name in FLAGS)
    told = [f"{name} (`{value[:200]}`)" for name, value in given if value]
    if not told:
        return ""
    return f"unset {' and '.join(told)}, which changes what the compilers get, and run this again; else "


def free_space_hint(folder: Folder) -> str:
    return (
        f"The disk is full: free space where {folder.root} is, or name a folder on another disk in "
        "FLOATLLM_CACHE_DIR, and run this again."
    )
