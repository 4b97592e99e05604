"""What tests of the tool share."""

from __future__ import annotations

import shutil

import pytest
from running import Place, make_place
from sharing import kept_folder
from tiny_build import ninja_from_wheel
from tool_environment import Environment, copied_environment, skip_or_fail
from toolchains import quick_glslc, vulkan_sdk


@pytest.fixture(scope="session")
def place(tool_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An engine with a cache of its own, to be killed, interrupted and starved; each test leaves it whole.

    The tool is a copy too, because its sources are changed.
    """
    folder = tmp_path_factory.mktemp("place")
    place = make_place(copied_environment(tool_env, folder / "tool"), folder)
    place.change("0")
    done = place.install()
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="session")
def for_vulkan(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which an engine with Vulkan can be compiled; each shader is, once."""
    sdk = vulkan_sdk()
    return {**sdk, **quick_glslc(kept_folder(request.config, "shaders"))}


@pytest.fixture(scope="module")
def modern() -> str:
    """Takes its jobs from a jobserver."""
    return ninja_from_wheel("ninja==1.13.*")


@pytest.fixture(scope="module", params=["old", "modern"])
def ninja(request: pytest.FixtureRequest) -> str:
    return ninja_from_wheel("ninja==1.11.1.*" if request.param == "old" else "ninja==1.13.*")


@pytest.fixture
def cc() -> None:
    """For usefixtures: small programs of C are compiled."""
    if not shutil.which("cc"):
        skip_or_fail("no C compiler; install one (Debian: apt install gcc)")
