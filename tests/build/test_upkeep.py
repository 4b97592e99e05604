"""What comes after an installation: what is there, removing it, the caches; and what `--help` says."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from plans import PLAN
from tool_environment import ROOT, Environment, make_venv
from typer.testing import CliRunner

from floatllm_build import install
from floatllm_build.cli import app
from floatllm_build.disk import taken
from floatllm_build.distributions import distributions
from floatllm_build.errors import MissingError
from floatllm_build.flow import upkeep
from floatllm_build.flow.upkeep import plugin_names
from floatllm_build.presets import load_presets
from floatllm_build.select import DEVICES
from floatllm_build.sites import sites
from floatllm_build.sizes import show_size
from floatllm_build.standing import find_changes, installed_key, read_engine
from floatllm_build.system import LiveSystem
from floatllm_build.uninstall import find_left, find_ours, uninstall
from floatllm_build.values import Engine, Target
from floatllm_build.wheel_file import record_hash

MANIFEST = {
    "preset": "cuda",
    "proof": "device",
    "backends": ["cpu", "cuda", "rpc"],
    "ggml": {"version": "0.26.0"},
}


def wheel(folder: Path, name: str, files: dict[str, str], *requires: str) -> Path:
    """A wheel as pip takes it, made by hand: it needs no compiler."""
    stem = f"{name.replace('-', '_')}-0.1.0"
    info = f"{stem}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = io.StringIO()
    rows = csv.writer(listed, lineterminator="\n")
    for path, text in content.items():
        rows.writerow((path, record_hash(text.encode()), len(text.encode())))
    rows.writerow((f"{info}/RECORD", "", ""))
    made = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**content, f"{info}/RECORD": listed.getvalue()}.items():
            archive.writestr(path, text)
    return made


def wheels(folder: Path) -> list[Path]:
    """An engine, a plugin, and what that needs; torch needs a part of it too."""
    engine = {"floatllm/__init__.py": "x = 1\n", "floatllm/manifest.json": json.dumps(MANIFEST)}
    needs = ("floatllm==0.1.0", "nvidia-cublas", "nvidia-cuda-runtime")
    return [
        wheel(folder, "floatllm", engine),
        wheel(folder, "floatllm-cuda13", {"floatllm_cuda13/__init__.py": ""}, *needs),
        wheel(folder, "nvidia-cublas", {"nvidia_cublas.py": "1" * 3000}),
        wheel(folder, "nvidia-cuda-runtime", {"nvidia_cudart.py": ""}),
        wheel(folder, "floatllm-build", {"floatllm_build_elsewhere.py": ""}),
        wheel(folder, "torch", {"torch_.py": ""}, "nvidia-cublas>=1; python_version > '3'"),
    ]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    python = make_venv(folder / "venv")
    command = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        *wheels(folder),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "venv"


@pytest.fixture
def place(first: Path, tmp_path: Path) -> Path:
    """The Python of an environment that holds them, by pip."""
    shutil.copytree(first, tmp_path / "venv", symlinks=True)
    return tmp_path / "venv" / "bin" / "python"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages that holds them, by hand."""
    folder = tmp_path / "lib" / "python3.11" / "site-packages"
    for path in wheels(tmp_path):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    return folder


def names(python: Path) -> set[str]:
    site = next(python.parent.parent.glob("lib/python*/site-packages"))
    return {one.name for one in distributions([site])}


# ---- uninstall ----------------------------------------------------------------------------------


def test_uninstall_removes_the_engine_and_its_plugins_and_names_what_stays(
    tool_env: Environment, place: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (cache / "wheels").mkdir(parents=True)
    (cache / "wheels" / "x").write_bytes(b"1" * 5000)
    done = tool_env.tool("uninstall", "--python", place, FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    left = names(place)
    assert {"nvidia-cublas", "nvidia-cuda-runtime", "torch", "floatllm-build"} <= left
    assert not {"floatllm", "floatllm-cuda13"} & left
    told = done.stdout
    assert re.search(r"removed +floatllm 0\.1\.0 \([0-9.]+ \w+\) from", told)
    assert "floatllm-cuda13 0.1.0" in told
    assert "nvidia-cublas" in told
    assert "torch needs it too" in told
    assert f"{place} -m pip uninstall nvidia-cuda-runtime" in told
    # The cache first: who has removed the tool cannot clean any more.
    assert told.index("floatllm-build clean") < told.index("pip uninstall floatllm-build")
    # What it takes of the disk, in whole blocks.
    assert show_size(taken(cache / "wheels")) in told
    again = tool_env.tool("uninstall", "--python", place, FLOATLLM_CACHE_DIR=str(cache))
    assert again.returncode == 0, again.stderr
    assert "there was nothing to remove" in again.stdout
    assert names(place) == left


def test_uninstall_needs_no_cache_and_makes_none(tool_env: Environment, place: Path, tmp_path: Path) -> None:
    cache = tmp_path / "none"
    done = tool_env.tool("uninstall", "--python", place, FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    assert "removed" in done.stdout
    assert "floatllm-build clean" not in done.stdout
    assert not cache.exists()


def test_files_that_no_installer_put_there_stay_and_are_named(
    tool_env: Environment, place: Path, tmp_path: Path
) -> None:
    (folder,) = place.parent.parent.glob("lib/python*/site-packages/floatllm")
    (folder / "notes.txt").write_text("mine")
    done = tool_env.tool("uninstall", "--python", place, FLOATLLM_CACHE_DIR=str(tmp_path / "c"))
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout
    assert (folder / "notes.txt").read_text() == "mine"


def test_an_environment_without_pip_is_served_by_the_tools_own(
    tool_env: Environment, place: Path, tmp_path: Path
) -> None:
    command = [place, "-m", "pip", "uninstall", "-q", "--yes", "pip"]
    subprocess.run(command, check=True, capture_output=True)
    done = tool_env.tool("uninstall", "--python", place, FLOATLLM_CACHE_DIR=str(tmp_path / "c"))
    assert done.returncode == 0, done.stderr
    assert not {"floatllm", "floatllm-cuda13"} & names(place)


def test_an_installer_that_fails_is_told_and_is_exit_4(
    tool_env: Environment, place: Path, tmp_path: Path
) -> None:
    (pip,) = place.parent.parent.glob("lib/python*/site-packages/pip")
    (pip / "__main__.py").write_text("import sys; sys.exit('no, not today')")
    done = tool_env.tool("uninstall", "--python", place, FLOATLLM_CACHE_DIR=str(tmp_path / "c"))
    assert done.returncode == 4
    assert "not today" in done.stderr
    assert "floatllm-build report" in done.stderr
    assert done.stdout == ""
    assert "floatllm" in names(place)


def test_where_nothing_can_be_written_no_installer_is_started(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "probe_target", lambda *_: target_of(site))
    monkeypatch.setattr(install, "write_refusal", lambda _: "Permission denied")
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "c"))
    with pytest.raises(MissingError, match=f"Nothing can be written to {site}: Permission denied"):
        upkeep.remove_engine(LiveSystem(), None, lambda _: None)
    # Where there is nothing to remove, nothing has to be written.
    for info in site.glob("floatllm*.dist-info"):
        shutil.rmtree(info)
    assert upkeep.remove_engine(LiveSystem(), sys.executable, lambda _: None).packages == ()


def test_what_belongs_to_the_system_is_left_to_it(site: Path, tmp_path: Path) -> None:
    target = target_of(site, managed=True)
    with pytest.raises(MissingError, match="--break-system-packages floatllm"):
        uninstall(LiveSystem(), target, find_ours(target, ()), tmp_path)


def target_of(site: Path, *, managed: bool = False) -> Target:
    return Target(
        executable=str(site.parents[2] / "bin" / "python"),
        version=(3, 11),
        platform="linux-x86_64",
        bits=64,
        prefix=str(site.parents[2]),
        chosen_by="--python",
        kind="venv",
        externally_managed=managed,
        has_pip=True,
        installed=str(site / "floatllm-0.1.0.dist-info"),
    )


def test_who_else_needs_a_package_is_known(site: Path) -> None:
    target = target_of(site)
    ours = find_ours(target, ("floatllm-vulkan", "floatllm-cuda13"))
    assert [one.name for one in ours] == ["floatllm", "floatllm-cuda13"]
    assert {one.name: one.needed_by for one in find_left(target, ours)} == {
        "nvidia-cublas": ("torch",),
        "nvidia-cuda-runtime": (),
    }


def test_each_is_found_once_where_lib64_leads_to_lib(site: Path) -> None:
    """As venv makes it on 64-bit machines."""
    lib = site.parents[1]
    (lib.parent / "lib64").symlink_to(lib.name)
    target = replace(target_of(site), installed="")
    assert [one.name for one in find_ours(target, ("floatllm-cuda13",))] == ["floatllm", "floatllm-cuda13"]
    assert sites(target) == [site]


# ---- what is installed --------------------------------------------------------------------------


def engine(site: Path) -> tuple[Engine, Path]:
    info = site / "floatllm-0.1.0.dist-info"
    return read_engine(info, DEVICES), info


def test_the_engine_is_known_by_its_manifest(site: Path) -> None:
    found, info = engine(site)
    assert (found.version, found.preset, found.device, found.ggml) == ("0.1.0", "cuda", "CUDA0", "0.26.0")
    assert found.plugins == ("floatllm-cuda13",)
    assert found.current is None
    assert installed_key(info) == ""


@pytest.mark.parametrize("text", ["", "[]", '{"backends": 1, "ggml": 2}', "[" * 100_000, "\x00"])
def test_a_damaged_manifest_is_no_traceback(site: Path, text: str) -> None:
    _, info = engine(site)
    (site / "floatllm" / "manifest.json").write_text(text)
    (info / "direct_url.json").write_text(text)
    found, _ = engine(site)
    assert (found.version, found.preset, found.device) == ("0.1.0", "", "CPU")
    assert installed_key(info) == ""


def test_the_key_is_that_of_our_wheel(site: Path) -> None:
    _, info = engine(site)
    key = "0123456789abcdef" * 4
    for url, found in (
        (f"file:///home/ada/.cache/floatllm/wheels/{key}/floatllm-0.1.0-py3-none-any.whl", key),
        (f"file:///home/ada/{key}/floatllm-0.1.0-py3-none-any.whl", ""),
        ("file:///home/ada/native", ""),
    ):
        (info / "direct_url.json").write_text(json.dumps({"url": url}))
        assert installed_key(info) == found


def test_changes_are_told_in_words(site: Path) -> None:
    found, info = engine(site)
    same = {"floatllm/__init__.py": record_hash(b"x = 1\n")}
    plan = replace(PLAN, preset="cuda")
    assert find_changes(found, info, plan, "0.26.0", "0.1.0", same) == ()
    other = {"floatllm/__init__.py": record_hash(b"x = 2\n")}
    assert find_changes(found, info, plan, "0.26.0", "0.1.0", other) == ("the engine's sources",)
    plan = replace(PLAN, preset="cpu")
    assert find_changes(found, info, plan, "0.27.0", "0.2.0", same) == (
        "floatllm 0.1.0 to 0.2.0",
        "preset cuda to cpu",
        "ggml 0.26.0 to 0.27.0",
    )


def test_detect_tells_of_an_engine_that_is_not_the_planned_one(
    tool_env: Environment, place: Path, tmp_path: Path
) -> None:
    words = ("--python", str(place), "--backend", "cpu")
    shown = tool_env.tool("detect", *words, FLOATLLM_CACHE_DIR=str(tmp_path / "c"))
    assert shown.returncode == 0, shown.stderr
    assert "there is  floatllm 0.1.0, preset cuda, proven on CUDA0, floatllm-cuda13" in shown.stdout
    assert "preset cuda to cpu" in shown.stdout
    assert f"floatllm-build install --backend cpu --python {place}" in shown.stdout
    record = tmp_path / "host.json"
    told = json.loads(tool_env.tool("detect", "--json", "--save", record, *words).stdout)["engine"]
    assert (told["current"], told["changes"][0]) == (False, "preset cuda to cpu")
    # A record holds no files of the engine.
    assert json.loads(tool_env.tool("detect", "--json", "--from", record).stdout)["engine"] is None


# ---- clean --------------------------------------------------------------------------------------


def test_clean_says_what_each_folder_held_and_differs_where_there_was_nothing(
    tool_env: Environment, tmp_path: Path
) -> None:
    cache = tmp_path / "c"
    for name, size in (("build", 3 << 20), ("wheels", 4000)):
        (cache / name / "deep").mkdir(parents=True)
        (cache / name / "deep" / "file").write_bytes(b"1" * size)
    (cache / "mine").mkdir()
    variables = {"FLOATLLM_CACHE_DIR": str(cache), "TMPDIR": str(tmp_path)}
    looked = tool_env.tool("clean", "--dry-run", **variables)
    assert looked.returncode == 0
    assert "would be freed" in looked.stdout
    assert (cache / "build" / "deep" / "file").is_file()
    done = tool_env.tool("clean", **variables)
    assert done.returncode == 0
    for told in (looked.stdout, done.stdout):
        assert re.search(r"^build +3\.0 MiB$", told, re.MULTILINE)
        # What it takes of the disk: whole blocks.
        assert re.search(r"^wheels +(4\.0|3\.9) KiB$", told, re.MULTILINE)
    assert re.search(r"^in all +3\.0 MiB freed in .*keep working$", done.stdout, re.MULTILINE)
    assert {path.name for path in cache.iterdir()} == {"lock", "mine"}
    again = tool_env.tool("clean", **variables)
    assert again.returncode == 0
    assert "there was nothing to delete" in again.stdout
    assert "freed" not in again.stdout


def test_clean_removes_what_was_left_among_temporary_files(tool_env: Environment, tmp_path: Path) -> None:
    temp = tmp_path / "t"
    temp.mkdir()
    ours = [temp / "floatllm-error-x1.json", temp / "floatllm-verify-y2.log"]
    others = [temp / "floatllm-error.json", temp / "notes.log", temp / "floatllm-verify-open.log"]
    for path in (*ours, *others):
        path.write_text("1" * 5000)
        path.chmod(0o600)
    others[-1].chmod(0o666)
    (temp / "floatllm-error-link.json").symlink_to(others[0])
    variables = {"FLOATLLM_CACHE_DIR": str(tmp_path / "c"), "TMPDIR": str(temp)}
    looked = tool_env.tool("clean", "--dry-run", **variables)
    assert f"would be freed in {temp}" in looked.stdout
    assert all(path.exists() for path in ours)
    done = tool_env.tool("clean", **variables)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^outside +16\.0 KiB of errors and logs freed in {temp}$", done.stdout, re.MULTILINE)
    assert {path.name for path in temp.iterdir()} == {
        *(path.name for path in others),
        "floatllm-error-link.json",
    }


def test_a_cache_that_was_never_made_is_not_made_to_be_cleaned(tool_env: Environment, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    done = tool_env.tool("clean", FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 0
    assert "there was nothing to delete" in done.stdout
    assert not cache.exists()


# ---- help ---------------------------------------------------------------------------------------


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_exit_codes_and_every_option_its_default(name: str) -> None:
    command = COMMANDS[name]
    assert "Exit codes: 0 done" in command.epilog
    for option in command.params:
        # Without a file nothing is saved or read, and a switch is off.
        if not option.is_flag and option.opts[0] not in {"--save", "--from"}:
            assert "Default: " in option.help, option.opts


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_whole_at_80_columns(name: str) -> None:
    done = CliRunner().invoke(app, [*filter(None, (name,)), "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 80
    # What was cut ends so.
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.output
    assert "Exit codes" in done.output
    command = COMMANDS.get(name)
    for option in command.params if command else ():
        assert option.opts[-1] in done.output
        assert not option.envvar or option.envvar in done.output


def test_the_plugins_that_uninstall_knows_are_those_of_the_presets() -> None:
    plugins = {one.plugin for one in load_presets(ROOT).values() if one.plugin}
    assert set(plugin_names()) == {f"floatllm-{plugin}" for plugin in plugins} != set()
