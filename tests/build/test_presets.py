"""The presets: read by us as CMake reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tool_environment import skip_or_fail
from toolchains import OLDEST, SERIES, cmake

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.presets import find_preset, load_presets

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    *("cpu", "cuda", "vulkan", "metal", "hip", "cpu-low-mem", "vulkan-low-mem", "android-low-mem"),
    *("android-ndk-arm64", "wheel-cpu", "wheel-cuda", "wheel-vulkan", "wheel-metal", "wheel-hip"),
}


def test_all_public_names_exist() -> None:
    assert set(load_presets(ROOT)) == PUBLIC


def test_every_file_of_presets_is_listed_for_cmake() -> None:
    """CMake has no wildcards. What this list lacks, neither CMake nor the tool knows."""
    listed = json.loads((ROOT / "native" / "CMakePresets.json").read_text())["include"]
    files = {f"../presets/{path.name}" for path in (ROOT / "presets").glob("*.json")}
    assert {*listed, "../presets/base.json"} == files, "name the file in native/CMakePresets.json"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_preset_knows_its_own_name_and_has_jobs(name: str) -> None:
    preset = load_presets(ROOT)[name]
    assert preset.variables["FLOATLLM_PRESET"] == name
    assert preset.jobs >= 1
    assert preset.description


def test_what_design_asks_of_single_presets() -> None:
    presets = load_presets(ROOT)
    for preset in presets.values():
        assert preset.variables["GGML_LLAMAFILE"] == "ON"
        assert preset.variables["GGML_OPENMP"] == "OFF"
        # Its RDMA would link a library that happens to be there. A plugin is one backend alone.
        assert preset.variables["GGML_RPC"] == ("OFF" if preset.plugin else "ON")
        assert preset.variables["GGML_RPC_RDMA"] == "OFF"
        assert preset.backend == preset.name.removeprefix("wheel-").split("-")[0].replace("android", "cpu")
        assert preset.low_mem == preset.name.endswith("-low-mem")
    for preset in presets.values():
        # Libraries of a device may lie where the loader does not look; only this machine has them there.
        assert (preset.variables.get("CMAKE_INSTALL_RPATH_USE_LINK_PATH") == "ON") is (
            preset.variables["GGML_NATIVE"] == "ON"
        )
    plugins = {name: preset.plugin for name, preset in presets.items() if preset.plugin}
    assert plugins == {"wheel-cuda": "cuda13", "wheel-vulkan": "vulkan", "wheel-hip": "hip"}
    assert presets["cpu"].variables["GGML_METAL"] == presets["cpu"].variables["GGML_BLAS"] == "OFF"
    assert presets["cuda"].variables["GGML_CUDA_GRAPHS"] == "ON"
    phone = presets["android-low-mem"]
    assert phone.jobs == 1
    assert phone.variables["CMAKE_BUILD_TYPE"] == "MinSizeRel"
    assert phone.variables["CMAKE_CXX_FLAGS"] == "-Os -g0"
    assert phone.variables["GGML_VULKAN"] == "OFF"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The presets with a project of no language: configuring leaves the variables in a cache."""
    folder = tmp_path_factory.mktemp("presets")
    shutil.copytree(ROOT / "presets", folder / "presets")
    (folder / "native").mkdir()
    shutil.copy2(ROOT / "native" / "CMakePresets.json", folder / "native")
    (folder / "native" / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(p NONE)\n"
    )
    # All that CMake reads of the NDK before a language is on.
    toolchain = folder / "ndk" / "build" / "cmake" / "android.toolchain.cmake"
    toolchain.parent.mkdir(parents=True)
    toolchain.touch()
    return folder


def run_cmake(bare: Path, *command: str) -> str:
    env = {**os.environ, "ANDROID_NDK_HOME": str(bare / "ndk")}
    done = subprocess.run(command, cwd=bare / "native", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.programs
@pytest.mark.network
@pytest.mark.parametrize("series", SERIES)
def test_every_cmake_lists_the_same(bare: Path, series: str) -> None:
    names = r'^  "([^"]+)"'
    configure, build = (
        re.findall(names, run_cmake(bare, cmake(series), f"--list-presets={kind}"), re.MULTILINE)
        for kind in ("configure", "build")
    )
    assert set(configure) == PUBLIC
    # `cmake --build --preset NAME` works for each.
    assert build == configure


@pytest.mark.programs
@pytest.mark.network
@pytest.mark.parametrize("series", [OLDEST, "newest"])
@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_cmake_expands_each_as_the_tool_does(bare: Path, name: str, series: str) -> None:
    if not shutil.which("ninja"):
        skip_or_fail("ninja is not on PATH (Debian: apt install ninja-build)")
    run_cmake(bare, cmake(series), "--fresh", f"--preset={name}")
    text = (bare / "native" / "build" / name / "CMakeCache.txt").read_text()
    cached = dict(re.findall(r"^(\w+):\w+=(.*)$", text, re.MULTILINE))
    preset = load_presets(ROOT)[name]
    # Beside them CMake keeps what is its own.
    assert {key: cached.get(key) for key in preset.variables} == dict(preset.variables)
    ours = {key for key in cached if key.startswith(("GGML_", "FLOATLLM_"))}
    assert ours <= set(preset.variables)
    assert preset.cross is ("CMAKE_TOOLCHAIN_FILE" in cached)


@pytest.mark.programs
@pytest.mark.network
def test_a_cmake_older_than_the_minimum_is_refused_by_the_presets(bare: Path) -> None:
    command = [cmake("3.24.3"), "--list-presets"]
    done = subprocess.run(command, cwd=bare / "native", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert '"cmakeMinimumRequired" version too new' in done.stderr


def test_an_unknown_preset_is_answered_with_the_names() -> None:
    with pytest.raises(UsageFaultError, match=r"cpu, cpu-low-mem, wheel-cpu"):
        find_preset(load_presets(ROOT), "gpu")


@pytest.mark.parametrize(
    "presets",
    [
        [{"name": "a", "inherits": "b"}],
        [{"name": "a", "inherits": ["b"]}, {"name": "b", "inherits": "a"}],
    ],
)
def test_presets_that_do_not_fit_together_are_refused(tmp_path: Path, presets: list[object]) -> None:
    (tmp_path / "native").mkdir()
    text = json.dumps({"version": 4, "configurePresets": presets})
    (tmp_path / "native" / "CMakePresets.json").write_text(text)
    with pytest.raises(MissingError, match="inherit"):
        load_presets(tmp_path)
