"""Variant wheels (PEP 817, a draft): what is in them, who takes which, what the provider says of machines."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from machines import GOOD_VULKAN, NVIDIA, PC, RADEON
from tool_environment import ROOT, Environment, make_venv, skip_or_fail

from floatllm_build import flow, variants
from floatllm_build.errors import MissingError
from floatllm_build.values import Backend, CudaDevice, Host, VulkanDevice
from floatllm_build.variant_provider import get_all_configs, runs_here
from floatllm_build.wheel_file import record_hash

PLUGINS: dict[Backend, str] = {"cuda": "floatllm-cuda13", "vulkan": "floatllm-vulkan"}


def variantlib() -> None:
    try:
        variants.check_variantlib()
    except MissingError as error:
        skip_or_fail(str(error))


def pack(folder: Path, name: str, *lines: str) -> Path:
    """A pure wheel with nothing in it but these lines of metadata."""
    stem = f"{name}-0.1.0"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n"
        + "".join(lines),
        f"{stem}.dist-info/WHEEL": kind,
    }
    listed = "".join(f"{path},{record_hash(text.encode())},{len(text)}\n" for path, text in files.items())
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{stem}.dist-info/RECORD", f"{listed}{stem}.dist-info/RECORD,,\n")
    return wheel


@pytest.fixture(scope="session")
def shop(engine_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an index serves it: the engine's wheel, its variants, stand-ins for plugins, the tool."""
    variantlib()
    folder = tmp_path_factory.mktemp("shop")
    proven = next(engine_env.cache.glob("wheels/*/floatllm-*.whl"))
    flow.make_variants(Path(shutil.copy2(proven, folder)), lambda _: None)
    for plugin in PLUGINS.values():
        pack(folder, plugin.replace("-", "_"), "Requires-Dist: floatllm==0.1.0\n")
    command = [engine_env.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    done = subprocess.run(command, env=engine_env.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


# ---- the files ---------------------------------------------------------------------------------


@pytest.mark.build
@pytest.mark.parametrize("backend", PLUGINS)
def test_a_variant_is_the_plain_wheel_that_needs_the_plugin_too(shop: Path, backend: Backend) -> None:
    plain = one(shop, "floatllm-*linux_x86_64.whl")
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(shop / f"{plain.stem}-{backend}.whl") as new:
        assert new.testzip() is None
        info = "floatllm-0.1.0.dist-info"
        differ = {
            name
            for name in {*old.namelist(), *new.namelist()}
            if name not in old.namelist() or old.read(name) != new.read(name)
        }
        assert differ == {f"{info}/METADATA", f"{info}/RECORD", f"{info}/variant.json"}
        before, after = (one.read(f"{info}/METADATA").decode() for one in (old, new))
        wanted = f"Requires-Dist: {PLUGINS[backend]}==0.1.0\n"
        assert wanted in after.partition("\n\n")[0] + "\n"
        assert after.replace(wanted, "") == before
        rows = list(csv.reader(io.StringIO(new.read(f"{info}/RECORD").decode())))
        assert sorted(row[0] for row in rows) == sorted(new.namelist())
        for name, digest, size in rows:
            if not name.endswith("/RECORD"):
                assert (digest, size) == (record_hash(new.read(name)), str(len(new.read(name))))
        told = json.loads(new.read(f"{info}/variant.json"))
        assert told["variants"] == {backend: {"floatllm": {"backend": [backend]}}}
        assert {entry.date_time for entry in new.infolist()} <= {entry.date_time for entry in old.infolist()}


@pytest.mark.build
def test_the_index_is_what_variantlib_makes_of_the_folder(shop: Path, tmp_path: Path) -> None:
    for wheel in shop.glob("floatllm-*.whl"):
        shutil.copy2(wheel, tmp_path)
    code = "from variantlib.commands.main import main; main()"
    command = [sys.executable, "-c", code, "generate-index-json", "-d", tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=env, check=True, capture_output=True)
    ours = one(shop, "floatllm-*-variants.json")
    assert json.loads(ours.read_text()) == json.loads((tmp_path / ours.name).read_text())


@pytest.mark.build
def test_made_twice_they_are_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    plain = one(shop, "floatllm-*linux_x86_64.whl")
    made = flow.make_variants(Path(shutil.copy2(plain, tmp_path)), lambda _: None)
    assert len(made) == 3
    assert {path.name: path.read_bytes() for path in made} == {
        path.name: (shop / path.name).read_bytes() for path in made
    }


def test_where_there_are_no_plugins_there_are_no_variants(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="No plugin is made for macosx_11_0_arm64"):
        flow.make_variants(tmp_path / "floatllm-0.1.0-py3-none-macosx_11_0_arm64.whl", lambda _: None)


def test_without_variantlib_it_says_so_before_it_builds(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['variantlib'] = None\n"
        "from floatllm_build.cli import main; sys.argv[1:] = ['wheel', '--variants']; main()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FLOATLLM_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "pip install 'floatllm-build[variants]'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["errors"]


# ---- the provider ------------------------------------------------------------------------------


def with_gpu(capability: str, supports: str) -> Host:
    device = CudaDevice(name="x", capability=capability, memory=0, integrated=False, mig=False)
    return replace(PC, cuda=replace(NVIDIA, supports=supports, devices=(device,)))


SOFTWARE = VulkanDevice(
    name="llvmpipe", type="cpu", api="1.3.289", driver="", storage_16_bit=True, shared_memory=32768
)
OLD = replace(RADEON, name="old", api="1.1.0")
VIRTUAL = replace(RADEON, name="virtual", type="virtual")


@pytest.mark.parametrize(
    ("host", "backend", "runs"),
    [
        (PC, "cuda", False),
        (PC, "vulkan", False),
        (with_gpu("75", "13.0"), "cuda", True),
        (with_gpu("120", "14.1"), "cuda", True),
        (with_gpu("61", "13.0"), "cuda", False),
        (with_gpu("90", "12.8"), "cuda", False),
        (with_gpu("", "13.0"), "cuda", False),
        (with_gpu("90", ""), "cuda", False),
        (replace(PC, vulkan=GOOD_VULKAN), "vulkan", True),
        (replace(PC, vulkan=replace(GOOD_VULKAN, glslc=None, headers=0)), "vulkan", True),
        (replace(PC, vulkan=replace(GOOD_VULKAN, devices=(SOFTWARE,))), "vulkan", False),
        # Ggml lists the GPU that it refuses, and the virtual one only if it is told to.
        (replace(PC, vulkan=replace(GOOD_VULKAN, devices=(OLD, VIRTUAL))), "vulkan", False),
        (replace(PC, vulkan=replace(GOOD_VULKAN, devices=(VIRTUAL,))), "vulkan", True),
        # nvidia-smi lists a GPU, and no program can compute on it.
        (replace(PC, cuda=replace(with_gpu("75", "13.0").cuda, library="")), "cuda", False),
    ],
)
def test_a_variant_fits_where_its_device_computes(host: Host, backend: Backend, runs: bool) -> None:
    assert runs_here(host, backend) is runs


def test_the_provider_speaks_of_each_variant_and_nothing_else() -> None:
    (feature,) = get_all_configs()
    assert (feature.name, feature.multi_value) == ("backend", False)
    assert set(feature.values) == set(PLUGINS)


def test_variantlib_finds_the_provider_and_takes_its_answers(tool_env: Environment) -> None:
    variantlib()
    # As the installed tool registers it.
    code = "from importlib.metadata import entry_points as e; print(*e(group='variant_plugins'))"
    done = subprocess.run(
        [tool_env.python, "-c", code], env=tool_env.env, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("name='floatllm', value='floatllm_build.variant_provider'") == 1
    from variantlib import api
    from variantlib.pyproject_toml import VariantPyProjectToml

    info = VariantPyProjectToml({"variant": variants.PROVIDER})
    for value, valid in (("vulkan", True), ("cuda", True), ("abacus", False)):
        described = api.VariantDescription([api.VariantProperty("floatllm", "backend", value)])
        assert api.validate_variant(described, info, tool_env.python).is_valid() is valid


# ---- who takes which ---------------------------------------------------------------------------


def taken(python: Path) -> str:
    """The variant that is installed; `plain` where it is the plain wheel."""
    (metadata,) = python.parent.parent.glob("lib/python*/site-packages/floatllm-*.dist-info/METADATA")
    plugins = re.findall(r"^Requires-Dist: floatllm-(\w+)==[\d.]+$", metadata.read_text(), re.MULTILINE)
    assert metadata.with_name("variant.json").is_file() is bool(plugins)
    return plugins[0] if plugins else "plain"


@pytest.mark.build
def test_pip_takes_the_plain_wheel(shop: Path, tool_env: Environment, tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    command = [python, "-m", "pip", "install", "--no-index", "--find-links", shop, "floatllm"]
    done = subprocess.run(command, env=tool_env.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert taken(python) == "plain"
    subprocess.run([python, "-m", "floatllm", "devices"], check=True, capture_output=True)


def driver(folder: Path) -> Path:
    """A folder with a libcuda that has one GPU."""
    compiler = shutil.which("cc")
    if not compiler:
        skip_or_fail("no C compiler; install one (Debian: apt install gcc)")
    source = folder / "driver.c"
    source.write_text(
        "#include <stddef.h>\n#include <string.h>\n"
        "int cuInit(unsigned flags) { return 0; }\n"
        "int cuDriverGetVersion(int *version) { *version = 13000; return 0; }\n"
        "int cuDeviceGetCount(int *count) { *count = 1; return 0; }\n"
        "int cuDeviceGet(int *device, int number) { *device = number; return 0; }\n"
        'int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Test", size); return 0; }\n'
        "int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1UL << 33; return 0; }\n"
        # 75 and 76 are the capability's two numbers.
        "int cuDeviceGetAttribute(int *value, int which, int device)\n"
        "{ *value = which == 75 ? 9 : 0; return 0; }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    return folder


@pytest.mark.parametrize(("gpu", "best"), [(False, []), (True, ["cuda"])], ids=["no GPU", "a GPU"])
def test_an_installer_that_asks_the_provider_gets_the_variant_that_fits(
    tool_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, best: list[str]
) -> None:
    """By the draft's own library, with the provider of the installed tool."""
    variantlib()
    from variantlib import api
    from variantlib.plugins import loader

    if gpu:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(driver(tmp_path)))
    monkeypatch.setattr(loader, "VARIANT_PROVIDER_CACHE_TABLE", {})
    plain = pack(tmp_path, "floatllm")
    *_, index = variants.write_variants(plain, PLUGINS)
    found = api.get_variants_by_priority(
        variants_json=json.loads(index.read_text()), venv_python_executable=tool_env.python
    )
    assert [one.label for one in found if one.properties] == best


@pytest.mark.build
def test_uv_takes_what_fits_as_far_as_it_asks_providers(
    shop: Path, tool_env: Environment, tmp_path: Path
) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if not uv:
        skip_or_fail("no uv; `pip install '.[test]'` brings it")
    python = make_venv(tmp_path / "venv")
    command = [uv, "--verbose", "pip", "install", "--preview-features", "wheel-variants"]
    done = subprocess.run(
        [*command, "--python", python, "--find-links", shop, "floatllm"],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver(tmp_path)), "UV_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 0.13 has providers of its own, and asks no other.
    refused = "Skipping unsupported wheel variant provider" in done.stderr
    assert taken(python) == ("plain" if refused else "cuda13"), done.stderr
