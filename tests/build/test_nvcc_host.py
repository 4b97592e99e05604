"""The compiler that the user names for nvcc."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import PC
from probed_machines import Machine, notes, script

from floatllm_build.host.findings import Findings
from floatllm_build.host.nvcc_host import parse_ccbin
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.values import Compiler

SAYS_14 = "echo 'g++ (GCC) 14.3.0'; echo 'Copyright (C) 2024 Free Software Foundation, Inc.'"


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("CUDAHOSTCXX", " /opt/gcc-14/bin/g++ ", "/opt/gcc-14/bin/g++"),
        ("NVCC_CCBIN", "/usr/bin", "/usr/bin"),
        ("NVCC_PREPEND_FLAGS", "-O2 -ccbin /usr/bin/g++-14", "/usr/bin/g++-14"),
        ("NVCC_PREPEND_FLAGS", "-ccbin=/usr/bin/g++-14 -O2", "/usr/bin/g++-14"),
        ("NVCC_APPEND_FLAGS", "--compiler-bindir '/a b/g++'", "/a b/g++"),
        ("NVCC_APPEND_FLAGS", "--compiler-bindir=g++-13 -ccbin g++-12", "g++-12"),
        ("NVCC_PREPEND_FLAGS", "--threads 4", ""),
        ("NVCC_PREPEND_FLAGS", "-ccbin", ""),
        ("NVCC_PREPEND_FLAGS", "-ccbin '", ""),
        ("NVCC_CCBIN", "", ""),
    ],
)
def test_the_compiler_in_a_variable(variable: str, value: str, command: str) -> None:
    assert parse_ccbin(variable, value) == command


def test_paths_of_windows_keep_their_slashes() -> None:
    assert (
        parse_ccbin("NVCC_PREPEND_FLAGS", r'-ccbin "C:\VS\bin\cl.exe"', windows=True) == r"C:\VS\bin\cl.exe"
    )


def test_the_named_compiler_is_asked_and_so_is_one_in_a_named_folder(tmp_path: Path) -> None:
    program = script(tmp_path / "g++", body=SAYS_14)
    for variable, value in (("CUDAHOSTCXX", program), ("NVCC_CCBIN", str(tmp_path))):
        findings = Findings()
        facts = probe_toolchain(Machine(variables={variable: value}), PC.os, findings)
        assert facts.nvcc_host == Compiler(command=program, kind="gcc", version="14.3.0")
        assert facts.nvcc_host_by == variable
        assert "toolchain.nvcc_host" in {source.fact for source in findings.sources}


def test_cmakes_variable_comes_first_and_nobody_is_asked_twice(tmp_path: Path) -> None:
    program = script(tmp_path / "g++-14", body=f"echo asked >> {tmp_path}/asked; {SAYS_14}")
    machine = Machine(programs={"g++-14": program}, variables={"CUDAHOSTCXX": program, "NVCC_CCBIN": "/gone"})
    # A program that PATH finds is started by its name.
    machine.run = (
        lambda argv, **more: Machine.run(  # type: ignore[method-assign]
            machine, (machine.programs.get(argv[0], argv[0]), *argv[1:]), **more
        )
    )
    facts = probe_toolchain(machine, PC.os, Findings())
    assert facts.nvcc_host == Compiler(command="g++-14", kind="gcc", version="14.3.0")
    assert facts.nvcc_host_by == "CUDAHOSTCXX"
    assert (tmp_path / "asked").read_text() == "asked\n"


def test_one_that_is_named_and_does_not_answer_is_a_note(tmp_path: Path) -> None:
    broken = script(tmp_path / "g++", body="echo no such library >&2; exit 1")
    for value, why in (("/gone/g++", "cannot be started"), (broken, "no such library")):
        findings = Findings()
        facts = probe_toolchain(Machine(variables={"CUDAHOSTCXX": value}), PC.os, findings)
        assert (facts.nvcc_host, facts.nvcc_host_by) == (None, "CUDAHOSTCXX")
        assert why in notes(findings)["CUDAHOSTCXX"]
    facts = probe_toolchain(Machine(), PC.os, Findings())
    assert (facts.nvcc_host, facts.nvcc_host_by) == (None, "")
