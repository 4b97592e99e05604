"""Staging by content, and keys that change with every input."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import CLANG, CUDA_12_4, GOOD_VULKAN, NVIDIA, PC, ROCM, pc

from floatllm_build.build import key
from floatllm_build.build.key import digest, plan_inputs, program_paths, wheel_inputs
from floatllm_build.build.staging import digests, read_sources, requiring, stage
from floatllm_build.errors import MissingError
from floatllm_build.presets import load_presets
from floatllm_build.select import make_plan
from floatllm_build.values import Host, Program, Request

ROOT = Path(__file__).resolve().parents[2]


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    sources = {"native/a.cpp": b"one", "native/b/c.cpp": b"two"}
    first = stage(sources, tmp_path)
    assert (first.written, first.removed) == (2, 0)
    untouched = tmp_path / "native/a.cpp"
    before = untouched.stat().st_mtime_ns
    again = stage({**sources, "native/b/c.cpp": b"three"}, tmp_path)
    assert (again.written, again.removed) == (1, 0)
    assert untouched.stat().st_mtime_ns == before
    assert (tmp_path / "native/b/c.cpp").read_bytes() == b"three"


def test_a_checkout_and_the_installed_tool_have_the_same_sources() -> None:
    """And so the same key: what `pip install -e` made of a checkout is what the tool would make."""
    text = (ROOT / "pyproject.toml").read_text()
    carried = dict(re.findall(r'^"(.*)" = "floatllm_build/data/(.*)"$', text, re.MULTILINE))
    assert all(path == inside for path, inside in carried.items())
    assert not [path for path in carried if not (ROOT / path).exists()]
    lost = [
        path for path in read_sources(ROOT) if not f"{path}/".startswith(tuple(f"{one}/" for one in carried))
    ]
    assert lost == []


def test_what_is_gone_is_removed(tmp_path: Path) -> None:
    stage({"native/a.cpp": b"one", "native/b.cpp": b"two"}, tmp_path)
    assert stage({"native/a.cpp": b"one"}, tmp_path).removed == 1
    assert not (tmp_path / "native/b.cpp").exists()


def test_sources_are_the_three_folders_without_what_a_checkout_gathers(tmp_path: Path) -> None:
    for name in (
        *(
            "native/src/a.cpp",
            "native/floatllm/build/kept.py",
            "presets/cpu.json",
            "ggml/pin.json",
            "LICENSE",
        ),
        *("native/build/cpu/x.o", "native/floatllm/__pycache__/a.pyc", "native/floatllm/libfloatllm.so"),
        *("ggml/source/src/ggml.c", "tests/a.py"),
        *("native/plugins/vulkan/build/x.o", "native/.env", "native/.idea/a.xml"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert set(read_sources(tmp_path)) == {
        *("native/src/a.cpp", "native/floatllm/build/kept.py", "presets/cpu.json", "ggml/pin.json", "LICENSE")
    }


def test_a_wheel_can_depend_on_what_its_backend_needs() -> None:
    sources = read_sources(ROOT)
    wanted = ("nvidia-cublas>=13,<14", "nvidia-cuda-runtime>=13.4,<14")
    changed = requiring(sources, wanted)
    text = changed.pop("native/pyproject.toml").decode()
    assert f"\ndependencies = {json.dumps(wanted)}\n" in text
    assert text.count("dependencies =") == sources["native/pyproject.toml"].count(b"dependencies =")
    assert changed.items() <= sources.items()
    assert requiring(sources, ()) == sources


def test_a_plugin_depends_on_them_beside_the_engine() -> None:
    sources = read_sources(ROOT)
    changed = requiring(sources, ("nvidia-cublas>=13,<14",), "cuda13")
    project = changed.pop("native/plugins/cuda13/pyproject.toml").decode()
    version = re.search(r'^version = "(.*)"$', project, re.MULTILINE)
    assert version
    wanted = json.dumps([f"floatllm=={version[1]}", "nvidia-cublas>=13,<14"])
    assert f"\ndependencies = {wanted}\n" in project
    assert changed.items() <= sources.items()


def test_a_project_file_without_its_line_is_not_passed_over() -> None:
    with pytest.raises(MissingError, match=r"pyproject\.toml"):
        requiring({"native/pyproject.toml": b"[project]\n"}, ("nvidia-cublas",))


def test_the_tool_finds_all_its_sources() -> None:
    sources = read_sources(ROOT)
    assert {"native/CMakeLists.txt", "presets/base.json", "ggml/pin.json", "LICENSE"} <= set(sources)


def _inputs(host: Host = PC, request: Request | None = None, ggml: str = "/g") -> dict[str, Any]:
    presets = load_presets(ROOT)
    plan = make_plan(host, request or Request(), presets)
    return plan_inputs(plan, presets[plan.preset].variables, host, host.toolchain, ggml)


TOOLS = PC.toolchain
GPU = NVIDIA


@pytest.mark.parametrize(
    "changed",
    [
        pc(toolchain=replace(TOOLS, cxx=CLANG)),
        pc(toolchain=replace(TOOLS, cxx=replace(CLANG, kind="gcc", version="13.1.0"))),
        pc(toolchain=replace(TOOLS, cmake=Program(path="/usr/bin/cmake", version="4.1.0"))),
        pc(toolchain=replace(TOOLS, ninja=Program(path="/opt/ninja", version="1.11.1"))),
        pc(cpu=replace(PC.cpu, features=("avx",))),
        pc(cpu=replace(PC.cpu, name="Intel")),
        pc(cuda=GPU),
    ],
)
def test_another_machine_gives_another_key(changed: Host) -> None:
    assert digest(_inputs(changed)) != digest(_inputs())


def test_the_cuda_compiler_counts_where_it_is_used() -> None:
    newer = pc(cuda=replace(GPU, toolkits=(replace(CUDA_12_4, version="12.6"),)))
    assert digest(_inputs(newer)) != digest(_inputs(pc(cuda=GPU)))
    unused = pc(cuda=replace(PC.cuda, toolkits=(CUDA_12_4,)))
    assert digest(_inputs(unused)) == digest(_inputs())


@pytest.mark.parametrize(
    "request_",
    [Request(low_mem=True), Request(cmake_args=("-DGGML_LTO=ON",)), Request(portable=True)],
)
def test_another_request_gives_another_key(request_: Request) -> None:
    assert digest(_inputs(PC, request_)) != digest(_inputs())


def test_the_number_of_jobs_changes_nothing() -> None:
    assert digest(_inputs(PC, Request(jobs=1))) == digest(_inputs())


@pytest.mark.parametrize(
    "variable",
    [
        *("CXXFLAGS", "LDFLAGS", "CPATH", "CMAKE_C_COMPILER_LAUNCHER", "CMAKE_CXX_COMPILER_LAUNCHER"),
        *("CMAKE_INCLUDE_PATH", "CMAKE_LIBRARY_PATH", "CMAKE_PREFIX_PATH"),
    ],
)
def test_variables_that_compilers_read_count(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv(variable, raising=False)
    before = digest(_inputs())
    monkeypatch.setenv(variable, "-x")
    assert digest(_inputs()) != before


@pytest.mark.parametrize(
    ("variable", "machine"),
    [
        *((name, pc(cuda=GPU)) for name in ("CUDAARCHS", "CUDACXX", "NVCC_APPEND_FLAGS", "CUDAFLAGS")),
        *((name, pc(hip=ROCM)) for name in ("HIPCXX", "HIP_PATH", "HIPARCHS", "ROCM_PATH")),
        ("VULKAN_SDK", pc(vulkan=GOOD_VULKAN)),
    ],
)
def test_variables_that_are_read_for_one_backend_count_for_it_alone(
    monkeypatch: pytest.MonkeyPatch, variable: str, machine: Host
) -> None:
    monkeypatch.delenv(variable, raising=False)
    before = [digest(_inputs(host)) for host in (machine, PC)]
    monkeypatch.setenv(variable, "-x")
    after = [digest(_inputs(host)) for host in (machine, PC)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_variable_that_children_never_see_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(_inputs())
    monkeypatch.setenv("CMAKE_BUILD_PARALLEL_LEVEL", "3")
    assert digest(_inputs()) == before


def test_a_variable_that_a_preset_drops_is_another_folder() -> None:
    presets = load_presets(ROOT)
    plan = make_plan(PC, Request(), presets)
    whole = dict(presets[plan.preset].variables)
    name = next(iter(whole))
    less = {key: value for key, value in whole.items() if key != name}
    keys = {
        digest(plan_inputs(plan, variables, PC, PC.toolchain, "/g"))
        for variables in (whole, less, {**whole, name: "other"})
    }
    assert len(keys) == 3


def test_another_compiler_behind_the_same_name_gives_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "real").touch(mode=0o755)
        (tmp_path / name / "c++").symlink_to("real")
    keys = []
    for name in ("one", "two", "one"):
        monkeypatch.setenv("PATH", str(tmp_path / name))
        keys.append(digest(_inputs()))
    assert program_paths("c++ -m64") == [[str(tmp_path / "one/c++"), str((tmp_path / "one/real").resolve())]]
    (tmp_path / "one" / "c++").unlink()
    (tmp_path / "one" / "c++").touch(mode=0o755)
    keys.append(digest(_inputs()))
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def test_the_wheel_key_follows_the_tool_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(Path(key.__file__).parents[1], tmp_path / "floatllm_build")
    monkeypatch.setattr(key, "__file__", str(copy / "build" / "key.py"))
    before = key.tool_digest()
    (copy / "data").mkdir(exist_ok=True)
    (copy / "data" / "engine.py").touch()
    assert key.tool_digest() == before
    with (copy / "verify.py").open("a") as file:
        file.write("# changed\n")
    assert key.tool_digest() != before
    plain = {"sources": {}, "ggml_tree": "tree", "platform": "linux-x86_64"}
    assert wheel_inputs({}, **plain)["tool"][1] == key.tool_digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"sources": digests({"native/a.cpp": b"two"})},
        {"sources": digests({"native/b.cpp": b"one"})},
        {"ggml_tree": "other"},
        {"platform": "linux-aarch64"},
    ],
)
def test_the_wheel_key_follows_its_contents(changed: dict[str, Any]) -> None:
    plain: dict[str, Any] = {
        "sources": digests({"native/a.cpp": b"one"}),
        "ggml_tree": "tree",
        "platform": "linux-x86_64",
    }
    inputs = _inputs()
    assert digest(wheel_inputs(inputs, **plain)) != digest(wheel_inputs(inputs, **{**plain, **changed}))
