"""The presets: read by us as CMake reads them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tool_environment import skip_or_fail

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.presets import find_preset, load_presets

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    *("cpu", "cuda", "vulkan", "metal", "hip", "cpu-low-mem", "vulkan-low-mem", "android-low-mem"),
    *("android-ndk-arm64", "wheel-cpu", "wheel-cuda", "wheel-vulkan", "wheel-metal", "wheel-hip"),
}


def test_all_public_names_exist() -> None:
    assert set(load_presets(ROOT)) == PUBLIC


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
        assert preset.backend == preset.name.removeprefix("wheel-").split("-")[0].replace("android", "cpu")
        assert preset.low_mem == preset.name.endswith("-low-mem")
    assert presets["cpu"].variables["GGML_METAL"] == presets["cpu"].variables["GGML_BLAS"] == "OFF"
    assert presets["cuda"].variables["GGML_CUDA_GRAPHS"] == "ON"
    phone = presets["android-low-mem"]
    assert phone.jobs == 1
    assert phone.variables["CMAKE_BUILD_TYPE"] == "MinSizeRel"
    assert phone.variables["CMAKE_CXX_FLAGS"] == "-Os -g0"
    assert phone.variables["GGML_VULKAN"] == "OFF"


def test_cmake_lists_and_expands_the_same(tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if not cmake:
        skip_or_fail("cmake is not on PATH (Debian: apt install cmake)")
    for part in ("native", "presets"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("src", "build"))
    listed = subprocess.run(
        [cmake, "--list-presets"], cwd=tmp_path / "native", capture_output=True, text=True, check=True
    )
    # CMake leaves out what this host cannot use, for instance a toolchain file that is not there.
    names = set(re.findall(r'^  "([^"]+)"', listed.stdout, re.MULTILINE))
    assert names
    assert names <= PUBLIC
    assert PUBLIC - names <= {"android-ndk-arm64"}
    # Configuring stops early, after CMake has printed the preset's variables.
    (tmp_path / "native" / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(p NONE)\n"
    )
    for name in ("cpu", "cpu-low-mem", "wheel-cuda", "vulkan-low-mem"):
        done = subprocess.run(
            [cmake, f"--preset={name}", "-S", tmp_path / "native"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        shown = dict(re.findall(r'^  (\w+)="(.*)"$', done.stdout, re.MULTILINE))
        assert shown == dict(load_presets(ROOT)[name].variables)


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
