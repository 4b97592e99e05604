"""Compiler caches (ccache, sccache): a build goes on without one that fails.

ggml takes them from PATH by itself, users put them into CC or CMAKE_CXX_COMPILER_LAUNCHER, and distributions
put links of the compilers' names before the compilers. One whose folder cannot be written answers `--version`
and fails with everything else.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from floatllm_build.start import which
from floatllm_build.values import Compiler, Plan, ToolchainFacts

_BY_GGML = ("ccache", "sccache")
_CACHES = re.compile(r"(?:s?ccache|buildcache|distcc|icecc)(?:-swig)?(?:\.exe)?", re.IGNORECASE)
_VARIABLES = ("CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER")
_OFF = ("-DGGML_CCACHE=OFF", *(f"-D{name}=" for name in _VARIABLES))
_NO_SWITCH = re.compile(r"-DGGML_CCACHE(?::\w+)?=(?i:off|0|no|false|n)")
_TEXT = "int floatllm_tries;\n"

Run = Callable[[tuple[str, ...], Mapping[str, str]], tuple[int, str]]
"""(command, environment) -> its exit status and all that it said."""


@dataclass(frozen=True)
class Trial:
    """What a build does about compiler caches."""

    options: tuple[str, ...] = ()
    """Of cmake."""
    env: Mapping[str, str] = field(default_factory=dict)
    failed: str = ""
    """The program that fails and what it said; empty where nothing is changed."""


def without_caches(env: Mapping[str, str], failed: str) -> Trial:
    """A build that goes past them; ccache itself does so where it stands before the compiler."""
    kept = {name: value for name, value in env.items() if name not in _VARIABLES}
    return Trial(options=_OFF, env={**kept, "CCACHE_DISABLE": "1"}, failed=failed)


def try_caches(
    plan: Plan, toolchain: ToolchainFacts, env: Mapping[str, str], folder: Path, run: Run
) -> Trial:
    """Compiles a line of C and of C++ as the build would, where a compiler cache has a part in it.

    It is left out where that fails and works without. `folder` is a place to work in.
    """
    launcher = _launcher(plan, env)
    pairs = [(toolchain.c, "c", launcher[0]), (toolchain.cxx, "cpp", launcher[1])]
    for compiler, suffix, words in pairs:
        if not compiler:
            continue
        named = _words(compiler.command)
        cache = next(filter(None, (_cache(word, env) for word in (*words, *named))), "")
        if not cache:
            continue
        source = folder / f"floatllm-tries.{suffix}"
        source.write_text(_TEXT, encoding="utf-8")
        status, said = run((*words, *named, *_compile(compiler, source)), env)
        if status == 0:
            continue
        other = without_caches(env, f"{cache} fails: {_last(said, status)}")
        status, _ = run((*named, *_compile(compiler, source)), other.env)
        if status == 0:
            return other
    return Trial(env=env)


def _launcher(plan: Plan, env: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words that cmake puts before the C and the C++ compiler."""
    found = []
    for name in _VARIABLES:
        told = [word.partition("=")[2] for word in plan.cmake if re.match(rf"-D{name}(?::\w+)?=", word)]
        text = told[-1] if told else env.get(name, "")
        found.append(tuple(filter(None, text.split(";"))))
    if not any(found) and not any(_NO_SWITCH.fullmatch(word) for word in plan.cmake):
        program = next((path for name in _BY_GGML if (path := which(name, env))), "")
        found = [(program,) if program else ()] * 2
    return found[0], found[1]


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command, posix=os.name != "nt"))
    except ValueError:
        return (command,)


def _cache(word: str, env: Mapping[str, str]) -> str:
    """The program where it, or what its link leads to, is a compiler cache; else empty."""
    path = which(word, env) or word
    names = (Path(path).name, Path(os.path.realpath(path)).name)
    return path if any(map(_CACHES.fullmatch, names)) else ""


def _compile(compiler: Compiler, source: Path) -> tuple[str, ...]:
    if compiler.kind == "msvc":
        return ("/nologo", "/c", str(source), f"/Fo{source.with_suffix('.obj')}")
    return ("-c", str(source), "-o", str(source.with_suffix(".o")))


def _last(said: str, status: int) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit status {status}"
