"""The installed tool's questions: detect, plan, presets; recording and replaying; its dependencies."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tool_environment import Environment

_PURE = """
import json
from importlib.metadata import distribution
from packaging.requirements import Requirement
seen, todo = {}, ["floatllm-build"]
while todo:
    found = distribution(todo.pop())
    if found.name in seen:
        continue
    wheel = (found.read_text("WHEEL") or "").splitlines()
    seen[found.name] = [line.removeprefix("Tag: ") for line in wheel if line.startswith("Tag: ")]
    needed = map(Requirement, found.requires or [])
    todo += [need.name for need in needed if not need.marker or need.marker.evaluate({"extra": ""})]
print(json.dumps(seen))
"""


def test_help_is_a_command_too(tool_env: Environment) -> None:
    assert tool_env.tool("help").stdout == tool_env.tool("--help").stdout != ""
    assert tool_env.tool("help", "install").stdout == tool_env.tool("install", "--help").stdout != ""


def test_the_tool_needs_pure_python_only(tool_env: Environment) -> None:
    """In Termux there is no wheel for anything else."""
    done = subprocess.run(
        [tool_env.python, "-c", _PURE], env=tool_env.env, capture_output=True, text=True, check=True
    )
    tags = json.loads(done.stdout)
    assert {"floatllm-build", "typer", "scikit_build_core"} <= set(tags)
    assert {
        name: all(tag.endswith("-none-any") for tag in own) for name, own in tags.items()
    } == dict.fromkeys(tags, True)


def test_detect_prints_json_and_nothing_else(tool_env: Environment) -> None:
    done = tool_env.tool("detect", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    host = json.loads(done.stdout)
    assert host["schema_version"] == 1
    assert host["cpu"]["usable"] >= 1
    assert host["memory"]["room"] > 0
    assert host["plan"]["preset"]


def test_detect_says_why_in_plain_text_without_a_terminal(tool_env: Environment) -> None:
    done = tool_env.tool("detect", "--why")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "rule best-backend" in done.stdout


def test_a_recorded_host_gives_the_plan_of_the_live_one(tool_env: Environment, tmp_path: Path) -> None:
    record = tmp_path / "host.json"
    assert tool_env.tool("detect", "--json", "--save", record).returncode == 0
    replayed = tool_env.tool("plan", "--from", record, "--json", PATH="", HOME=str(tmp_path))
    again = tool_env.tool("plan", "--from", record, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout == again.stdout
    plan, live = (json.loads(text) for text in (replayed.stdout, tool_env.tool("plan", "--json").stdout))
    # What was free a moment ago may be another rung by now.
    assert {**plan, "memory_rung": 0, "reasons": []} == {**live, "memory_rung": 0, "reasons": []}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no recorded host"),
        ('{"schema_version": 99}', "99"),
        ('{"schema_version":1,"which":{"cc":1}}', "`which`"),
    ],
)
def test_a_damaged_record_is_a_usage_error(
    tool_env: Environment, tmp_path: Path, text: str, said: str
) -> None:
    record = tmp_path / "host.json"
    record.write_text(text)
    done = tool_env.tool("plan", "--from", record)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_clean_says_what_it_could_not_delete(tool_env: Environment, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    (cache / "wheels").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (cache / "build").symlink_to(tmp_path / "elsewhere")
    done = tool_env.tool("clean", FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 3
    assert f"{cache}/build" in done.stderr
    assert "by hand" in done.stderr
    assert done.stdout == ""
    assert not (cache / "wheels").exists()
    (cache / "build").unlink()
    done = tool_env.tool("clean", FLOATLLM_CACHE_DIR=str(cache))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_quote_that_is_never_closed_is_a_usage_error(tool_env: Environment) -> None:
    done = tool_env.tool("plan", CMAKE_ARGS='-DX="1')
    assert done.returncode == 2
    assert "CMAKE_ARGS" in done.stderr
    assert tool_env.tool("detect", CXX='g++ "').returncode == 0


def test_plan_shows_the_exact_cmake_line(tool_env: Environment) -> None:
    done = tool_env.tool("plan", "--backend", "cpu", "--low-mem", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "cmake --preset cpu-low-mem -S {build}/src/native -B {build}/out -DGGML_DIR={ggml}" in done.stdout


def test_presets_are_listed_from_the_files(tool_env: Environment) -> None:
    rows = json.loads(tool_env.tool("presets", "--json").stdout)["presets"]
    listed = tool_env.tool("presets").stdout
    assert {"cpu", "android-low-mem", "wheel-vulkan"} <= {row["name"] for row in rows}
    assert all(row["name"] in listed for row in rows)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("plan", "--backend", "metal"), 3, "metal was asked for"),
        (("plan", "--preset", "gpu"), 2, "There are: cpu"),
        (("plan", "--memory", "lots"), 2, "is not a size"),
        (("plan", "--backend", "abacus"), 2, "abacus"),
        (("install", "--python", "/nowhere/python"), 3, "/nowhere/python"),
        (("install", "--ggml-dir", "/nowhere"), 2, "not the source of llama.cpp"),
        (("wheel", "--preset", "android-ndk-arm64"), 2, "plain cmake"),
        (("verify",), 3, "floatllm-build install"),
    ],
)
def test_errors_are_one_message_and_a_number(
    tool_env: Environment, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    environment = {"VIRTUAL_ENV": str(_empty_venv(tool_env, tmp_path))} if arguments == ("verify",) else {}
    done = tool_env.tool(*arguments, **environment)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def _empty_venv(tool_env: Environment, folder: Path) -> Path:
    subprocess.run([tool_env.python, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    return folder / "venv"
