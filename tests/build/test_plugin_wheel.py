"""The wheel of one more backend, beside the portable one that it depends on: what the tool hands over."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from tool_environment import Environment, make_venv, portable_variables, skip_or_fail

from floatllm_build.wheel_file import parse_record, record_hash

pytestmark = [
    pytest.mark.ci,
    pytest.mark.build,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="wheels are repaired by auditwheel"),
]


@pytest.fixture(scope="module")
def made(
    portable_wheel: Path, packing_env: Environment, for_vulkan: dict[str, str]
) -> tuple[list[Path], str]:
    """Both wheels, and what the tool said. Three minutes of two CPUs: the engine's own wheel is there."""
    kept = portable_wheel.parents[1]
    out = kept / "plugin"
    shutil.rmtree(out, ignore_errors=True)
    where = {**portable_variables(kept), **for_vulkan}
    done = packing_env.tool("wheel", "--portable", "--backend", "vulkan", "--out", out, **where)
    assert done.returncode == 0, done.stderr
    wheels = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(wheels) == sorted(out.iterdir())
    return wheels, done.stderr


def test_the_engines_own_wheel_is_the_portable_one(
    made: tuple[list[Path], str], portable_wheel: Path
) -> None:
    (base, plugin), said = made
    assert base.name == portable_wheel.name
    assert base.read_bytes() == portable_wheel.read_bytes()
    assert plugin.name.startswith("floatllm_vulkan-0.1.0-py3-none-manylinux")
    text = " ".join(said.split())
    assert "two wheels are made: floatllm, by preset wheel-cpu, and floatllm-vulkan" in text
    assert re.search(r"computed on (Vulkan0|CPU), \d\d+ operations agree", text)


def test_the_plugin_holds_its_backend_and_depends_on_its_engine(made: tuple[list[Path], str]) -> None:
    (_, plugin), _ = made
    with zipfile.ZipFile(plugin) as archive:
        names = archive.namelist()
        info = next(name.partition("/")[0] for name in names if name.endswith("/METADATA"))
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        entries = archive.read(f"{info}/entry_points.txt").decode()
        record = parse_record(archive.read(f"{info}/RECORD").decode())
        manifest = json.loads(archive.read("floatllm_vulkan/manifest.json"))
        assert all(record_hash(archive.read(name)) == digest for name, digest in record.items() if digest)
    assert [name for name in names if name.endswith(".so")] == ["floatllm_vulkan/libggml-vulkan.so"]
    assert {name.partition("/")[0] for name in names} == {"floatllm_vulkan", info}
    assert metadata.get_all("Requires-Dist") == [f"floatllm=={metadata['Version']}"]
    assert "[floatllm.backends]" in entries
    assert (manifest["preset"], manifest["portable"]) == ("wheel-vulkan", True)
    assert sorted(record) == sorted(names)
    assert sorted(manifest["files"]) == sorted(names)


# ---- installed by pip ------------------------------------------------------------------------------


def pip(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def devices(python: Path, env: dict[str, str], *under: str) -> dict[str, list[dict[str, object]]]:
    """What `floatllm devices` says, under another program where one is named."""
    command = [*under, str(python), "-m", "floatllm", "devices", "--json"]
    # ggml takes a software device only by its number among all of Vulkan's.
    env = {**env, "GGML_VK_VISIBLE_DEVICES": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    said: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def python(made: tuple[list[Path], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment in which pip was asked for the plugin alone."""
    wheels, _ = made
    fresh = make_venv(tmp_path_factory.mktemp("plugin") / "venv")
    done = pip(fresh, "--find-links", wheels[0].parent, "floatllm-vulkan")
    assert done.returncode == 0, done.stdout + done.stderr
    return fresh


def test_the_engine_computes_on_its_device(python: Path, packing_env: Environment, smollm: Path) -> None:
    if not list(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json")):
        skip_or_fail("no software Vulkan device (Debian: apt install mesa-vulkan-drivers)")
    said = devices(python, dict(packing_env.env))
    assert {"CPU", "Vulkan0"} == {device["name"] for device in said["devices"]}
    assert [(one["name"], one["loaded"]) for one in said["plugins"]] == [("floatllm-vulkan", True)]
    command = [python, "-m", "floatllm", "run", smollm, "-p", "The capital of France is", "-n", "4"]
    env = {**packing_env.env, "GGML_VK_VISIBLE_DEVICES": "0"}
    done = subprocess.run(
        [*command, "--ctx", "64", "--device", "Vulkan0"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" Paris")
    assert done.stderr.rstrip().endswith("| Vulkan0")


def test_without_the_vulkan_loader_it_says_what_is_missing(python: Path, packing_env: Environment) -> None:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    found = re.findall(r"libvulkan\.so\.1 .*=> (\S+)", listed)
    if not shutil.which("bwrap"):
        skip_or_fail("bubblewrap, which hides the loader, is not here (Debian: apt install bubblewrap)")
    hidden = [word for path in found for word in ("--bind", "/dev/null", str(Path(path).resolve()))]
    said = devices(python, dict(packing_env.env), "bwrap", "--dev-bind", "/", "/", *hidden)
    assert [device["name"] for device in said["devices"]] == ["CPU"]
    (plugin,) = said["plugins"]
    assert plugin["loaded"] is False
    assert "libvulkan.so.1" in str(plugin["reason"])


def as_version(wheel: Path, version: str, folder: Path) -> Path:
    """The engine's wheel as one of another version would be."""
    folder.mkdir(exist_ok=True)
    made = folder / wheel.name.replace("-0.1.0-", f"-{version}-")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith((".dist-info/METADATA", "floatllm/manifest.json", ".dist-info/RECORD")):
                content = content.replace(b"0.1.0", version.encode())
            new.writestr(name.replace("-0.1.0.dist-info", f"-{version}.dist-info"), content)
    return made


def test_pip_brings_the_engine_that_belongs_to_it_or_refuses(
    made: tuple[list[Path], str], tmp_path: Path, packing_env: Environment
) -> None:
    (base, plugin), _ = made
    fresh = make_venv(tmp_path / "venv")
    other = as_version(base, "0.0.9", tmp_path / "other")
    shutil.copy2(plugin, other.parent)
    assert pip(fresh, other).returncode == 0
    refused = pip(fresh, "--find-links", other.parent, "floatllm-vulkan")
    assert refused.returncode != 0
    assert "floatllm==0.1.0" in refused.stdout + refused.stderr
    # Forced beside an engine of another version it is left alone, and says so.
    assert pip(fresh, "--no-deps", plugin).returncode == 0
    (told,) = devices(fresh, dict(packing_env.env))["plugins"]
    assert told["loaded"] is False
    assert "belongs to floatllm 0.1.0, and this is 0.0.9" in str(told["reason"])
    done = pip(fresh, "--find-links", base.parent, "--upgrade", "--force-reinstall", "floatllm[vulkan]")
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = devices(fresh, dict(packing_env.env))["plugins"]
    assert told["loaded"] is True, told
