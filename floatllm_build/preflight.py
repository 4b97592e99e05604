"""What the plan needs and the machine lacks, each with the command that brings it."""

from __future__ import annotations

from floatllm_build.errors import MissingError
from floatllm_build.values import Host, Lack, Plan, Target
from floatllm_build.versions import CMAKE_MINIMUM, NINJA_MINIMUM, PYTHON_MINIMUM, version_tuple


def find_lacks(host: Host, plan: Plan) -> tuple[Lack, ...]:
    """Compilers, and on Android cmake and ninja: for these alone there is no wheel to fetch."""
    del plan  # every preset needs the same today
    lacks = []
    termux = host.os.termux
    if not host.toolchain.c or not host.toolchain.cxx:
        fix = {
            "Linux": "sudo apt install g++ (Debian, Ubuntu), sudo dnf install gcc-c++ (Fedora)",
            "Darwin": "xcode-select --install",
            "Windows": "install the Visual Studio Build Tools with C++, and run from their command prompt",
            "Android": "pkg install clang",
        }.get(host.os.name, "install a C and C++ compiler, or set CC and CXX")
        # A compiler that the user named and that is not there: what to install is not the question then.
        named = [note for note in host.notes if note.source in ("CC", "CXX")]
        if named:
            fix = f"correct or unset {' and '.join(note.source for note in named)}"
        why = "; ".join(f"{note.source}: {note.said}" for note in named) or "the engine is compiled here"
        lacks.append(Lack(what="a C and C++ compiler", why=why, fix=fix))
    if termux:
        for name, program, minimum in (
            ("cmake", host.toolchain.cmake, CMAKE_MINIMUM),
            ("ninja", host.toolchain.ninja, NINJA_MINIMUM),
        ):
            if not program or version_tuple(program.version) < minimum:
                lacks.append(
                    Lack(what=name, why="there is no wheel of it for Android", fix=f"pkg install {name}")
                )
    return tuple(lacks)


def check_lacks(lacks: tuple[Lack, ...]) -> None:
    """Raises MissingError that names them all."""
    if lacks:
        lines = (f"{lack.what} is missing ({lack.why}). To get it: {lack.fix}." for lack in lacks)
        raise MissingError("\n".join(lines))


def check_target(target: Target) -> None:
    """Raises MissingError where the engine must not or cannot go into that environment."""
    where = f"{target.prefix} (by {target.chosen_by})"
    own = {"pipx": "pipx keeps", "uv-tool": "uv keeps", "uvx": "uvx made"}.get(target.kind)
    if own:
        raise MissingError(
            f"The environment {where} is one that {own} for this tool alone; an engine there would be out of "
            "your programs' reach. Name yours: floatllm-build install --python .venv/bin/python"
        )
    if target.externally_managed:
        raise MissingError(
            f"The Python in {where} is managed by the operating system, which forbids installing into it. "
            "Make an environment: python3 -m venv .venv && floatllm-build install --python .venv/bin/python"
        )
    if target.version < PYTHON_MINIMUM or target.bits != 64:
        version = ".".join(map(str, target.version))
        raise MissingError(
            f"The Python in {where} is a {target.bits}-bit {version}; the engine needs 64 bits and "
            f"{'.'.join(map(str, PYTHON_MINIMUM))} or newer. Name such a Python with --python."
        )
