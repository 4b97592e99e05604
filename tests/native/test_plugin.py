"""Backends from packages of their own: found, judged by their manifests, loaded or told why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from floatllm import loader, plugin
from tool_environment import Environment

GGML = {"version": "0.26.0", "release": "b11549", "tree_sha256": "t", "pinned": True}
BASE: dict[str, Any] = {
    "engine_version": "0.1.0",
    "abi_version": 4,
    "system": "Linux",
    "ggml": GGML,
    "options": {"GGML_BACKEND_DL": True},
}
FITTING = {**BASE, "distribution": "floatllm-vulkan"}


def test_a_plugin_of_the_same_build_fits() -> None:
    assert plugin.misfit(BASE, FITTING) == ""


@pytest.mark.parametrize(
    ("engine", "wanted", "said"),
    [
        ({}, {}, "manifest is missing"),
        ({}, {"engine_version": "0.2.0"}, r"belongs to floatllm 0\.2\.0, and this is 0\.1\.0; pip install "),
        ({"options": {}}, {}, "in one piece for one machine"),
        ({}, {"abi_version": 3}, "another interface"),
        ({}, {"ggml": {**GGML, "tree_sha256": "u"}}, "another ggml"),
        ({}, {"system": "Windows"}, "another system"),
    ],
)
def test_what_does_not_fit_is_told(engine: dict[str, Any], wanted: dict[str, Any], said: str) -> None:
    import re

    other = {**FITTING, **wanted} if wanted or engine else {}
    assert re.search(said, plugin.misfit({**BASE, **engine}, other))


def test_a_missing_library_is_explained_and_other_words_are_left() -> None:
    said = "libvulkan.so.1: cannot open shared object file: No such file or directory"
    assert loader.explained(said).startswith("the Vulkan loader is missing")
    assert said in loader.explained(said)
    of_plugin = "/usr/lib/libvulkan.so.1/x.so: undefined symbol: foo"
    assert loader.explained("bad ELF header") == "bad ELF header"
    assert of_plugin in loader.explained(of_plugin)


def test_a_damaged_package_hides_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_plugin(tmp_path, Path(__file__), {"distribution": "floatllm-extra"})
    for name, metadata, entries in (
        ("binary", b"Name: binary\nVersion: 1\n", b"\xff\xfe\x00"),
        ("nameless", b"Version: 1\n", f"[{plugin.GROUP}]\nnameless = nameless\n".encode()),
        ("malformed", b"Name: malformed\nVersion: 1\n", b"[a]\n= \n[\nno section"),
    ):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_bytes(metadata)
        (info / "entry_points.txt").write_bytes(entries)
    monkeypatch.syspath_prepend(tmp_path)
    assert [found.name for found in plugin.discover()] == ["floatllm-extra"]


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b"7", b"\xff", b"\x00" * 2_000_000, b'{"ggml": 1, "ggml": 2}', b'{"ggml": NaN}'],
    ids=range(6),
)
def test_a_damaged_manifest_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert plugin.misfit({}, plugin.read_manifest(tmp_path)).startswith("its manifest is missing or damaged")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert plugin.read_manifest(tmp_path) == {}


# ---- real packages beside a real engine -----------------------------------------------------------


@pytest.fixture(scope="module")
def site(portable_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable engine, unpacked."""
    folder = tmp_path_factory.mktemp("site")
    shutil.unpack_archive(portable_wheel, folder, "zip")
    return folder


def add_plugin(folder: Path, library: Path, manifest: dict[str, Any], version: str = "0.1.0") -> None:
    """An installed package with a backend."""
    package, info = folder / "floatllm_extra", folder / f"floatllm_extra-{version}.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('code of a plugin ran')\n")
    (package / "manifest.json").write_text(json.dumps(manifest))
    shutil.copy2(library, package / "libggml-extra.so")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: floatllm-extra\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{plugin.GROUP}]\nextra = floatllm_extra\n")


def ask(*folders: Path, code: str = "", **variables: str) -> Any:
    """What `floatllm devices --json` says with these folders on Python's path."""
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, folders)), **variables}
    command = [sys.executable, "-m", "floatllm", "devices", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_plugins_there_are_none_and_the_cpu_has_a_variant(site: Path) -> None:
    said = ask(site)
    assert said["plugins"] == []
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    assert said["versions"]["cpu_variant"] in manifest["cpu"]["variants"]


def test_a_backend_of_the_same_build_is_loaded_and_its_package_runs_no_code(
    site: Path, tmp_path: Path
) -> None:
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    add_plugin(tmp_path, site / "floatllm" / "libggml-rpc.so", {**manifest, "distribution": "floatllm-extra"})
    assert ask(site, tmp_path)["plugins"] == [
        {"name": "floatllm-extra", "version": "0.1.0", "loaded": True, "reason": ""}
    ]


def test_one_of_another_version_is_not_loaded(site: Path, tmp_path: Path) -> None:
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    other = {**manifest, "distribution": "floatllm-extra", "engine_version": "0.2.0"}
    add_plugin(tmp_path, site / "floatllm" / "libggml-rpc.so", other, version="0.2.0")
    (told,) = ask(site, tmp_path)["plugins"]
    assert (told["version"], told["loaded"]) == ("0.2.0", False)
    assert "pip install floatllm==0.1.0 floatllm-extra==0.1.0" in told["reason"]


def test_one_that_lacks_a_library_is_named_with_it_also_where_a_device_is_missed(
    site: Path, tmp_path: Path, tiny: Path
) -> None:
    (tmp_path / "empty.c").write_text("")
    absent, backend = tmp_path / "libabsent.so.1", tmp_path / "libggml-extra.so"
    subprocess.run(["cc", "-shared", "-o", absent, tmp_path / "empty.c"], check=True)
    subprocess.run(
        ["cc", "-shared", "-Wl,--no-as-needed", "-o", backend, tmp_path / "empty.c", absent], check=True
    )
    absent.unlink()
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    add_plugin(tmp_path / "with", backend, {**manifest, "distribution": "floatllm-extra"})
    (told,) = ask(site, tmp_path / "with")["plugins"]
    assert not told["loaded"]
    assert "libabsent.so.1" in told["reason"]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{site}:{tmp_path / 'with'}"}
    command = [sys.executable, "-m", "floatllm", "map", tiny, "--device", "Extra0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 3
    assert "floatllm-extra 0.1.0 is installed and not loaded" in done.stderr
    assert "libabsent.so.1" in done.stderr


def test_an_engine_in_one_piece_says_that_it_takes_none(
    engine_env: Environment, site: Path, tmp_path: Path
) -> None:
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    add_plugin(tmp_path, site / "floatllm" / "libggml-rpc.so", {**manifest, "distribution": "floatllm-extra"})
    (native,) = engine_env.prefix.glob("lib/python*/site-packages")
    (told,) = ask(native, tmp_path)["plugins"]
    assert "in one piece" in told["reason"]


def test_nothing_is_loaded_from_the_current_folder_or_by_ggmls_variable(site: Path, tmp_path: Path) -> None:
    """A library that ends the process, where ggml's own search would find it."""
    (tmp_path / "evil.c").write_text(
        "#include <stdlib.h>\n__attribute__((constructor)) static void run(void) { exit(66); }\n"
    )
    for name in ("libggml-cpu.so", "libggml-cpu-zen9.so", "libggml-vulkan.so", "libfloatllm-ggml-base.so"):
        subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / name, tmp_path / "evil.c"], check=True)
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(site),
        "GGML_BACKEND_PATH": str(tmp_path / "libggml-vulkan.so"),
    }
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-m", "floatllm", "devices"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_package_in_the_current_folder_is_no_plugin(site: Path, tmp_path: Path) -> None:
    """`python -m` looks for modules there, and somebody else may have put them there."""
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    add_plugin(tmp_path, site / "floatllm" / "libggml-rpc.so", {**manifest, "distribution": "floatllm-extra"})
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "floatllm", "devices", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plugins"] == []


def test_a_plugin_without_its_library_says_so(site: Path, tmp_path: Path) -> None:
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    add_plugin(tmp_path, site / "floatllm" / "libggml-rpc.so", {**manifest, "distribution": "floatllm-extra"})
    (tmp_path / "floatllm_extra" / "libggml-extra.so").unlink()
    (told,) = ask(site, tmp_path)["plugins"]
    assert "its library is missing" in told["reason"]
