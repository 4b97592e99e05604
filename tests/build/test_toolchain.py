"""Compilers, linkers and tools are what they say they are."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC
from tool_environment import skip_or_fail

from floatllm_build.host.findings import Findings
from floatllm_build.host.tool_words import parse_compiler, parse_linker
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.system import LiveSystem, Replay
from floatllm_build.values import Compiler, Linker, Program, ToolchainFacts

GCC_SAYS = "g++ (Debian 12.2.0-14+deb12u1) 12.2.0\nCopyright (C) 2022 Free Software Foundation, Inc.\n"
TERMUX_SAYS = "clang version 21.1.3\nTarget: aarch64-unknown-linux-android24\nThread model: posix\n"
CL_SAYS = (
    "Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33133 for x64\n"
    "Copyright (C) Microsoft Corporation.  All rights reserved.\n\nusage: cl [ option... ] filename... \n"
)
MAC = replace(PC.os, name="Darwin", machine="arm64")
WINDOWS = replace(PC.os, name="Windows", machine="AMD64")


def says(out: str = "", err: str = "", rc: int = 0) -> dict[str, Any]:
    return {"rc": rc, "out": out, "err": err}


def probe(os_facts: Any = PC.os, **kinds: Any) -> tuple[ToolchainFacts, Findings]:
    findings = Findings()
    return probe_toolchain(Replay({"schema_version": 1, **kinds}), os_facts, findings), findings


# ---- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GCC_SAYS, ("gcc", "12.2.0")),
        (
            "gcc (GCC) 15.0.1 20250418 (Red Hat)\nCopyright (C) 2025 Free Software Foundation\n",
            ("gcc", "15.0.1"),
        ),
        ("g++ (Alpine 13.2.1_git20240309) 13.2.1 20240309\nFree Software Foundation\n", ("gcc", "13.2.1")),
        (TERMUX_SAYS, ("clang", "21.1.3")),
        ("Apple clang version 16.0.0 (clang-1600.0.26.6)\n", ("appleclang", "16.0.0")),
        ("Debian clang version 14.0.6\n", ("clang", "14.0.6")),
        (CL_SAYS, ("msvc", "19.38.33133")),
        ("tcc version 0.9.27\n", None),
        ("", None),
        ("1.2.3 " * 100_000, None),
    ],
)
def test_compilers_are_what_they_say(text: str, found: tuple[str, str] | None) -> None:
    told = parse_compiler(text)
    assert (told and told[:2]) == found


# As Visual Studio prints it in each language (in public build logs), some through another code page.
@pytest.mark.parametrize(
    ("banner", "version", "target"),
    [
        ("Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33133 for x64", "19.38.33133", "x64"),
        ("用于 x64 的 Microsoft (R) C/C++ 优化编译器 19.41.34120 版", "19.41.34120", "x64"),
        ("用於 x64 的 Microsoft (R) C/C++ 最佳化編譯器版本19.29.30133", "19.29.30133", "x64"),
        ("Microsoft (R) C/C++ 최적화 컴파일러 버전 19.44.35211(x64)", "19.44.35211", "x64"),
        ("Microsoft(R) C/C++ Optimizing Compiler Version 19.44.35211 for x64", "19.44.35211", "x64"),
        ("Compilateur d'optimisation Microsoft (R) C/C++ version 19.29.30133 pour x64", "19.29.30133", "x64"),
        (
            "Compilador de optimizaci\ufffdn de C/C++ de Microsoft (R) versi\ufffdn 19.29.30133 para x64",
            "19.29.30133",
            "x64",
        ),
        ("Оптимизирующий компилятор Microsoft (R) C/C++ версии 19.29.30133 для x86", "19.29.30133", "x86"),
        ("Microsoft (R) C/C++-Optimierungscompiler Version 19.41.34120 für ARM64", "19.41.34120", "arm64"),
        ("x64 için Microsoft (R) C/C++ İyileştirme Derleyicisi Sürüm 19.29.30133", "19.29.30133", "x64"),
        ("Kompilator optymalizujący Microsoft (R) C/C++ w wersji 19.29.30133 dla x64", "19.29.30133", "x64"),
        (
            "Microsoft (R) 32-bit C/C++ Optimizing Compiler Version 15.00.30729.01 for 80x86",
            "15.00.30729.01",
            "x86",
        ),
    ],
)
def test_microsofts_compiler_speaks_many_languages(banner: str, version: str, target: str) -> None:
    rest = "\r\nCopyright (C) Microsoft Corporation.\r\n\r\nusage: cl [ option... ] filename...\r\n"
    assert parse_compiler(banner + rest) == ("msvc", version, target)


@pytest.mark.parametrize(
    "text",
    [
        "Microsoft (R) Incremental Linker Version 14.38.33133.0\n",
        "Microsoft (R) Program Maintenance Utility Version 14.38.33133.0\n",
        "Microsoft C/C++",
        "",
    ],
)
def test_other_programs_by_microsoft_are_no_compilers(text: str) -> None:
    assert parse_compiler(text) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("GNU ld (GNU Binutils for Debian) 2.40\n", ("ld", "2.40")),
        ("GNU ld version 2.35.2-63.el9\n", ("ld", "2.35.2-63.el9")),
        ("GNU gold (GNU Binutils for Debian 2.40) 1.16\n", ("gold", "1.16")),
        ("LLD 21.1.3 (compatible with GNU linkers)\n", ("lld", "21.1.3")),
        ("Debian LLD 14.0.6 (compatible with GNU linkers)\n", ("lld", "14.0.6")),
        ("mold 2.35.1 (compatible with GNU ld)\n", ("mold", "2.35.1")),
        ("@(#)PROGRAM:ld PROJECT:ld-1115.7.3\nBUILD 10:27:31\n", ("apple", "1115.7.3")),
        ("Microsoft (R) Incremental Linker Version 14.38.33133.0\n", ("msvc", "14.38.33133.0")),
        ("link: missing operand\n", None),
    ],
)
def test_linkers_are_what_they_say(text: str, found: tuple[str, str] | None) -> None:
    assert parse_linker(text) == found


# ---- what is found ----------------------------------------------------------------------------


def test_a_link_named_gcc_is_clang_where_it_says_so() -> None:
    found, _ = probe(
        which={"cc": "/x/cc", "c++": "/x/c++", "cmake": "/x/cmake"},
        commands={
            "cc --version": says(TERMUX_SAYS),
            "c++ --version": says(TERMUX_SAYS),
            "/x/cmake --version": says("cmake version 3.31.0-rc2\n"),
        },
    )
    target = "aarch64-unknown-linux-android24"
    assert found.cxx == Compiler(command="c++", kind="clang", version="21.1.3", target=target)
    assert found.cmake == Program(path="/x/cmake", version="3.31.0-rc2")
    assert found.ninja is None


@pytest.mark.parametrize("chosen", ["g++-99", 'g++ "-open', "ccache-99 c++"])
def test_a_compiler_that_was_named_and_is_not_there_is_not_replaced(chosen: str) -> None:
    found, findings = probe(
        environ={"CXX": chosen}, which={"c++": "/x/c++"}, commands={"c++ --version": says(GCC_SAYS)}
    )
    assert found.cxx is None
    assert [note.source for note in findings.notes] == ["CXX"]
    assert chosen in findings.notes[0].said


def test_a_compiler_that_was_named_and_fails_is_noted_under_its_variable() -> None:
    found, findings = probe(
        environ={"CC": "cc-9"},
        which={"cc-9": "/x/cc-9", "cc": "/x/cc"},
        commands={"cc-9 --version": says(err="cannot execute", rc=126), "cc --version": says(GCC_SAYS)},
    )
    assert found.c is None
    assert [(note.source, note.said) for note in findings.notes] == [
        ("cc-9 --version", "exit 126: cannot execute"),
        ("CC", "`cc-9` does not answer as a compiler"),
    ]


@pytest.mark.parametrize(
    ("variable", "name", "said"),
    [("CMAKE_EXECUTABLE", "cmake", "cmake version 3.31.0\n"), ("NINJA", "ninja", "1.12.1\n")],
)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(err="cannot execute", rc=126), "exit 126: cannot execute"),
        (says("something else\n"), "exit 0: something else"),
        (None, "not in the record"),
    ],
)
def test_a_tool_that_was_named_and_does_not_answer_is_not_replaced(
    variable: str, name: str, said: str, answer: dict[str, Any] | None, words: str
) -> None:
    commands = {f"/x/{name} --version": says(said)}
    if answer:
        commands[f"/mine/{name} --version"] = answer
    kinds = {"which": {name: f"/x/{name}"}, "commands": commands}
    found, findings = probe(environ={variable: f"/mine/{name}"}, **kinds)
    assert getattr(found, name) is None
    assert [(note.source, note.said) for note in findings.notes] == [
        (variable, f"`/mine/{name} --version` does not answer as {name}: {words}")
    ]
    unset, _ = probe(environ={variable: ""}, **kinds)
    assert getattr(unset, name) == Program(path=f"/x/{name}", version=said.rsplit(maxsplit=1)[-1])


def test_a_compiler_that_fails_is_noted_and_the_next_name_is_tried() -> None:
    found, findings = probe(
        which={"c++": "/x/c++", "g++": "/x/g++"},
        commands={"c++ --version": says(err="cannot execute", rc=126), "g++ --version": says(GCC_SAYS)},
    )
    assert found.cxx is not None
    assert found.cxx.command == "g++"
    assert [(note.source, note.said) for note in findings.notes] == [
        ("c++ --version", "exit 126: cannot execute")
    ]


def test_numbered_compilers_are_offered_newest_first_and_the_chosen_one_is_none_of_them() -> None:
    names = {"g++-11": "11.4.0", "g++-13": "13.2.0", "g++-14": "14.1.0"}
    answers = {
        f"{name} --version": says(GCC_SAYS.replace("12.2.0", version)) for name, version in names.items()
    }
    clang = {"clang++-15 --version": says("Ubuntu clang version 15.0.7\n")}
    which = {name: f"/usr/bin/{name}" for name in (*names, "clang++-15")}
    found, _ = probe(which=which, commands={**answers, **clang}, environ={"CXX": "g++-13"})
    assert [(one.command, one.kind, one.version) for one in found.others] == [
        ("g++-14", "gcc", "14.1.0"),
        ("g++-11", "gcc", "11.4.0"),
        ("clang++-15", "clang", "15.0.7"),
    ]
    by_path, _ = probe(
        which={**which, "/usr/bin/g++-13": "/usr/bin/g++-13"},
        commands={**answers, **clang, "/usr/bin/g++-13 --version": says(GCC_SAYS)},
        environ={"CXX": "/usr/bin/g++-13"},
    )
    assert by_path.cxx is not None
    assert [one.command for one in by_path.others] == ["g++-14", "g++-11", "clang++-15"]


def test_microsofts_compiler_answers_on_stderr_and_knows_no_version_flag() -> None:
    found, findings = probe(WINDOWS, which={"cl": r"C:\VC\cl.exe"}, commands={"cl": says(err=CL_SAYS, rc=2)})
    assert found.cxx == Compiler(command="cl", kind="msvc", version="19.38.33133", target="x64")
    assert not findings.notes


def test_visual_studio_is_found_by_its_own_program() -> None:
    folder = r"C:\Program Files (x86)"
    path = rf"{folder}\Microsoft Visual Studio\Installer\vswhere.exe"
    parts = "Microsoft.VisualStudio.Component.VC.Tools."
    line = (
        f"'{path}' -products '*' -requires {parts}x86.x64 -requires {parts}ARM64 -requiresAny -sort -utf8 "
        "-format json"
    )
    studio = {"installationPath": r"C:\VS\2022", "installationVersion": "17.9.34607.119", "isComplete": True}
    kinds = {"environ": {"ProgramFiles(x86)": folder}, "globs": {path: [path]}}
    found, _ = probe(WINDOWS, commands={line: says(json.dumps([studio, 7, {}]))}, **kinds)
    assert found.msvc == (Program(path=r"C:\VS\2022", version="17.9.34607.119"),)
    for broken in (says("{}"), says("[" * 100_000), says("NaN"), says(err="no", rc=87)):
        found, findings = probe(WINDOWS, commands={line: broken}, **kinds)
        assert found.msvc == ()
        assert [note.source for note in findings.notes] == [path]


def test_a_mac_without_the_command_line_tools_is_not_asked_for_a_compiler() -> None:
    which = {
        "cc": "/usr/bin/cc",
        "c++": "/usr/bin/c++",
        "ld": "/usr/bin/ld",
        "ninja": "/opt/homebrew/bin/ninja",
    }
    refused = "xcode-select: error: unable to get active developer directory\n"
    commands = {
        "xcode-select -p": says(err=refused, rc=2),
        "c++ --version": says(GCC_SAYS),
        "/opt/homebrew/bin/ninja --version": says("1.12.1\n"),
    }
    found, findings = probe(MAC, which=which, commands=commands)
    assert (found.cxx, found.xcode, found.linkers) == (None, "", ())
    assert found.ninja is not None
    assert "unable to get" in findings.notes[0].said


def test_a_mac_with_them() -> None:
    folder = "/Library/Developer/CommandLineTools"
    found, _ = probe(
        MAC,
        which={"c++": "/usr/bin/c++", "ld": "/usr/bin/ld"},
        commands={
            "xcode-select -p": says(f"{folder}\n"),
            "c++ --version": says("Apple clang version 16.0.0 (clang-1600.0.26.6)\n"),
            "/usr/bin/ld -v": says(err="@(#)PROGRAM:ld PROJECT:ld-1115.7.3\n"),
        },
    )
    assert found.xcode == folder
    assert found.cxx == Compiler(command="c++", kind="appleclang", version="16.0.0")
    assert found.linkers == (Linker(kind="apple", path="/usr/bin/ld", version="1115.7.3"),)


@pytest.mark.parametrize(
    ("name", "said", "version"),
    [("ccache", "ccache version 4.8\n", "4.8"), ("sccache", "sccache 0.8.1\n", "0.8.1")],
)
def test_compiler_caches(name: str, said: str, version: str) -> None:
    found, _ = probe(which={name: f"/x/{name}"}, commands={f"/x/{name} --version": says(said)})
    assert found.launcher == Program(path=f"/x/{name}", version=version)


# ---- for real ---------------------------------------------------------------------------------


class Here(LiveSystem):
    """The real machine with other variables, and a folder that is searched before PATH."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.variables = folder, variables
        self.ran: list[tuple[str, ...]] = []

    def getenv(self, name: str) -> str | None:
        return self.variables.get(name)

    def which(self, name: str) -> str | None:
        return shutil.which(name, path=f"{self.folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}")

    def run(self, argv: tuple[str, ...], **options: Any) -> Any:
        self.ran.append(argv)
        path = self.which(argv[0])
        return super().run((path or argv[0], *argv[1:]), **options)


def test_the_compiler_of_this_machine_may_stand_behind_a_launcher(tmp_path: Path) -> None:
    real = shutil.which("c++")
    if not real:
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    launcher = tmp_path / "my launcher"
    launcher.write_text('#!/bin/sh\nexec "$@"\n')
    launcher.chmod(0o755)
    findings = Findings()
    plain = probe_toolchain(Here(tmp_path), PC.os, findings).cxx
    found = probe_toolchain(Here(tmp_path, CXX=f"'{launcher}' {real}"), PC.os, findings).cxx
    assert plain is not None
    assert found is not None
    assert (found.kind, found.version) == (plain.kind, plain.version)
    assert plain.kind in {"gcc", "clang", "appleclang"}
    assert not findings.notes


def test_nothing_is_run_that_was_not_found(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.which = lambda name: None  # type: ignore[method-assign]
    found = probe_toolchain(here, PC.os, Findings())
    assert here.ran == []
    assert (found.c, found.cxx, found.others, found.linkers, found.cmake) == (None, None, (), (), None)


def test_a_tool_that_hangs_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floatllm_build.host.toolchain._TIMEOUT", 0.3)
    slow = tmp_path / "ninja"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    findings = Findings()
    assert probe_toolchain(Here(tmp_path), PC.os, findings).ninja is None
    assert [(note.source, note.said) for note in findings.notes] == [
        (f"{slow} --version", "no answer within 0.3 s")
    ]
