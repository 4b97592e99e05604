"""Whole installs under a hard limit of the kernel, everything included, with empty caches and no swap."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import bare_programs
from tiny_build import Group, group_or_skip
from tool_environment import Environment, make_venv

pytestmark = [
    pytest.mark.ci,
    pytest.mark.build,
    pytest.mark.skipif(sys.platform != "linux", reason="needs control groups"),
]

# Of the Python of the tool, while compilers run, with cmake's files listed and hashed.
TOOL_BYTES = 40_000_000


@dataclass(frozen=True)
class Install:
    """How an install ended."""

    status: int
    said: str
    tool_bytes: int
    """The most that the tool itself had resident while compilers ran."""


@pytest.fixture
def group() -> Iterator[Group]:
    yield from group_or_skip("install")


def install(env: Environment, folder: Path, group: Group, *options: str) -> Install:
    """`floatllm-build install` into a new environment, with gcc and nothing else of use on PATH."""
    target = make_venv(folder / "venv")
    variables = {
        **env.env,
        "PATH": str(bare_programs(folder / "bin")),
        "FLOATLLM_CACHE_DIR": str(folder / "cache"),
        "PIP_NO_CACHE_DIR": "1",
    }
    most = 0
    with (folder / "said").open("w+") as errors:
        tool = env.python.parent / "floatllm-build"
        words = (env.python, tool, "install", *options, "--python", target)
        child = group.start(*words, env=variables, errors=errors)
        while child.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.2)
            if (
                "\nbuild " in (folder / "said").read_text()
                and "\npackage " not in (folder / "said").read_text()
            ):
                most = max(most, resident(child.pid))
    assert child.stdout
    child.stdout.close()
    done = subprocess.run(
        [target, "-m", "floatllm", "devices"], capture_output=True, text=True, check=False, cwd=folder
    )
    assert ("CPU" in done.stdout) == (child.returncode == 0)
    return Install(child.returncode, (folder / "said").read_text(), most)


def resident(pid: int) -> int:
    with suppress(OSError):
        found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def test_low_mem_in_256_mib(packing_env: Environment, tmp_path: Path, group: Group) -> None:
    group.limit(256)
    trace = tmp_path / "trace.json"
    done = install(packing_env, tmp_path, group, "--low-mem", "--trace", str(trace))
    assert done.status == 0, done.said
    assert group.kills == 0
    assert 0 < done.tool_bytes <= TOOL_BYTES
    events = json.loads(trace.read_text())["traceEvents"]
    units = {event["name"] for event in events if event["ph"] == "X"}
    assert {"ops.cpp.o", "libfloatllm.so"} <= units
    # With a PATH that has compilers and no build tools: those came as wheels.
    assert (tmp_path / "cache" / "tools" / "cmake").is_dir()
    assert (tmp_path / "cache" / "tools" / "ninja").is_dir()
    with zipfile.ZipFile(next((tmp_path / "cache" / "wheels").glob("*/*.whl"))) as archive:
        manifest = json.loads(archive.read("floatllm/manifest.json"))
    assert (manifest["preset"], manifest["low_mem"]) == ("cpu-low-mem", True)
    assert manifest["build_type"] == "MinSizeRel"
    assert any(event["ph"] == "C" for event in events)


@pytest.mark.cpus
def test_the_default_in_480_mib(packing_env: Environment, tmp_path: Path, group: Group) -> None:
    """`cmake --build -j2` of the same is killed there: benchmarks/build.py, limited."""
    group.limit(480)
    done = install(packing_env, tmp_path, group, "--preset", "cpu")
    assert done.status == 0, done.said
    assert group.kills == 0
