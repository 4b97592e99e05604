"""CUDA's libraries reach the environment of the engine: small wheels, the real pip, real environments."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest
from fake_toolkit import FILES, make_index, make_wheel, planned_in
from machines import VENV
from tool_environment import make_venv, skip_or_fail

from floatllm_build.cuda_runtime import bring_runtime, has_runtime, libraries_beside
from floatllm_build.errors import InstallFailedError
from floatllm_build.sites import sites
from floatllm_build.system import LiveSystem
from floatllm_build.values import PlannedToolkit, Target

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the index's toolkit is for Linux"),
]


def target_of(python: Path, **facts: object) -> Target:
    version = sys.version_info[:2]
    prefix = str(python.parent.parent)
    return replace(VENV, executable=str(python), prefix=prefix, version=version, installed="", **facts)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("runtime") / "venv")


@pytest.fixture
def target(shared: Path) -> Target:
    """One environment for all tests, each time without what the last one brought."""
    found = target_of(shared, has_pip=True)
    for name in ("nvidia*", "floatllm", "elsewhere.pth"):
        for path in sites(found)[0].glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


@pytest.fixture
def toolkit(tmp_path: Path) -> PlannedToolkit:
    return planned_in(tmp_path / "cache")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    names = ("nvidia_cublas", "nvidia_cuda_nvrtc", "nvidia_cuda_runtime")
    make_index(tmp_path / "index")
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in names:
        shutil.copy2(next((tmp_path / "index").glob(f"{name}-*.whl")), folder)
    return folder


def libraries(target: Target) -> set[str]:
    folder = sites(target)[0] / "nvidia" / "cu13" / "lib"
    return {path.name for path in folder.glob("*")}


def bring(target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path) -> None:
    bring_runtime(LiveSystem(), target, toolkit, wheels, tmp_path)


def test_what_is_missing_comes_beside_the_engine(
    target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path
) -> None:
    assert not has_runtime(target, toolkit)
    bring(target, toolkit, wheels, tmp_path)
    assert has_runtime(target, toolkit)
    assert {"libcudart.so.13", "libcublas.so.13", "libcublasLt.so.13", "libnvrtc.so.13"} == libraries(target)
    # And for pip it is a whole environment.
    done = subprocess.run([target.executable, "-m", "pip", "check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_toolkit_of_the_system_needs_none(target: Target, toolkit: PlannedToolkit) -> None:
    assert has_runtime(target, replace(toolkit, requires=()))


def test_an_environment_without_pip(toolkit: PlannedToolkit, wheels: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    target = target_of(tmp_path / "bare" / "bin" / "python", has_pip=False)
    bring(target, toolkit, wheels, tmp_path)
    assert has_runtime(target, toolkit)


def make_old(folder: Path, name: str, version: str) -> Path:
    return make_wheel(folder, name, version, {f"nvidia/cu13/{p}": "old" for p in FILES[name]})


def pip_install(target: Target, *wheels: Path) -> None:
    command = [target.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *wheels]
    subprocess.run([str(word) for word in command], check=True)


def test_a_runtime_older_than_the_compiler_is_replaced_and_a_cublas_that_will_do_stays(
    target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path
) -> None:
    cublas = make_old(tmp_path / "old", "nvidia_cublas", "13.0.2.14")
    runtime = make_old(tmp_path / "old", "nvidia_cuda_runtime", "13.0.96")
    pip_install(target, cublas, runtime)
    assert not has_runtime(target, toolkit)
    bring(target, toolkit, wheels, tmp_path)
    assert has_runtime(target, toolkit)
    folder = sites(target)[0] / "nvidia" / "cu13" / "lib"
    assert (folder / "libcudart.so.13").read_text() == "runtime"
    assert (folder / "libcublas.so.13").read_text() == "old"


def test_a_library_that_was_deleted_is_brought_back(
    target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path
) -> None:
    bring(target, toolkit, wheels, tmp_path)
    (sites(target)[0] / "nvidia" / "cu13" / "lib" / "libcublas.so.13").unlink()
    assert not has_runtime(target, toolkit)
    bring(target, toolkit, wheels, tmp_path)
    assert has_runtime(target, toolkit)


def test_what_lies_elsewhere_on_the_path_is_not_beside_the_engine(
    target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    options = ("--quiet", "--no-index", "--no-deps", "--target", elsewhere)
    command = [target.executable, "-m", "pip", "install", *options, *wheels.iterdir()]
    subprocess.run([str(word) for word in command], check=True)
    (sites(target)[0] / "elsewhere.pth").write_text(str(elsewhere))
    bring(target, toolkit, wheels, tmp_path)
    assert has_runtime(target, toolkit)
    assert "libcublas.so.13" in libraries(target)


def test_an_installer_that_fails_says_so_and_is_exit_4(
    target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path
) -> None:
    next(wheels.glob("nvidia_cublas*")).unlink()
    with pytest.raises(InstallFailedError, match="nvidia-cublas") as caught:
        bring(target, toolkit, wheels, tmp_path)
    assert caught.value.exit_code == 4
    assert "untouched" in str(caught.value)


def test_the_loader_finds_them_by_the_path_that_the_engine_has(
    target: Target, toolkit: PlannedToolkit, wheels: Path, tmp_path: Path
) -> None:
    """Real libraries by these names, and one that needs them where the engine's lies, with its path."""
    compiler, ldd = shutil.which("cc"), shutil.which("ldd")
    if not compiler or not ldd:
        skip_or_fail("no cc or no ldd (Debian: apt install gcc libc-bin)")
    bring(target, toolkit, wheels, tmp_path)
    site = sites(target)[0]
    lib = site / "nvidia" / "cu13" / "lib"
    (tmp_path / "empty.c").write_text("int floatllm_trial;\n")
    library = [compiler, "-shared", "-fPIC", tmp_path / "empty.c"]
    for name in ("libcudart.so.13", "libcublas.so.13"):
        subprocess.run([*map(str, library), f"-Wl,-soname,{name}", "-o", str(lib / name)], check=True)
    (site / "floatllm").mkdir()
    engine = site / "floatllm" / "libfloatllm.so"
    path = "-Wl,-rpath,$ORIGIN:$ORIGIN/../nvidia/cu13/lib"
    needed = ["-Wl,--no-as-needed", f"-L{lib}", "-l:libcudart.so.13", "-l:libcublas.so.13"]
    subprocess.run([*map(str, library), path, *needed, "-o", str(engine)], check=True)
    said = subprocess.run([str(ldd), str(engine)], capture_output=True, text=True, check=True).stdout
    assert "not found" not in said
    for name in ("libcudart.so.13", "libcublas.so.13"):
        assert f"{name} => {site}/floatllm/../nvidia/cu13/lib/{name}" in said


def test_in_a_proof_the_libraries_lie_where_packages_will_put_them(
    toolkit: PlannedToolkit, tmp_path: Path
) -> None:
    assert libraries_beside(toolkit) == {"nvidia": Path(toolkit.nvcc).parents[2]}
    system = tmp_path / "cuda-13.0"
    (system / "lib64").mkdir(parents=True)
    own = replace(toolkit, nvcc=str(system / "bin" / "nvcc"), version="13.0")
    assert libraries_beside(own) == {"nvidia/cu13/lib": system / "lib64"}
    # An engine that finds the system's libraries by itself needs none beside it.
    assert libraries_beside(replace(own, requires=())) == {}
