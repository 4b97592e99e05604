"""Compilers, cmake and ninja: by what they say they are. In Termux, gcc is a link to clang."""

from __future__ import annotations

import re
import shlex

from floatllm_build.system import System
from floatllm_build.values import Compiler, Note, OsFacts, Program, ToolchainFacts

# A phone can take seconds to start a large program for the first time.
_TIMEOUT = 20.0


def probe_toolchain(system: System, os_facts: OsFacts, notes: list[Note]) -> ToolchainFacts:
    return ToolchainFacts(
        c=_compiler(system, "CC", ("cc", "gcc", "clang"), os_facts, notes),
        cxx=_compiler(system, "CXX", ("c++", "g++", "clang++"), os_facts, notes),
        cmake=_program(system, "CMAKE_EXECUTABLE", "cmake", r"cmake version (\S+)", notes),
        ninja=_program(system, "NINJA", "ninja", r"^(\d+\.\S+)", notes),
    )


def parse_compiler(text: str) -> tuple[str, str] | None:
    """Kind and version from what a compiler prints for --version."""
    if match := re.search(r"Apple clang version (\S+)", text):
        return "appleclang", match[1]
    if match := re.search(r"clang version (\d[\w.]*)", text):
        return "clang", match[1]
    if "Free Software Foundation" in text and (match := re.search(r" (\d+\.\d+\.\d+)(?:\s|$)", text)):
        return "gcc", match[1]
    return None


def _compiler(
    system: System, variable: str, names: tuple[str, ...], os_facts: OsFacts, notes: list[Note]
) -> Compiler | None:
    chosen = system.getenv(variable)
    commands = (chosen,) if chosen else names
    for command in commands:
        try:
            words = tuple(shlex.split(command, posix=os_facts.name != "Windows"))
        except ValueError:
            words = ()  # a quote that is never closed
        if not words or not system.which(words[0]):
            if chosen:
                notes.append(Note(source=variable, said=f"`{chosen}` is not a program that can be found"))
            continue
        answer = system.run((*words, "--version"), timeout=_TIMEOUT)
        if answer.rc == 0:
            kind, version = parse_compiler(answer.out) or ("unknown", answer.out.strip().split("\n")[0][:80])
            return Compiler(command=command, kind=kind, version=version)
        notes.append(
            Note(source=f"{command} --version", said=answer.err.strip()[:200] or f"exit {answer.rc}")
        )
    return None


def _program(system: System, variable: str, name: str, pattern: str, notes: list[Note]) -> Program | None:
    path = system.getenv(variable) or system.which(name)
    if not path:
        return None
    answer = system.run((path, "--version"), timeout=_TIMEOUT)
    match = re.search(pattern, answer.out, re.MULTILINE)
    if answer.rc == 0 and match:
        return Program(path=path, version=match[1])
    notes.append(Note(source=f"{path} --version", said=answer.err.strip()[:200] or f"exit {answer.rc}"))
    return None
