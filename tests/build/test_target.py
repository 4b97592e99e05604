"""Which environment is installed into, and which ones are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC, VENV, pc, phone
from tool_environment import fresh_environment, skip_or_fail

from floatllm_build.errors import MissingError
from floatllm_build.host.findings import Findings
from floatllm_build.host.python import find_target, probe_target
from floatllm_build.install import check_tag
from floatllm_build.preflight import check_lacks, check_target, find_lacks
from floatllm_build.system import Completed, LiveSystem, Replay
from floatllm_build.values import Host, Lack, Program, Source, Target, Wheel
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

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        self.asked = subject
        if self.answer is None:
            return super().ask(question, subject, timeout=timeout)
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
    "uv": False,
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


def test_a_python_that_does_not_answer_is_a_note_where_nothing_is_installed(tmp_path: Path) -> None:
    findings = Findings()
    python = tmp_path / "python"
    assert find_target(Machine({"VIRTUAL_ENV": "/v"}), str(python), findings) is None
    assert [note.source for note in findings.notes] == [f"{python} (--python)"]
    assert "No such file" in findings.notes[0].said


def test_a_program_that_is_no_python_is_a_note() -> None:
    findings = Findings()
    assert find_target(Machine({}), shutil.which("true") or "true", findings) is None
    assert findings.notes[0].said == "it is no Python"


def test_a_folder_is_told_from_a_python_that_may_not_be_run(tmp_path: Path) -> None:
    folder = tmp_path / "an [odd] name"
    folder.mkdir()
    with pytest.raises(MissingError, match="does not answer: it is a folder, and not the Python in it"):
        probe_target(Machine({}), str(folder))
    (folder / "python").touch(mode=0o600)
    with pytest.raises(MissingError, match=r"does not answer: .*Permission denied"):
        probe_target(Machine({}), str(folder / "python"))


def test_where_the_target_comes_from_is_told() -> None:
    findings = Findings()
    target = find_target(Machine({}), sys.executable, findings)
    assert target is not None
    assert target.version == sys.version_info[:2]
    assert findings.sources == [Source(fact="target", source=f"{sys.executable} (--python)")]


def test_what_an_environment_prints_when_it_starts_is_no_answer(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    site = next((tmp_path / "v").glob("lib*/python*/site-packages"))
    (site / "greet.pth").write_text(
        "import atexit; print('{}'); print('welcome', end='', flush=True); atexit.register(print, 'bye')\n"
    )
    assert probe_target(Machine({"VIRTUAL_ENV": str(tmp_path / "v")}), None).kind == "venv"


def test_a_folder_with_odd_letters(tmp_path: Path) -> None:
    folder = tmp_path / "é ü 日本 {x}"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    assert Path(probe_target(Machine({"VIRTUAL_ENV": str(folder)}), None).prefix) == folder


def test_what_is_installed_is_found_by_its_own_name(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    site = next((tmp_path / "v").glob("lib*/python*/site-packages"))
    machine = Machine({"VIRTUAL_ENV": str(tmp_path / "v")})
    (site / "floatllm_build-0.1.0.dist-info").mkdir()
    assert probe_target(machine, None).installed == ""
    (site / "floatllm-0.1.0.dist-info").mkdir()
    assert Path(probe_target(machine, None).installed).name == "floatllm-0.1.0.dist-info"


@pytest.mark.parametrize(
    "changed",
    [
        {"version": [3]},
        {"version": "3.12"},
        {"version": [3, 1e300]},
        {"version": [3, 10**30]},
        {"version": [3, True]},
        {"bits": "64"},
        {"bits": float("nan")},
        {"prefix": None},
        {"executable": ""},
        {"managed": 1},
        {"installed": ["/x"]},
    ],
)
def test_an_answer_of_another_shape_is_refused(changed: dict[str, Any]) -> None:
    machine, findings = Machine({}, {**ANSWER, **changed}), Findings()
    assert find_target(machine, "/p/python", findings) is None
    assert "makes no sense" in findings.notes[0].said
    with pytest.raises(MissingError, match="makes no sense"):
        probe_target(machine, "/p/python")


@pytest.mark.parametrize("out", ["", "[]", "null", "{", "[" * 100_000, "9" * 5000])
def test_what_is_no_answer_is_refused(out: str) -> None:
    asked = {"target /p/python": {"rc": 0, "out": out, "err": "said this"}}
    record = {"schema_version": 1, "asked": asked}
    with pytest.raises(MissingError, match="it is no Python; it said: said this"):
        probe_target(Replay(record), "/p/python")


def test_on_windows_the_python_lies_elsewhere() -> None:
    record: dict[str, Any] = {"schema_version": 1, "native": {"identity": {"system": "Windows"}}}
    for variable, path in (("VIRTUAL_ENV", r"C:\v\Scripts\python.exe"), ("CONDA_PREFIX", r"C:\v\python.exe")):
        record["environ"] = {variable: r"C:\v"}
        record["asked"] = {f"target {path}": {"rc": 0, "out": json.dumps(ANSWER), "err": ""}}
        assert probe_target(Replay(record), None).chosen_by == variable


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"pipx": True}, "pipx"),
        ({"uv_tool": True}, "uv-tool"),
        ({"uv": True, "prefix": "/home/u/.cache/uv/archive-v0/abc"}, "uvx"),
        ({"uv": True, "prefix": "{cache}\\\\uv\\\\cache\\\\archive-v0\\\\abc"}, "uvx"),
        ({"uv": True}, "venv"),
        # Only by its folder's name.
        ({"prefix": "/srv/archive-v0/venv"}, "venv"),
        ({"venv": False, "conda": True}, "conda"),
        ({"venv": False}, "system"),
        ({}, "venv"),
    ],
)
def test_kinds(changed: dict[str, Any], kind: str) -> None:
    assert probe_target(Machine({}, {**ANSWER, **changed}), None).kind == kind


# ---- environments that pipx and uv really make ------------------------------------------------


def _tools(folder: Path, name: str) -> tuple[list[str], dict[str, str]]:
    """How to run uv or pipx, with a home, a cache and tools of its own; skips where it is not installed."""
    if importlib.util.find_spec(name) is None:
        skip_or_fail(f"{name} is not installed beside pytest; install it: pip install {name}")
    env = {**fresh_environment(folder), "UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_PYTHON": sys.executable}
    return [sys.executable, "-m", name], env


def _wheel(folder: Path) -> Path:
    """A package with one program, `where-am-i`, which prints its Python."""
    path = folder / "where_am_i-1.0-py3-none-any.whl"
    info = "where_am_i-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("where_am_i.py", "import sys\ndef main():\n    print(sys.executable, flush=True)\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: where-am-i\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\nwhere-am-i = where_am_i:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def _ran(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "install", "program", "kind"),
    [
        ("uv", ["tool", "run", "--from", "{wheel}", "where-am-i"], "", "uvx"),
        ("uv", ["tool", "install", "{wheel}"], ".local/bin/where-am-i", "uv-tool"),
        ("pipx", ["install", "{wheel}"], ".local/bin/where-am-i", "pipx"),
        ("pipx", ["run", "--spec", "{wheel}", "where-am-i"], "", "pipx"),
    ],
)
def test_real_environments_of_other_tools_are_known_and_refused(
    tmp_path: Path, name: str, install: list[str], program: str, kind: str
) -> None:
    command, env = _tools(tmp_path, name)
    wheel = str(_wheel(tmp_path))
    python = _ran([*command, *(word.replace("{wheel}", wheel) for word in install)], env)
    if program:
        python = _ran([str(Path(env["HOME"]) / program)], env)
    target = probe_target(Machine({}), python.splitlines()[-1])
    assert target.kind == kind
    with pytest.raises(MissingError):
        check_target(target)


def test_an_environment_that_uv_made_for_the_user_is_a_good_one(tmp_path: Path) -> None:
    command, env = _tools(tmp_path, "uv")
    _ran([*command, "venv", str(tmp_path / "v")], env)
    target = probe_target(Machine({"VIRTUAL_ENV": str(tmp_path / "v")}), None)
    assert (target.kind, target.has_pip) == ("venv", False)
    check_target(target)


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
    host = pc(python=replace(PC.python, platform=own), target=replace(VENV, platform=platform))
    assert [lack.what for lack in _lacks(host)] == ([] if fits else ["an environment to install into"])


def _lacks(host: Host) -> tuple[Lack, ...]:
    return find_lacks(host)


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
