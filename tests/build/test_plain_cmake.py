"""Plain cmake with the presets, and backends as loadable libraries: both without the tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tool_environment import ROOT, Environment, skip_or_fail

pytestmark = pytest.mark.build


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the repository that CMake sees, without what was built in them."""
    for name in ("cmake", "ninja"):
        if not shutil.which(name):
            skip_or_fail(f"{name} is not on PATH (Debian: apt install cmake ninja-build)")
    folder = tmp_path_factory.mktemp("checkout")
    for part in ("native", "presets", "ggml"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("build", "source", "*.so"))
    shutil.copy2(ROOT / "LICENSE", folder / "LICENSE")
    return folder


@pytest.fixture(scope="module")
def ggml(engine_env: Environment) -> Path:
    return engine_env.source


def cmake(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["cmake", *map(str, arguments)]
    env = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def install(build: Path, prefix: Path) -> None:
    done = cmake("--install", build, "--prefix", prefix, "--component", "floatllm", cwd=build)
    assert done.returncode == 0, done.stderr


def strict() -> list[str]:
    """Warnings are errors where we know the compiler; a user's may be newer."""
    return ["-DFLOATLLM_WERROR=ON"] if os.environ.get("CI") == "true" else []


@pytest.mark.ci
def test_a_preset_builds_with_cmake_alone(checkout: Path, ggml: Path, tmp_path: Path) -> None:
    done = cmake("--preset", "cpu", "-S", "native", f"-DGGML_DIR={ggml}", *strict(), cwd=checkout)
    assert done.returncode == 0, done.stderr
    done = cmake("--build", "--preset", "cpu", "-j", "2", cwd=checkout / "native")
    assert done.returncode == 0, done.stdout
    install(checkout / "native" / "build" / "cpu", tmp_path)
    manifest = json.loads((tmp_path / "floatllm" / "manifest.json").read_text())
    assert (manifest["preset"], manifest["ggml"]["pinned"]) == ("cpu", True)
    exported = _exported(tmp_path / "floatllm" / "libfloatllm.so")
    assert "floatllm_version" in exported
    assert [name for name in exported if name.startswith(("ggml_", "gguf_"))] == []


def _exported(library: Path) -> list[str]:
    done = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    return [line.split()[-1] for line in done.stdout.splitlines()]


@pytest.mark.ci
def test_backends_can_be_libraries_of_their_own(
    checkout: Path, ggml: Path, tmp_path: Path, engine_env: Environment
) -> None:
    shape = ["-DBUILD_SHARED_LIBS=ON", "-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF", "-DFLOATLLM_PRESET=none"]
    out = checkout / "native" / "build" / "loadable"
    # As some toolchains link by themselves: what each library then holds of libstdc++ must stay inside.
    alone = "" if sys.platform == "darwin" else "-static-libstdc++"
    shape += [f"-DCMAKE_{kind}_LINKER_FLAGS={alone}" for kind in ("SHARED", "MODULE")]
    # What it computes is looked at, not how fast; the test above compiles with the preset's own flags.
    shape += [f"-DCMAKE_{language}_FLAGS_RELEASE=-O1 -DNDEBUG" for language in ("C", "CXX")]
    shape += [f"-DGGML_DIR={ggml}", *strict()]
    done = cmake("--preset", "cpu", "-S", "native", "-B", out, *shape, cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert cmake("--build", out, "-j", "2", cwd=checkout).returncode == 0
    install(out, tmp_path)
    libraries = {path.name for path in (tmp_path / "floatllm").glob("*.so*")}
    own = {f"libfloatllm{part}.so" for part in ("", "-ggml", "-ggml-base")}
    assert libraries == {*own, "libggml-cpu.so", "libggml-rpc.so"}
    for library in libraries if alone else ():
        assert [name for name in _exported(tmp_path / "floatllm" / library) if "locale" in name] == []
    shutil.copytree(checkout / "native" / "floatllm", tmp_path / "floatllm", dirs_exist_ok=True)
    # The build folder gone, only the installed libraries can be loaded.
    shutil.rmtree(out)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "floatllm.selftest", "--device", "CPU", "--report", report]
    env = {**engine_env.env, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["ok"] is True
    # The RPC backend was found, and asked for a server where there is none.
    command = [sys.executable, "-m", "floatllm", "devices", "--rpc", "127.0.0.1:1"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert "ggml's RPC protocol" in done.stderr


def test_the_cache_is_found_and_a_changed_tree_refused(checkout: Path, ggml: Path, tmp_path: Path) -> None:
    cache = tmp_path / "floatllm" / "ggml"
    shutil.copytree(ggml, cache / ggml.name)
    arguments = ("--preset", "cpu", "-S", "native")
    done = cmake(*arguments, "-B", tmp_path / "a", cwd=checkout, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    (cache / ggml.name / "src" / "ggml.c").write_text("int changed;\n")
    done = cmake(*arguments, "-B", tmp_path / "b", cwd=checkout, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode != 0
    assert "was changed" in done.stderr


def test_without_a_source_cmake_says_how_to_get_it(checkout: Path, tmp_path: Path) -> None:
    arguments = ("--preset", "cpu", "-S", "native", "-B", tmp_path / "b")
    done = cmake(*arguments, cwd=checkout, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode != 0
    assert "floatllm-build fetch" in done.stderr
    assert "git clone" in done.stderr


def test_a_tree_of_ones_own_is_built_and_marked_so(checkout: Path, ggml: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(ggml, own)
    changed = own / "ggml" / "src" / "ggml.c"
    changed.write_bytes(changed.read_bytes() + b"\n")
    done = cmake(
        *("--preset", "cpu", "-S", "native", "-B", tmp_path / "b", f"-DGGML_DIR={own}"), cwd=checkout
    )
    assert done.returncode == 0, done.stderr
    assert "is not the pinned" in " ".join(done.stderr.split())
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert (manifest["ggml"]["pinned"], manifest["ggml"]["release"]) == (False, "unpinned")
    assert manifest["ggml"]["version"] == "0.26.0"
