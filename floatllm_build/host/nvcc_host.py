"""The C++ compiler that the user names for nvcc, by the variables that CMake and nvcc heed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable

from floatllm_build.host.findings import Findings, how_it_ended
from floatllm_build.host.tool_words import parse_compiler
from floatllm_build.system import System
from floatllm_build.values import Compiler

_SECONDS = 20.0
# In the order in which they count: CMake reads the first; the others are nvcc's (its manual of CUDA 13.0).
_VARIABLES = ("CUDAHOSTCXX", "NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


def find_nvcc_host(
    system: System,
    which: Callable[[str], str | None],
    known: Iterable[Compiler],
    findings: Findings,
    *,
    windows: bool = False,
) -> tuple[Compiler | None, str]:
    """The compiler and the variable that names it. One that is named and does not answer leaves a note on the
    variable; `known` compilers have been asked already.
    """
    for variable in _VARIABLES:
        command = parse_ccbin(variable, system.getenv(variable) or "", windows=windows)
        if not command:
            continue
        same = (one for one in known if command in {one.command, which(one.command)})
        program = "cl.exe" if windows else "g++"
        found = next(same, None) or _ask(system, command, program, variable, findings)
        if found:
            findings.source("toolchain.nvcc_host", variable)
        return found, variable
    return None, ""


def parse_ccbin(variable: str, value: str, *, windows: bool = False) -> str:
    """The compiler, or its folder, in the value of one of the variables; empty if there is none in it."""
    if "FLAGS" not in variable:
        return value.strip()
    try:
        words = shlex.split(value, posix=not windows)
    except ValueError:
        return ""  # a quote that is never closed
    found = ""
    for word, after in zip(words, (*words, "")[1:], strict=True):
        if word in {"-ccbin", "--compiler-bindir"}:
            found = after
        elif match := re.fullmatch(r"(?:-ccbin|--compiler-bindir)=(.+)", word):
            found = match[1]
    return found.strip('"')


def _ask(system: System, command: str, program: str, variable: str, findings: Findings) -> Compiler | None:
    # A folder is as good to nvcc: it takes the compiler in it.
    ended = ""
    for path in (command, f"{command.rstrip('/')}/{program}"):
        done = system.run((path, "--version"), timeout=_SECONDS)
        said = parse_compiler(done.out) or parse_compiler(done.err)
        if said and (done.rc == 0 or said[0] == "msvc"):
            return Compiler(command=path, kind=said[0], version=said[1])
        ended = ended or ("it cannot be started" if done.rc == 127 else how_it_ended(done))
    findings.note(variable, f"names `{command}`, which does not answer as a C++ compiler: {ended}")
    return None
