"""Which environment is installed into, and which ones are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC, VENV, pc, phone

from floatllm_build.errors import MissingError
from floatllm_build.host.python import probe_target
from floatllm_build.install import check_platform, check_tag
from floatllm_build.preflight import check_lacks, check_target, find_lacks
from floatllm_build.presets import load_presets
from floatllm_build.select import make_plan
from floatllm_build.system import Completed, LiveSystem
from floatllm_build.values import Host, Lack, Program, Request, Target, Wheel
from floatllm_build.versions import version_tuple

ROOT = Path(__file__).resolve().parents[2]


class Machine(LiveSystem):
    """The real machine with its own environment variables, and an answer of the test's for the target."""

    def __init__(self, variables: dict[str, str], answer: dict[str, Any] | None = None) -> None:
        self.variables = variables
        self.answer = answer
        self.asked = ""

    def getenv(self, name: str) -> str | None:
        return self.variables.get(name)

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        self.asked = argv[0]
        if self.answer is None:
            return super().run(argv, timeout=timeout, variables=variables)
        return Completed(rc=0, out=json.dumps(self.answer), err="")


ANSWER = {
    "executable": "/e/bin/python",
    "version": [3, 12],
    "bits": 64,
    "platform": "linux-x86_64",
    "prefix": "/e",
    "venv": True,
    "conda": False,
    "managed": False,
    "pipx": False,
    "uv_tool": False,
    "pip": True,
    "installed": "",
}


@pytest.mark.parametrize(
    ("explicit", "variables", "asked", "chosen_by"),
    [
        ("/p/python", {"VIRTUAL_ENV": "/v"}, "/p/python", "--python"),
        (None, {"VIRTUAL_ENV": "/v", "CONDA_PREFIX": "/c"}, "/v/bin/python", "VIRTUAL_ENV"),
        (None, {"CONDA_PREFIX": "/c"}, "/c/bin/python", "CONDA_PREFIX"),
        (None, {}, sys.executable, "the running Python"),
    ],
)
def test_the_rule(explicit: str | None, variables: dict[str, str], asked: str, chosen_by: str) -> None:
    machine = Machine(variables, ANSWER)
    assert probe_target(machine, explicit).chosen_by == chosen_by
    assert machine.asked == asked


def test_a_real_environment_answers(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    target = probe_target(Machine({"VIRTUAL_ENV": str(tmp_path / "v")}), None)
    assert Path(target.prefix).resolve() == (tmp_path / "v").resolve()
    assert (target.kind, target.has_pip, target.installed) == ("venv", False, "")
    assert target.version == sys.version_info[:2]
    check_target(target)


def test_a_python_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--python"):
        probe_target(Machine({}), str(tmp_path / "python"))


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"pipx": True}, "pipx"),
        ({"uv_tool": True}, "uv-tool"),
        ({"prefix": "/home/u/.cache/uv/archive-v0/abc"}, "uvx"),
        ({"venv": False, "conda": True}, "conda"),
        ({"venv": False}, "system"),
        ({}, "venv"),
    ],
)
def test_kinds(changed: dict[str, Any], kind: str) -> None:
    assert probe_target(Machine({}, {**ANSWER, **changed}), None).kind == kind


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (replace(VENV, kind="pipx"), "pipx keeps"),
        (replace(VENV, kind="uv-tool"), "uv keeps"),
        (replace(VENV, kind="uvx"), "uvx made"),
        (replace(VENV, kind="system", externally_managed=True), "python3 -m venv"),
        (replace(VENV, version=(3, 9)), r"3\.10"),
        (replace(VENV, bits=32), "64 bits"),
    ],
)
def test_environments_that_are_refused_get_a_command(target: Target, said: str) -> None:
    with pytest.raises(MissingError, match=said):
        check_target(target)


@pytest.mark.parametrize(
    ("wheel", "platform", "fits"),
    [
        ("floatllm-0.1.0-py3-none-linux_x86_64.whl", "linux-x86_64", True),
        ("floatllm-0.1.0-py3-none-linux_x86_64.whl", "linux-aarch64", False),
        ("floatllm-0.1.0-py3-none-linux_aarch64.whl", "android-24-arm64_v8a", False),
        ("floatllm-0.1.0-py3-none-macosx_14_0_arm64.whl", "macosx-15.0-arm64", True),
        ("floatllm-0.1.0-py3-none-macosx_15_0_arm64.whl", "macosx-14.0-arm64", False),
        ("floatllm-0.1.0-py3-none-win_amd64.whl", "win-amd64", True),
    ],
)
def test_the_tag_must_fit_the_target(wheel: str, platform: str, fits: bool) -> None:
    target, made = replace(VENV, platform=platform), Wheel(path=f"/w/{wheel}", key="", reused=False)
    if fits:
        check_tag(target, made)
    else:
        with pytest.raises(MissingError, match="another platform"):
            check_tag(target, made)


@pytest.mark.parametrize(
    ("own", "platform", "fits"),
    [
        ("linux-x86_64", "linux-x86_64", True),
        ("linux-x86_64", "linux-i686", False),
        ("macosx-14.0-arm64", "macosx-15.0-arm64", True),
        ("macosx-14.0-x86_64", "macosx-14.0-arm64", False),
    ],
)
def test_another_platform_is_refused_before_anything_is_built(own: str, platform: str, fits: bool) -> None:
    target = replace(VENV, platform=platform)
    if fits:
        check_platform(own, target)
    else:
        with pytest.raises(MissingError, match="run it there"):
            check_platform(own, target)


def _lacks(host: Host) -> tuple[Lack, ...]:
    return find_lacks(host, make_plan(host, Request(), load_presets(ROOT)))


def test_nothing_is_missing_on_a_pc() -> None:
    assert _lacks(PC) == ()
    without_tools = pc(toolchain=replace(PC.toolchain, cmake=None, ninja=None))
    assert _lacks(without_tools) == ()


def test_a_missing_compiler_is_named_with_its_command() -> None:
    lacks = _lacks(pc(toolchain=replace(PC.toolchain, cxx=None)))
    assert "apt install g++" in lacks[0].fix
    with pytest.raises(MissingError, match="compiler is missing"):
        check_lacks(lacks)


def test_in_termux_cmake_and_ninja_come_from_pkg_alone() -> None:
    whole = phone("asimd")
    assert _lacks(whole) == ()
    old = Program(path="cmake", version="3.20.0")
    bare = replace(whole, toolchain=replace(whole.toolchain, cmake=old, ninja=None))
    assert [lack.fix for lack in _lacks(bare)] == ["pkg install cmake", "pkg install ninja"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3.25.1", (3, 25, 1)), ("3.31.0-rc2", (3, 31, 0)), ("1.11.1.git.kitware", (1, 11, 1)), ("x", ())],
)
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers
