"""Each public preset, configured for real where that can be had, by the oldest CMake and the newest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from plans import PARSED_ONLY, PRESETS
from rocm_root import inside
from tool_environment import ROOT, Environment, skip_or_fail
from toolchains import OLDEST, SERIES, VULKAN_HEADERS, cmake, header_version, nvcc, vulkan_sdk, vulkan_tools

CPU = ("cpu", "cpu-low-mem", "android-low-mem", "wheel-cpu")
VULKAN = ("vulkan", "vulkan-low-mem", "wheel-vulkan")
CUDA = ("cuda", "wheel-cuda")
HIP = ("hip", "wheel-hip")
# FindCUDAToolkit of 3.25.0 fails with a toolkit that leaves a library out; that of 3.25.1 does not.
OLDEST_FOR_CUDA = "3.25"
ARCHITECTURE = "90-real"
OLDEST_AND_NEWEST = [pytest.param(OLDEST, marks=pytest.mark.ci), "newest"]


@pytest.fixture(scope="module")
def ggml(tool_env: Environment) -> Path:
    done = tool_env.tool("fetch")
    if done.returncode != 0:
        skip_or_fail(f"`floatllm-build fetch` failed, perhaps without a network: {done.stderr[-300:]}")
    return tool_env.source


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What CMake sees of the repository, where no earlier build lies around."""
    for name in ("ninja", "c++"):
        if not shutil.which(name):
            skip_or_fail(f"{name} is not on PATH (Debian: apt install ninja-build g++)")
    folder = tmp_path_factory.mktemp("configure")
    for part in ("native", "presets", "ggml"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("build", "source", "*.so"))
    return folder


class Configurer:
    """Runs CMake's configure step and gives what it left behind."""

    def __init__(self, checkout: Path, ggml: Path, build: Path) -> None:
        self.checkout = checkout
        self.ggml = ggml
        self.build = build

    def run(
        self, series: str, preset: str, *defines: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [cmake(series), "--preset", preset, "-S", "native", "-B", str(self.build)]
        dropped = ("VULKAN_SDK", "CUDACXX", "CUDAToolkit_ROOT", "CMAKE_PREFIX_PATH")
        clean = {name: value for name, value in os.environ.items() if name not in dropped}
        return subprocess.run(
            [*command, f"-DGGML_DIR={self.ggml}", *defines],
            cwd=self.checkout,
            env={**clean, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def manifest(
        self, series: str, preset: str, *defines: str, env: Mapping[str, str] | None = None
    ) -> dict[str, object]:
        done = self.run(series, preset, *defines, env=env)
        assert done.returncode == 0, done.stdout[-500:] + done.stderr
        assert (self.build / "build.ninja").is_file()
        manifest: dict[str, object] = json.loads((self.build / "manifest.json").read_text())
        _check(manifest, preset)
        return manifest

    def cached(self, name: str) -> str:
        lines = (self.build / "CMakeCache.txt").read_text().splitlines()
        return next((line.partition("=")[2] for line in lines if line.startswith(f"{name}:")), "")


def _check(manifest: Mapping[str, object], name: str) -> None:
    """What the name of a preset promises is what CMake was left with."""
    assert manifest["preset"] == name
    backend = next((each for each in ("cuda", "hip", "vulkan") if each in name), None)
    plugin = backend and name.startswith("wheel-")
    own = [] if plugin else ["cpu", "rpc"]
    assert manifest["backends"] == sorted([*own, *([backend] if backend else [])])
    names = {"cuda": "floatllm-cuda13", "hip": "floatllm-hip", "vulkan": "floatllm-vulkan"}
    assert manifest["distribution"] == (names[str(backend)] if plugin else "floatllm")
    assert manifest["portable"] is (name.startswith("wheel-"))
    assert manifest["low_mem"] is name.endswith("-low-mem")
    assert isinstance(manifest["flags"], dict)
    assert ("--no-keep-memory" in manifest["flags"]["SHARED_LINKER"]) is name.endswith("-low-mem")
    assert manifest["build_type"] == ("MinSizeRel" if name.endswith("-low-mem") else "Release")


@pytest.fixture
def configure(checkout: Path, ggml: Path, tmp_path: Path) -> Configurer:
    return Configurer(checkout, ggml, tmp_path / "build")


def test_every_public_preset_is_configured_here_or_known_to_be_parsed_only() -> None:
    assert {*CPU, *VULKAN, *CUDA, *HIP, *PARSED_ONLY} == set(PRESETS)


@pytest.mark.parametrize(
    "series",
    [pytest.param(one, marks=() if one in {OLDEST, "newest"} else pytest.mark.ci) for one in SERIES],
)
def test_cpu_with_every_cmake(configure: Configurer, series: str) -> None:
    configure.manifest(series, "cpu")


@pytest.mark.parametrize("series", OLDEST_AND_NEWEST)
@pytest.mark.parametrize("preset", CPU[1:])
def test_the_other_cpu_presets(configure: Configurer, preset: str, series: str) -> None:
    configure.manifest(series, preset)


@pytest.mark.parametrize("series", OLDEST_AND_NEWEST)
@pytest.mark.parametrize("preset", VULKAN)
def test_vulkan(configure: Configurer, preset: str, series: str) -> None:
    """One variable leads CMake to newer headers than the distribution's, and to SPIRV-Headers beside them."""
    sdk = vulkan_sdk()
    configure.manifest(series, preset, env=sdk)
    include = Path(sdk["VULKAN_SDK"]) / "include" if sdk else Path("/usr/include")
    assert configure.cached("Vulkan_INCLUDE_DIR") == str(include)
    assert configure.cached("SPIRV-Headers_DIR").startswith(str(include.parent))


def test_cmake_alone_takes_vulkan_headers_that_ggml_does_not_compile_with(configure: Configurer) -> None:
    """Why the tool looks at the headers before it compiles: CMake and ggml do not."""
    vulkan_tools()
    if header_version(Path("/usr/include")) >= VULKAN_HEADERS:
        pytest.skip("the headers of this distribution are new enough")
    configure.manifest(OLDEST, "vulkan")
    assert configure.cached("Vulkan_INCLUDE_DIR") == "/usr/include"


@pytest.mark.parametrize("series", [OLDEST_FOR_CUDA, "newest"])
@pytest.mark.parametrize("preset", CUDA)
def test_cuda_with_the_package_indexs_toolkit(configure: Configurer, preset: str, series: str) -> None:
    """No GPU is here and no CUDA is installed; the compiler and its architecture are all that is named."""
    compiler = nvcc()
    defines = (f"-DCMAKE_CUDA_COMPILER={compiler}", f"-DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURE}")
    manifest = configure.manifest(series, preset, *defines)
    assert isinstance(manifest["compilers"], dict)
    assert manifest["compilers"]["CUDA"].startswith("NVIDIA 13.")
    assert manifest["architectures"] == ARCHITECTURE
    toolkit = compiler.parents[1]
    for name in ("CUDA_CUDART", "CUDA_cudart_LIBRARY", "CUDA_cublas_LIBRARY", "CUDA_cublasLt_LIBRARY"):
        assert Path(configure.cached(name)).parent == toolkit / "lib"
        assert Path(configure.cached(name)).is_file()
    rules = (configure.build / "build.ninja").read_text()
    assert "code=[sm_90]" in rules
    # The packages that bring cuBLAS lie beside the engine. A build for this machine finds it where it was
    # linked as well; a wheel for other machines must not look there.
    path = _install_rpath(configure.build)
    assert "$ORIGIN/../nvidia/cu13/lib" in path
    assert (f"{toolkit}/lib" in path) is (preset == "cuda")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ((), "static"),
        (("-DBUILD_SHARED_LIBS=ON",), "shared"),
        (("-DBUILD_SHARED_LIBS=ON", "-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF"), "module"),
    ],
)
def test_cuda_static_shared_and_loaded(configure: Configurer, options: tuple[str, ...], kind: str) -> None:
    compiler = (f"-DCMAKE_CUDA_COMPILER={nvcc()}", f"-DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURE}")
    configure.manifest("newest", "cuda", *compiler, *options)
    rules = (configure.build / "build.ninja").read_text()
    made = re.search(r"^build \S*libggml-cuda\.(\w+):(?! phony)", rules, re.MULTILINE)
    assert made
    assert made[1] == ("a" if kind == "static" else "so")
    linked = next(block for block in rules.split("\n\n") if re.match(r"(?s).*build libfloatllm\.so:", block))
    assert ("libggml-cuda." in linked.partition("LINK_LIBRARIES = ")[2].partition("\n")[0]) is (
        kind != "module"
    )
    assert ("libcublas" in linked) is (kind == "static")


def _install_rpath(build: Path) -> str:
    script = (build / "cmake_install.cmake").read_text()
    # Loadable libraries are linked with it already.
    linked = (build / "build.ninja").read_text().replace("\\$$ORIGIN", "$ORIGIN")
    paths = re.findall(r'-Wl,-rpath,"?([^" ]*\$ORIGIN[^" ]*)', linked)
    return "".join([*paths, *(line for line in script.splitlines() if "NEW_RPATH" in line)])


def test_cuda_by_the_environments_compiler(configure: Configurer) -> None:
    compiler = nvcc()
    architecture = f"-DCMAKE_CUDA_ARCHITECTURES={ARCHITECTURE}"
    configure.manifest("newest", "cuda", architecture, env={"CUDACXX": str(compiler)})
    assert configure.cached("CUDAToolkit_ROOT") == str(compiler.parents[1])


def test_the_one_cmake_that_cannot_take_that_toolkit_is_told(configure: Configurer) -> None:
    done = configure.run(OLDEST, "cuda", f"-DCMAKE_CUDA_COMPILER={nvcc()}")
    assert done.returncode != 0
    assert "Use CMake 3.25.1 or newer" in " ".join(done.stderr.split())


@pytest.mark.parametrize("lacking", ["include/cublas_v2.h", "lib/libcublas.so.13"])
def test_a_toolkit_without_cublas_is_told_how_to_get_it(
    configure: Configurer, tmp_path: Path, lacking: str
) -> None:
    toolkit = tmp_path / "cu13"
    names = {"bin/nvcc", "include/cuda_runtime_api.h", "include/cublas_v2.h"}
    names |= {"lib/libcudart.so.13", "lib/libcublas.so.13", "lib/libcublasLt.so.13"}
    for name in names - {lacking}:
        (toolkit / name).parent.mkdir(parents=True, exist_ok=True)
        (toolkit / name).touch(mode=0o755)
    done = configure.run("newest", "cuda", f"-DCMAKE_CUDA_COMPILER={toolkit / 'bin' / 'nvcc'}")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert f"has no {Path(lacking).name.partition('.so')[0]}." in said
    assert "cuda-toolkit[nvcc,cccl,cublas,crt,cudart]" in said


@pytest.mark.parametrize("preset", HIP)
def test_hip_with_debians_rocm(checkout: Path, ggml: Path, tmp_path: Path, preset: str) -> None:
    """Configured, and a kernel compiled. There is no GPU, and no rocBLAS to link."""
    build = tmp_path / "build"
    start = inside(checkout, ggml, tmp_path, folder=checkout)
    command = ["cmake", "--preset", preset, "-S", "native", "-B", str(build), f"-DGGML_DIR={ggml}"]
    done = subprocess.run(
        [*start, *command, "-DCMAKE_HIP_ARCHITECTURES=gfx1100"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    manifest = json.loads((build / "manifest.json").read_text())
    _check(manifest, preset)
    assert manifest["compilers"]["HIP"].startswith("Clang ")
    assert manifest["architectures"] == "gfx1100"
    unit = re.search(r"^build (\S+/scale\.cu\.o):", (build / "build.ninja").read_text(), re.MULTILINE)
    assert unit
    made = subprocess.run(
        [*start, "ninja", "-C", str(build), unit[1]], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout[-2000:]
    assert b"amdgcn-amd-amdhsa--gfx1100" in (build / unit[1]).read_bytes()
