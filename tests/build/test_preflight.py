"""What is missing, and the command that brings it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from machines import PC, VENV

from floatllm_build.errors import MissingError
from floatllm_build.preflight import check_lacks, check_target, find_lacks
from floatllm_build.values import Compiler, Host, Lack, Note, Program, Target


def lacks(host: Host, *, installs: bool = True) -> tuple[Lack, ...]:
    return find_lacks(host, installs=installs)


def without_compiler(**os_facts: Any) -> Host:
    return machines.pc(os=replace(PC.os, **os_facts), toolchain=replace(PC.toolchain, c=None, cxx=None))


@pytest.mark.parametrize("host", [PC, machines.phone("asimd")])
def test_nothing_is_missing(host: Host) -> None:
    assert lacks(host) == ()
    check_lacks(())


@pytest.mark.parametrize(
    ("os_facts", "fix"),
    [
        ({}, "sudo apt install g++"),
        ({"version": "Fedora Linux 42"}, "sudo dnf install gcc-c++"),
        ({"name": "Darwin", "version": "macOS 15"}, "xcode-select --install"),
        ({"name": "Windows", "version": "Windows 11"}, "winget install Microsoft.VisualStudio"),
        ({"name": "Android", "termux": True}, "pkg install clang"),
    ],
)
def test_no_compiler(os_facts: dict[str, Any], fix: str) -> None:
    lack = lacks(without_compiler(**os_facts))[0]
    assert lack.fix.startswith(fix)
    with pytest.raises(MissingError, match="C and C\\+\\+ compiler is missing"):
        check_lacks((lack,))


def test_a_compiler_that_was_named_and_is_not_there() -> None:
    host = replace(without_compiler(), notes=(Note(source="CXX", said="no such file: g++-99"),))
    lack = lacks(host)[0]
    assert "g++-99" in lack.why
    assert lack.fix == "correct or unset CXX"


@pytest.mark.parametrize(
    "source", ["c++ --version", "/usr/bin/g++ --version", "ccache g++ --version", r"C:\x\cl.exe"]
)
def test_a_compiler_that_is_there_and_does_not_answer_is_not_to_be_installed(source: str) -> None:
    note = Note(source=source, said="no answer within 20 s")
    (lack,) = lacks(replace(without_compiler(), notes=(note,)))
    assert lack.why == f"{source}: no answer within 20 s"
    assert "apt" not in lack.fix
    assert f"see why `{source}` will not answer" in lack.fix
    other = replace(without_compiler(), notes=(replace(note, source="/usr/bin/cmake --version"),))
    assert lacks(other)[0].fix == "sudo apt install g++"


@pytest.mark.parametrize("host", [PC, machines.phone("asimd")])
@pytest.mark.parametrize(("variable", "tool"), [("CMAKE_EXECUTABLE", "cmake"), ("NINJA", "ninja")])
def test_a_tool_that_was_named_and_does_not_work(host: Host, variable: str, tool: str) -> None:
    note = Note(source=variable, said=f"`/opt/{tool} --version` does not answer as {tool}: exit 1")
    host = replace(host, notes=(note,), toolchain=replace(host.toolchain, **{tool: None}))
    (lack,) = lacks(host)
    assert (lack.what, lack.fix) == (tool, f"correct or unset {variable}")
    assert f"/opt/{tool}" in lack.why


def test_visual_studio_is_there_but_its_prompt_is_not() -> None:
    host = without_compiler(name="Windows")
    studio = Program(path=r"C:\VS\2022", version="17.14")
    host = replace(host, toolchain=replace(host.toolchain, msvc=(studio,)))
    assert r"C:\VS\2022" in lacks(host)[0].fix


def test_msvc_for_arm_is_refused_by_ggml() -> None:
    msvc = Compiler(command="cl", kind="msvc", version="19.44")
    host = machines.pc(
        os=replace(PC.os, name="Windows"),
        cpu=replace(PC.cpu, arch="arm64"),
        toolchain=replace(PC.toolchain, c=msvc, cxx=msvc),
    )
    assert "LLVM" in lacks(host)[0].fix


def test_in_termux_cmake_and_ninja_come_from_pkg_alone() -> None:
    phone = machines.phone("asimd")
    old = Program(path="cmake", version="3.20.0")
    bare = replace(phone, toolchain=replace(phone.toolchain, cmake=old, ninja=None))
    assert [lack.fix for lack in lacks(bare)] == ["pkg install cmake", "pkg install ninja"]
    assert lacks(machines.pc(toolchain=replace(PC.toolchain, cmake=old, ninja=None))) == ()


VENV_FIRST = "python3 -m venv .venv && floatllm-build install --python .venv/bin/python"
WINDOWS_VENV_FIRST = r"py -m venv .venv && floatllm-build install --python .venv\Scripts\python"
REFUSED = [
    ({"kind": "pipx"}, "pipx keeps", VENV_FIRST),
    ({"kind": "uv-tool"}, "uv keeps", VENV_FIRST),
    ({"kind": "uvx"}, "uvx made", VENV_FIRST),
    ({"kind": "pipx", "platform": "win-amd64"}, "pipx keeps", WINDOWS_VENV_FIRST),
    ({"externally_managed": True}, "operating system", VENV_FIRST),
    ({"version": (3, 9)}, "3.9", "--python PYTHON"),
    ({"bits": 32}, "32-bit", "--python PYTHON"),
]


@pytest.mark.parametrize(("changes", "why", "fix"), REFUSED)
def test_an_environment_that_cannot_take_the_engine(changes: dict[str, Any], why: str, fix: str) -> None:
    target: Target = replace(VENV, **changes)
    (lack,) = lacks(machines.pc(target=target))
    assert why in lack.why
    assert fix in lack.fix
    with pytest.raises(MissingError) as refused:
        check_target(target)
    assert lack.why[1:] in str(refused.value)
    assert lack.fix in str(refused.value)


def test_a_wheel_that_is_only_packed_needs_no_environment() -> None:
    assert lacks(machines.pc(target=replace(VENV, kind="pipx")), installs=False) == ()
    assert lacks(machines.pc(target=None), installs=False) == ()
    (lack,) = lacks(machines.pc(target=None))
    assert lack.fix == VENV_FIRST
    (lack,) = lacks(machines.pc(target=None, os=replace(PC.os, name="Windows")))
    assert lack.fix == WINDOWS_VENV_FIRST


@pytest.mark.parametrize(
    ("own", "its", "fits"),
    [
        ("linux-x86_64", "linux-x86_64", True),
        ("linux-x86_64", "linux-i686", False),
        ("linux-x86_64", "linux-aarch64", False),
        ("linux-aarch64", "android-24-arm64_v8a", False),
        ("macosx-14.0-arm64", "macosx-15.0-arm64", True),
        ("macosx-14.0-x86_64", "macosx-14.0-arm64", False),
    ],
)
def test_the_target_must_be_of_our_platform(own: str, its: str, fits: bool) -> None:
    host = machines.pc(
        python=replace(PC.python, platform=own), target=replace(VENV, platform=its, executable="/e/python")
    )
    found = lacks(host)
    assert (found == ()) == fits
    if not fits:
        assert its in found[0].why
        assert "/e/python -m floatllm_build install" in found[0].fix


def test_all_lacks_are_named_at_once() -> None:
    host = replace(without_compiler(), target=replace(VENV, kind="pipx"))
    with pytest.raises(MissingError) as refused:
        check_lacks(lacks(host))
    assert "apt install g++" in str(refused.value)
    assert "pipx" in str(refused.value)
