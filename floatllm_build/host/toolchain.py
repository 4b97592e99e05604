"""Compilers, linkers and tools: by what they say they are. In Termux, gcc is a link to clang."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import PureWindowsPath
from typing import Any, TypeVar

from floatllm_build.host.beside import beside
from floatllm_build.host.files import literal
from floatllm_build.host.findings import Findings, how_it_ended
from floatllm_build.host.nvcc_host import find_nvcc_host
from floatllm_build.host.tool_words import parse_compiler, parse_linker
from floatllm_build.system import Completed, System
from floatllm_build.values import Compiler, Linker, OsFacts, Program, ToolchainFacts

_T = TypeVar("_T")

# A phone can take seconds to start a large program for the first time.
_TIMEOUT = 20.0
_VSWHERE = "Microsoft Visual Studio/Installer/vswhere.exe"
_VC_TOOLS = tuple(f"Microsoft.VisualStudio.Component.VC.Tools.{cpu}" for cpu in ("x86.x64", "ARM64"))
_NUMBERED = (
    *(f"g++-{version}" for version in range(20, 7, -1)),
    *(f"clang++-{version}" for version in range(22, 10, -1)),
)
# Red Hat's newer compilers, beside the system's.
_TOOLSETS = "/opt/rh/*toolset-*/root/usr/bin/g++"
# As clang's own search has them (clang/lib/Driver/ToolChains/Gnu.cpp); the last is a version: 12, 4.8.5.
_GCC_FOLDERS = (
    "/usr/lib/gcc/*-linux*/[0-9]*",
    "/usr/lib64/gcc/*-linux*/[0-9]*",
    "/opt/rh/*toolset-*/root/usr/lib/gcc/*-linux*/[0-9]*",
)
_GCC_FOLDER = re.compile(r"/([0-9]{1,3})(?:\.[0-9.]{1,12})?$")


def probe_toolchain(system: System, os_facts: OsFacts, findings: Findings) -> ToolchainFacts:
    windows, mac = os_facts.name == "Windows", os_facts.name == "Darwin"
    xcode, stubs = _xcode(system, findings) if mac else ("", False)
    asked: list[Findings] = []

    def find(name: str) -> str | None:
        path = system.which(name)
        # Without the command line tools, Apple's stubs open a window instead of answering.
        return None if stubs and path and path.startswith("/usr/bin/") else path

    def start(question: Callable[..., _T], *subject: Any) -> Callable[[], _T]:
        asked.append(Findings())
        return beside(question, system, *subject, asked[-1])

    # `cl` is on PATH only where someone opened a prompt for developers.
    first: tuple[str, ...] = ("cl",) if windows else ()
    c = start(_compiler, find, "CC", (*first, "cc", "gcc", "clang"), windows)
    cxx = start(_compiler, find, "CXX", (*first, "c++", "g++", "clang++"), windows)
    further = [name for name in _NUMBERED if find(name)]
    if os_facts.name == "Linux":
        further += sorted(system.glob(_TOOLSETS), key=_number, reverse=True)
    others = [start(_ask_compiler, name, (name,)) for name in further]
    linkers = [start(_linker, path, mac, windows) for path in _linker_paths(find, windows)]
    cmake = start(_program, find, "CMAKE_EXECUTABLE", "cmake", r"cmake version (\S+)")
    ninja = start(_program, find, "NINJA", "ninja", r"^(\d+\.\S+)")
    launcher = start(_launcher, find)
    msvc = start(_visual_studios, windows)
    chosen = cxx()
    older = [compiler for compiler in (other() for other in others) if compiler]
    known = (*((chosen,) if chosen else ()), *older)
    nvcc_host, nvcc_host_by = find_nvcc_host(system, find, known, findings, windows=windows)
    facts = ToolchainFacts(
        c=c(),
        cxx=chosen,
        nvcc_host=nvcc_host,
        nvcc_host_by=nvcc_host_by,
        others=tuple(one for one in older if not chosen or not _same(find, one.command, chosen.command)),
        libstdcxx=_libstdcxx(system) if os_facts.name == "Linux" else 0,
        linkers=tuple(linker for linker in (answer() for answer in linkers) if linker),
        cmake=cmake(),
        ninja=ninja(),
        launcher=launcher(),
        xcode=xcode,
        msvc=msvc(),
    )
    for said in asked:
        findings.notes += said.notes
        findings.sources += said.sources
    if facts.others:
        findings.source("toolchain.others", "--version of the C++ compilers with a number in their name")
    if facts.linkers:
        findings.source("toolchain.linkers", "--version of ld and its kin")
    return facts


def _same(find: Callable[[str], str | None], one: str, other: str) -> bool:
    return one == other or find(one) == other


# ---- compilers --------------------------------------------------------------------------------


def _compiler(
    system: System,
    find: Callable[[str], str | None],
    variable: str,
    names: tuple[str, ...],
    windows: bool,
    findings: Findings,
) -> Compiler | None:
    """The compiler that the variable names and no other, else the first of `names` that answers."""
    chosen = (system.getenv(variable) or "").strip()
    for command in (chosen,) if chosen else names:
        words = _words(command, windows)
        if not words or not find(words[0]):
            if chosen:
                findings.note(variable, f"`{chosen}` is not a program that can be found")
            continue
        found = _ask_compiler(system, command, words, findings)
        if found:
            findings.source(f"toolchain.{'c' if variable == 'CC' else 'cxx'}", variable if chosen else "PATH")
            return found
        if chosen:
            findings.note(variable, f"`{chosen}` does not answer as a compiler")
    return None


def _words(command: str, windows: bool) -> tuple[str, ...]:
    try:
        words = shlex.split(command, posix=not windows)
    except ValueError:
        return ()  # a quote that is never closed
    return tuple(word.strip('"') for word in words) if windows else tuple(words)


def _ask_compiler(
    system: System, command: str, words: tuple[str, ...], findings: Findings
) -> Compiler | None:
    # Microsoft's compiler knows no --version; it says who it is before it complains of having no file.
    microsoft = PureWindowsPath(words[-1]).stem.lower() == "cl"
    argv = words if microsoft else (*words, "--version")
    answer = system.run(argv, timeout=_TIMEOUT)
    found = parse_compiler(answer.out) or parse_compiler(answer.err)
    if found and (answer.rc == 0 or found[0] == "msvc"):
        kind, version, target = found
        return Compiler(command=command, kind=kind, version=version, target=target)
    if answer.rc == 0 and not microsoft:
        said = (answer.out.strip() or answer.err.strip()).split("\n")[0][:80]
        return Compiler(command=command, kind="unknown", version=said)
    findings.failed(" ".join(argv), answer)
    return None


def _libstdcxx(system: System) -> int:
    """Clang takes the newest that it finds in these folders, unless it is told otherwise."""
    folders = [folder for pattern in _GCC_FOLDERS for folder in system.glob(pattern)]
    return max((int(found[1]) for folder in folders if (found := _GCC_FOLDER.search(folder))), default=0)


def _number(path: str) -> int:
    numbers = re.findall(r"[0-9]{1,4}", path)
    return int(numbers[0]) if numbers else 0


# ---- linkers ----------------------------------------------------------------------------------


def _linker_paths(find: Callable[[str], str | None], windows: bool) -> Iterable[str]:
    names = ("ld", "ld.gold", "ld.lld", *(("link", "lld-link") if windows else ()))
    mold = find("ld.mold") or find("mold")
    return dict.fromkeys(path for path in (*map(find, names), mold) if path)


def _linker(system: System, path: str, mac: bool, windows: bool, findings: Findings) -> Linker | None:
    # Apple's knows `-v` alone, and speaks on stderr; Microsoft's says who it is to whatever it is told.
    name = PureWindowsPath(path).stem.lower()
    apple = mac and path.endswith("/ld")
    argv = (path,) if windows and name == "link" else (path, "-v" if apple else "--version")
    answer = system.run(argv, timeout=_TIMEOUT)
    found = parse_linker(f"{answer.out}\n{answer.err}")
    if found:
        return Linker(kind=found[0], path=path, version=found[1])
    if answer.rc == 0:
        return Linker(kind="unknown", path=path, version=answer.out.strip().split("\n")[0][:80])
    findings.failed(" ".join(argv), answer)
    return None


# ---- tools ------------------------------------------------------------------------------------


def _program(
    system: System,
    find: Callable[[str], str | None],
    variable: str,
    name: str,
    pattern: str,
    findings: Findings,
) -> Program | None:
    """The program that the variable names and no other, else the one of that name."""
    chosen = (system.getenv(variable) or "").strip() if variable else ""
    path = chosen or find(name)
    if not path:
        return None
    answer = system.run((path, "--version"), timeout=_TIMEOUT)
    match = re.search(pattern, answer.out, re.MULTILINE)
    if answer.rc == 0 and match:
        findings.source(f"toolchain.{name}", variable if chosen else "PATH")
        return Program(path=path, version=match[1][:40])
    if chosen:
        findings.note(variable, f"`{path} --version` does not answer as {name}: {how_it_ended(answer)}")
    else:
        findings.failed(f"{path} --version", answer)
    return None


def _launcher(system: System, find: Callable[[str], str | None], findings: Findings) -> Program | None:
    for name in ("ccache", "sccache"):
        found = _program(system, find, "", name, rf"^{name}(?: version)? (\d\S*)", findings)
        if found:
            findings.source("toolchain.launcher", found.path)
            return found
    return None


def _xcode(system: System, findings: Findings) -> tuple[str, bool]:
    """The developer folder, and whether there is none, so that the programs in /usr/bin are empty stubs."""
    answer = system.run(("xcode-select", "-p"))
    folder = answer.out.strip()
    if answer.rc == 0 and folder:
        findings.source("toolchain.xcode", "xcode-select -p")
        return folder.split("\n")[0][:200], False
    findings.failed("xcode-select -p", answer)
    return "", answer.rc not in {124, 127}


def _visual_studios(system: System, windows: bool, findings: Findings) -> tuple[Program, ...]:
    paths = [
        str(PureWindowsPath(folder) / _VSWHERE)
        for variable in ("ProgramFiles(x86)", "ProgramFiles")
        if windows and (folder := system.getenv(variable))
    ]
    path = next((path for path in paths if system.glob(literal(path))), "")
    if not path:
        return ()
    wanted = [word for part in _VC_TOOLS for word in ("-requires", part)]
    # A program that lists nothing else prints an empty list where there is no installation.
    argv = (path, "-products", "*", *wanted, "-requiresAny", "-sort", "-utf8", "-format", "json")
    answer = system.run(argv, timeout=_TIMEOUT)
    found = _installations(answer)
    if found is None:
        findings.failed(path, answer)
        return ()
    findings.source("toolchain.msvc", path)
    return found


def _installations(answer: Completed) -> tuple[Program, ...] | None:
    try:
        listed: Any = json.loads(answer.out) if answer.rc == 0 else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(listed, list):
        return None
    told = [
        (one.get("installationPath"), one.get("installationVersion"))
        for one in listed
        if isinstance(one, dict)
    ]
    return tuple(
        Program(path=path[:260], version=version[:40])
        for path, version in told
        if isinstance(path, str) and isinstance(version, str) and path
    )
