"""What the plan needs and the machine lacks, each with the command that brings it."""

from __future__ import annotations

from floatllm_build.errors import MissingError
from floatllm_build.rules.cost import is_recent
from floatllm_build.rules.packages import install_command
from floatllm_build.values import Host, Lack, Plan, Target
from floatllm_build.versions import CMAKE_MINIMUM, NINJA_MINIMUM, PYTHON_MINIMUM

_PLACE = "an environment to install into"


def find_lacks(host: Host, plan: Plan, *, installs: bool = True) -> tuple[Lack, ...]:
    """Compilers; on Android cmake and ninja, of which there is no wheel to fetch; and, where the engine is to
    be installed and not only packed (`installs`), an environment that can take it.
    """
    lacks = [*_compilers(host), *_tools(host)]
    if installs:
        lacks += _place(host, plan)
    return tuple(lacks)


def check_lacks(lacks: tuple[Lack, ...]) -> None:
    """Raises MissingError that names them all."""
    if lacks:
        lines = (f"{lack.what} is missing ({lack.why}). To get it: {lack.fix}." for lack in lacks)
        raise MissingError("\n".join(lines))


def check_target(target: Target) -> None:
    """Raises MissingError where the engine must not or cannot go into that environment."""
    if lack := _refused(target):
        raise MissingError(f"{lack.why[0].upper()}{lack.why[1:]}. To go on: {lack.fix}")


# ---- what compiles ------------------------------------------------------------------------------


def _compilers(host: Host) -> list[Lack]:
    chain = host.toolchain
    if not chain.c or not chain.cxx:
        fix = install_command(host.os, "c++")
        if host.os.name == "Windows" and chain.msvc:
            fix = f"run this from the `x64 Native Tools Command Prompt` of {chain.msvc[0].path}"
        # A compiler that the user named and that is not there: what to install is not the question then.
        named = [note for note in host.notes if note.source in ("CC", "CXX")]
        if named:
            fix = f"correct or unset {' and '.join(note.source for note in named)}"
        why = "; ".join(f"{note.source}: {note.said}" for note in named) or "the engine is compiled here"
        return [Lack(what="a C and C++ compiler", why=why, fix=fix)]
    if host.os.name == "Windows" and host.cpu.arch == "arm64" and chain.cxx.kind == "msvc":
        return [
            Lack(
                what="clang",
                why="ggml refuses to be compiled by MSVC for ARM",
                fix="winget install LLVM.LLVM, then set CC=clang and CXX=clang++",
            )
        ]
    return []


def _tools(host: Host) -> list[Lack]:
    if host.os.name != "Android":
        return []
    chain = host.toolchain
    why = "there is no wheel of it for Android"
    lacks = []
    if not is_recent(chain.cmake, CMAKE_MINIMUM):
        lacks.append(Lack(what="cmake", why=why, fix=install_command(host.os, "cmake")))
    if not is_recent(chain.ninja, NINJA_MINIMUM):
        lacks.append(Lack(what="ninja", why=why, fix=install_command(host.os, "ninja")))
    return lacks


# ---- where it goes ------------------------------------------------------------------------------


def _place(host: Host, plan: Plan) -> list[Lack]:
    del plan  # every preset's wheel has the platform of the Python that builds it
    target = host.target
    if target is None:
        why = "the Python that would be installed into does not answer; `detect --why` shows what it said"
        return [Lack(what=_PLACE, why=why, fix="floatllm-build install --python .venv/bin/python")]
    lack = _refused(target) or _of_another_platform(host, target)
    return [lack] if lack else []


def _refused(target: Target) -> Lack | None:
    where = f"{target.prefix} (by {target.chosen_by})"
    venv = r".venv\Scripts\python" if target.platform.startswith("win") else ".venv/bin/python"
    own = {"pipx": "pipx keeps", "uv-tool": "uv keeps", "uvx": "uvx made"}.get(target.kind)
    if own:
        return Lack(
            what=_PLACE,
            why=f"the environment {where} is one that {own} for this tool alone; an engine there would be "
            "out of your programs' reach",
            fix=f"floatllm-build install --python {venv}",
        )
    if target.externally_managed:
        return Lack(
            what=_PLACE,
            why=f"the Python in {where} is managed by the operating system, which forbids installing into it",
            fix=f"python3 -m venv .venv && floatllm-build install --python {venv}",
        )
    if target.version < PYTHON_MINIMUM or target.bits != 64:
        version = ".".join(map(str, target.version))
        return Lack(
            what=_PLACE,
            why=f"the Python in {where} is a {target.bits}-bit {version}; the engine needs 64 bits and "
            f"{'.'.join(map(str, PYTHON_MINIMUM))} or newer",
            fix="floatllm-build install --python PYTHON, with PYTHON such a one",
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
