"""The Vulkan backend, built by the tool and proven on a software device (Mesa's llvmpipe)."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from tool_environment import Environment, make_venv, skip_or_fail
from toolchains import VULKAN_HEADERS, header_version, vulkan_tools

pytestmark = [pytest.mark.ci, pytest.mark.build]

# ggml takes a software device only by its number among all of Vulkan's.
SOFTWARE = {"GGML_VK_VISIBLE_DEVICES": "0"}


@pytest.fixture(scope="module")
def software_device() -> None:
    if not list(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json")):
        skip_or_fail("no software Vulkan device (Debian: apt install mesa-vulkan-drivers)")


def test_headers_that_are_too_old_are_refused_before_anything_is_built(tool_env: Environment) -> None:
    vulkan_tools()
    found = header_version(Path("/usr/include"))
    if found >= VULKAN_HEADERS:
        pytest.skip("the headers of this distribution are new enough")
    done = tool_env.tool("install", "--backend", "vulkan", VULKAN_SDK="")
    assert done.returncode == 3, done.stderr
    assert f".{found}" in done.stderr
    assert "VULKAN_SDK" in done.stderr
    assert done.stdout == ""


@dataclass(frozen=True)
class Vulkan:
    """The engine with Vulkan in an environment of its own, and what its installation said."""

    python: Path
    said: str
    tool: Environment

    def floatllm(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-m", "floatllm", *map(str, arguments)],
            env={**self.tool.env, **SOFTWARE},
            cwd=self.python.parent,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def vulkan(
    tool_env: Environment,
    software_device: None,
    for_vulkan: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Vulkan:
    """Takes three minutes to compile on two CPUs, and two to prove: the driver compiles each kernel too."""
    del software_device
    python = make_venv(tmp_path_factory.mktemp("vulkan") / "venv")
    done = tool_env.tool("install", "-v", "--backend", "vulkan", "--python", python, **for_vulkan)
    # It fails where the proof does not run on this device.
    assert done.returncode == 0, done.stderr
    return Vulkan(python, done.stderr, tool_env)


def test_install_builds_and_proves_it(vulkan: Vulkan) -> None:
    said = " ".join(vulkan.said.split())
    assert "Target hardware: Vulkan0" in said
    assert re.search(r"computed on Vulkan0, \d\d+ operations agree", said)
    package = next(vulkan.python.parents[1].glob("lib/python*/site-packages/floatllm"))
    manifest = json.loads((package / "manifest.json").read_text())
    assert (manifest["preset"], manifest["backends"]) == ("vulkan", ["cpu", "rpc", "vulkan"])
    devices = vulkan.floatllm("devices", "--json")
    assert {"CPU", "Vulkan0"} <= {device["name"] for device in json.loads(devices.stdout)["devices"]}


def test_verify_lists_what_agrees(vulkan: Vulkan) -> None:
    done = vulkan.tool.tool("verify", "--python", vulkan.python, "--json", **SOFTWARE)
    assert done.returncode == 0, done.stderr
    (proof,) = json.loads(done.stdout)["proofs"]
    assert proof["device"] == "Vulkan0"
    operations = {one["operation"]: one for one in proof["report"]["operations"]}
    assert {"matmul", "RMS norm", "RoPE", "RoPE neox", "attention 64", "set_rows"} <= set(operations)
    assert operations["matmul"]["agree"] > 12
    assert operations["attention 64"]["agree"] == 3


def test_smollm_gives_the_cpus_tokens(vulkan: Vulkan, smollm: Path) -> None:
    # Long enough for the kernels that take many positions at once: those for a few take longest to compile.
    prompt = "Grass is green and snow is white. The capital of France is"
    said = {}
    for device in ("CPU", "Vulkan0"):
        done = vulkan.floatllm("run", smollm, "-p", prompt, "-n", 16, "--ctx", 256, "--device", device)
        assert done.returncode == 0, done.stderr
        assert done.stderr.rstrip().endswith(f"| {device}")
        said[device] = done.stdout
    assert said["CPU"].startswith(" Paris")
    assert said["Vulkan0"] == said["CPU"]


def test_smollm_is_mapped_to_it_whole(vulkan: Vulkan, smollm: Path) -> None:
    done = vulkan.floatllm("map", smollm, "-v", "--device", "Vulkan0")
    assert done.returncode == 0, done.stderr
    mapped = re.findall(r"Mapped (\S+) .*Target hardware: (\w+)", done.stdout + done.stderr)
    assert len(mapped) == 272
    assert {device for _, device in mapped} == {"Vulkan0"}
