"""What the plan needs and the machine lacks, each with the command that brings it."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Literal

from floatllm_build.errors import MissingError
from floatllm_build.rules.compilers import compiler_lack
from floatllm_build.rules.cost import is_recent
from floatllm_build.rules.limits import limits_fix, limits_named
from floatllm_build.rules.packages import install_command, manager, new_venv
from floatllm_build.rules.tool_wheels import why_no_tool_wheel
from floatllm_build.values import Host, Lack, Note, Target
from floatllm_build.versions import CMAKE_MINIMUM, NINJA_MINIMUM, PYTHON_MINIMUM

_PLACE = "an environment to install into"
ToolName = Literal["cmake", "ninja"]
_NAMED_TOOLS: tuple[tuple[str, ToolName], ...] = (
    ("CMAKE_EXECUTABLE", "cmake"),
    ("NINJA", "ninja"),
)
_COMPILERS = {"cc", "gcc", "clang", "c++", "g++", "clang++", "cl"}


def find_lacks(host: Host, *, installs: bool = True) -> tuple[Lack, ...]:
    """What every plan needs: compilers; the cmake and ninja that the user named, and any if there is no wheel
    of them for this machine; and, if the engine is to be installed and not only packed (`installs`), an
    environment that can take it.
    """
    lacks = [*_compilers(host), *_tools(host)]
    if installs:
        lacks += _place(host)
    return tuple(lacks)


def check_lacks(lacks: tuple[Lack, ...]) -> None:
    """Raises MissingError that names them all."""
    if lacks:
        raise MissingError("\n".join(lack.told for lack in lacks))


def check_target(target: Target) -> None:
    """Raises MissingError where the engine must not or cannot go into that environment."""
    if lack := _refused(target):
        raise MissingError(f"{lack.why[0].upper()}{lack.why[1:]}. To go on: {lack.fix}")


# ---- what compiles ------------------------------------------------------------------------------


def _compilers(host: Host) -> list[Lack]:
    chain = host.toolchain
    if not chain.c or not chain.cxx:
        # Where there is one that does not work, what to install is not the question.
        named = [note for note in host.notes if note.source in ("CC", "CXX")]
        broken = [note for note in host.notes if _is_of_compiler(note)]
        fix = install_command(host.os, "c++")
        if named:
            fix = f"correct or unset {' and '.join(note.source for note in named)}"
        elif broken and host.limits:
            fix = limits_fix(host)
        elif broken:
            asked = " and ".join(dict.fromkeys(f"`{note.source}`" for note in broken))
            fix = f"see why {asked} will not answer, or set CC and CXX to compilers that do"
        elif host.os.name == "Windows" and chain.msvc:
            fix = f"run this from the `x64 Native Tools Command Prompt` of {chain.msvc[0].path}"
        told = dict.fromkeys(f"{note.source}: {note.said}" for note in (*named, *broken))
        why = "; ".join(told) or "the engine is compiled here"
        return [Lack(what="a C and C++ compiler", why=why, fix=fix)]
    if host.os.name == "Windows" and host.cpu.arch == "arm64" and chain.cxx.kind == "msvc":
        return [
            Lack(
                what="clang",
                why="ggml refuses to be compiled by MSVC for ARM",
                fix="winget install LLVM.LLVM, then set CC=clang and CXX=clang++",
            )
        ]
    lack = compiler_lack(host)
    return [lack] if lack else []


def _is_of_compiler(note: Note) -> bool:
    """A command that was asked who it is: `c++ --version`, `ccache g++ --version`, `cl`."""
    words = note.source.removesuffix(" --version").split()
    return bool(words) and PureWindowsPath(words[-1]).name.lower().removesuffix(".exe") in _COMPILERS


def _tools(host: Host) -> list[Lack]:
    chain = host.toolchain
    good = {
        "cmake": is_recent(chain.cmake, CMAKE_MINIMUM),
        "ninja": is_recent(chain.ninja, NINJA_MINIMUM),
    }
    named = {note.source: note.said for note in reversed(host.notes)}
    no_wheel = why_no_tool_wheel(host)
    needed = [name for variable, name in _NAMED_TOOLS if not good[name] and variable not in named]
    lacks = []
    for variable, name in _NAMED_TOOLS:
        if variable in named:
            why, fix = f"{variable}: {named[variable]}", f"correct or unset {variable}"
            lacks.append(Lack(what=name, why=why, fix=fix))
        elif name in needed and no_wheel:
            lacks.append(Lack(what=name, why=no_wheel, fix=_bring(host, name, needed)))
    return lacks


def _bring(host: Host, name: ToolName, needed: list[ToolName]) -> str:
    # Where packages come with a shell of their own, both have to be in the same one.
    shell = manager(host.os) in {"nix-shell", "guix"}
    return install_command(host.os, *(needed if shell else [name]))


# ---- where it goes ------------------------------------------------------------------------------


def _place(host: Host) -> list[Lack]:
    target = host.target
    if target is None:
        why = "the Python that would be installed into does not answer; `detect --why` shows what it said"
        if host.limits:
            return [Lack(what=_PLACE, why=f"{why}; {limits_named(host)}, was met", fix=limits_fix(host))]
        return [Lack(what=_PLACE, why=why, fix=_into_a_new_one(windows=host.os.name == "Windows"))]
    lack = _refused(target) or _of_another_platform(host, target)
    return [lack] if lack else []


def _into_a_new_one(*, windows: bool) -> str:
    make, python = new_venv(windows=windows)
    return f"{make} && floatllm-build install --python {python}"


def _refused(target: Target) -> Lack | None:
    where = f"{target.prefix} (by {target.chosen_by})"
    elsewhere = _into_a_new_one(windows=target.platform.startswith("win"))
    own = {"pipx": "pipx keeps", "uv-tool": "uv keeps", "uvx": "uvx made"}.get(target.kind)
    if own:
        return Lack(
            what=_PLACE,
            why=f"the environment {where} is one that {own} for this tool alone; an engine there would be "
            "out of your programs' reach",
            fix=elsewhere,
        )
    if target.externally_managed:
        return Lack(
            what=_PLACE,
            why=f"the Python in {where} is managed by the operating system, which forbids installing into it",
            fix=elsewhere,
        )
    if target.version < PYTHON_MINIMUM or target.bits != 64:
        version = ".".join(map(str, target.version))
        return Lack(
            what=_PLACE,
            why=f"the Python in {where} is a {target.bits}-bit {version}; the engine needs 64 bits and "
            f"{'.'.join(map(str, PYTHON_MINIMUM))} or newer",
            fix="name another Python that has both: floatllm-build install --python PYTHON",
        )
    return None


def _of_another_platform(host: Host, target: Target) -> Lack | None:
    """The wheel's tag would not be the target's: another machine, or another C library with its own name.

    Two Pythons of a Mac may differ in the version of the system; that shows when the wheel has its tag.
    """
    own, its = host.python.platform, target.platform
    if own.startswith("macosx") and its.startswith("macosx"):
        own, its = own.rpartition("-")[2], its.rpartition("-")[2]
    if own == its:
        return None
    program = target.executable
    return Lack(
        what=_PLACE,
        why=f"floatllm-build runs in a Python for {host.python.platform} and builds for that; "
        f"{program} is for {target.platform}",
        fix=f"{program} -m pip install floatllm-build && {program} -m floatllm_build install",
    )
