"""The installed `detect` and `plan`, as a user calls them: what they print, and that nothing stops them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from groups import enter, group, own_group
from tool_environment import ROOT, Environment, make_venv, skip_or_fail

from floatllm_build.sizes import GIB

# Five seconds are promised. This ends what is held up: the drivers here sleep for ten minutes.
_LIMIT = 120.0


def run(env: Environment, *words: str, first: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """floatllm-build in a process that runs `first` before it becomes the tool."""
    tool = str(env.python.parent / "floatllm-build")
    code = f"import os, sys\n{first}\nos.execv({tool!r}, [{tool!r}, *sys.argv[1:]])"
    return subprocess.run(
        [env.python, "-c", code, *words],
        cwd=env.prefix,
        env={**env.env, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )


def detected(env: Environment, *words: str, status: int = 0, **variables: str) -> dict[str, Any]:
    done = run(env, "detect", "--json", *words, **variables)
    assert (done.returncode, done.stderr) == (status, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def driver(folder: Path, body: str) -> dict[str, str]:
    """A libcuda whose cuInit does `body`, and the variable that has the loader find it."""
    compiler = shutil.which("cc")
    if not compiler:
        skip_or_fail("no C compiler; install one (Debian: apt install gcc)")
    source = folder / "driver.c"
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        "#define NOTHING(name) int name(void) { return 999; }\n"
        "int cuDriverGetVersion(int *version) { *version = 13000; return 0; }\n"
        "NOTHING(cuDeviceGetCount) NOTHING(cuDeviceGet) NOTHING(cuDeviceGetName)\n"
        "NOTHING(cuDeviceGetAttribute) NOTHING(cuDeviceTotalMem_v2)\n"
        f"int cuInit(unsigned flags) {{ {body} }}\n"
    )
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sleep(600); return 0;", "no answer within"),
        ("abort();", "signal 6"),
        ('for (int i = 0; i < 9999; i++) puts("{"); fflush(stdout); return 999;', "999"),
    ],
)
def test_a_broken_driver_is_a_fact_and_holds_nobody_up(
    tool_env: Environment, tmp_path: Path, body: str, said: str
) -> None:
    found = detected(tool_env, **driver(tmp_path, body))
    notes = [note["said"] for note in found["notes"] if "libcuda" in note["source"]]
    assert any(said in note for note in notes)
    assert found["cuda"]["devices"] == []
    assert found["plan"]["preset"] == "cpu"


def test_what_is_printed_fits_the_published_schema(tool_env: Environment) -> None:
    from jsonschema import Draft202012Validator

    schema = json.loads((ROOT / "docs/schema/detect.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(detected(tool_env))
    refused = detected(tool_env, "--backend", "metal", status=3)
    assert "metal was asked for" in refused["problem"]
    Draft202012Validator(schema).validate(refused)


def test_a_plan_inside_limits_sees_the_limits(tool_env: Environment) -> None:
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("no control groups of version 1 here; test_limits has version 2")
    with (
        group(own_group("memory"), memory__limit_in_bytes=str(2 * GIB)) as memory,
        group(own_group("cpu"), cpu__cfs_period_us="100000", cpu__cfs_quota_us="100000") as cpu,
    ):
        done = run(tool_env, "plan", "--backend", "cpu", "--json", first=enter(memory, cpu))
    made = json.loads(done.stdout)
    assert (made["preset"], made["jobs"]) == ("cpu-low-mem", 1)
    assert GIB < made["memory_rung"] <= 2 * GIB
    told = {reason["rule"]: reason["text"] for reason in made["reasons"]}
    assert "2.0 GiB of memory in all" in told["low-mem"]
    assert "1 usable CPU," in told["jobs"]


@pytest.mark.parametrize(
    ("variables", "rule", "field", "value"),
    [
        ({"FLOATLLM_BACKEND": "cpu"}, "asked", "backend", "cpu"),
        ({"FLOATLLM_PRESET": "cpu-low-mem"}, "asked", "preset", "cpu-low-mem"),
        ({"FLOATLLM_LOW_MEM": "1"}, "low-mem", "preset", "cpu-low-mem"),
        ({"FLOATLLM_PORTABLE": "1"}, "portable", "preset", "wheel-cpu"),
        ({"FLOATLLM_JOBS": "7"}, "jobs", "jobs", 7),
        ({"FLOATLLM_MEMORY": "1GiB"}, "low-mem", "memory_rung", GIB),
    ],
)
def test_each_option_has_its_variable(
    tool_env: Environment, variables: dict[str, str], rule: str, field: str, value: object
) -> None:
    done = run(tool_env, "plan", "--json", **variables)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made[field] == value
    assert rule in {reason["rule"] for reason in made["reasons"]}


def test_a_record_holds_the_python_that_was_named(tool_env: Environment, tmp_path: Path) -> None:
    home = tmp_path / "ada-lovelace"
    # An environment: a bare link would be the Python below it, which a distribution may manage.
    python = make_venv(home / "venv")
    record = tmp_path / "host.json"
    named = ("--python", str(python))
    shown = run(tool_env, "detect", "--save", str(record), *named, HOME=str(home))
    assert shown.returncode == 0
    # What is printed can be pasted; what is kept says nothing of its owner.
    assert f"floatllm-build install --python {python}" in shown.stdout
    assert "ada-lovelace" not in record.read_text(encoding="utf-8")
    live = json.loads(run(tool_env, "plan", "--json", *named, HOME=str(home)).stdout)
    again = json.loads(run(tool_env, "plan", "--json", "--from", str(record)).stdout)
    assert live["missing"] == again["missing"] == []


def test_a_record_says_nothing_of_its_owner(tool_env: Environment, tmp_path: Path) -> None:
    home = tmp_path / "ada-lovelace"
    compiler = home / "bin" / "my-c++"
    compiler.parent.mkdir(parents=True)
    found = shutil.which("c++")
    if not found:
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    compiler.symlink_to(found)
    record = tmp_path / "host.json"
    mine = {"HOME": str(home), "CXX": str(compiler), "CMAKE_ARGS": f"-DX={home}/x"}
    live = run(tool_env, "plan", "--json", **mine)
    assert run(tool_env, "detect", "--save", str(record), **mine).returncode == 0
    text = record.read_text(encoding="utf-8")
    assert "ada-lovelace" not in text
    assert "{home}/bin/my-c++" in text
    plans = [
        run(tool_env, "plan", "--json", "--from", str(record), HOME=place) for place in ("/", os.devnull)
    ]
    assert plans[0].stdout == plans[1].stdout
    made = json.loads(plans[0].stdout)
    assert made["cxx"] == "{home}/bin/my-c++"
    assert made["cmake"][-1] == "-DX={home}/x"
    # What was free a moment ago may be another rung by now.
    now = {"memory_rung": 0, "reasons": []}
    assert {**made, **now} == {**json.loads(live.stdout), **now}
