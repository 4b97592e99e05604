"""The Vulkan backend, built by the tool and proven on a software device (Mesa's llvmpipe)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tool_environment import Environment, make_venv, skip_or_fail
from toolchains import VULKAN_HEADERS, header_version, vulkan_sdk, vulkan_tools

pytestmark = pytest.mark.build

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


@pytest.mark.usefixtures("software_device")
def test_install_builds_and_proves_it(tool_env: Environment, tmp_path: Path) -> None:
    """Takes three minutes to compile on two CPUs, and 40 seconds to prove."""
    python = make_venv(tmp_path / "venv")
    done = tool_env.tool("install", "--backend", "vulkan", "--python", python, **vulkan_sdk())
    # It fails where the proof does not run on this device.
    assert done.returncode == 0, done.stderr
    assert "Target hardware: Vulkan0" in " ".join(done.stderr.split())
    package = next((tmp_path / "venv").glob("lib/python*/site-packages/floatllm"))
    manifest = json.loads((package / "manifest.json").read_text())
    assert (manifest["preset"], manifest["backends"]) == ("vulkan", ["cpu", "vulkan"])
    devices = subprocess.run(
        [python, "-m", "floatllm", "devices", "--json"],
        env={**tool_env.env, **SOFTWARE},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"CPU", "Vulkan0"} <= {device["name"] for device in json.loads(devices.stdout)["devices"]}
