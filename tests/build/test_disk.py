"""The cache's disk, before anything is compiled: room, files, and whether programs may be run from it."""

from __future__ import annotations

import _ctypes
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import NVIDIA, PC, pc
from mounts import mounted
from plans import PRESETS
from tool_environment import ROOT, closed_folder, tool

from floatllm_build import disk, verify
from floatllm_build.cuda_toolkit import home_of
from floatllm_build.errors import MissingError
from floatllm_build.events import unheard
from floatllm_build.flow.upkeep import clean
from floatllm_build.host.disk import probe_disk
from floatllm_build.host.findings import Findings
from floatllm_build.lock import cache_lock
from floatllm_build.rules.disk import disk_lacks
from floatllm_build.select import make_plan
from floatllm_build.sizes import MIB
from floatllm_build.system import LiveSystem, Replay
from floatllm_build.values import DiskFacts, Host, Kept, Plan, PlannedToolkit, Request

GGML = "0.26.0-0a1b"
INDEX_TOOLKIT = PlannedToolkit(
    nvcc="{cache}/cuda/13.4.3/toolkit/nvidia/cu13/bin/nvcc", version="13.4", download=620 << 20, requires=()
)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="mounts")
BARE = replace(PC, toolchain=replace(PC.toolchain, cmake=None))


def plan(host: Host) -> Plan:
    return make_plan(host, Request(), PRESETS)


def lacks(host: Host, build: str = "", **facts: Any) -> list[tuple[str, str]]:
    kept = tuple(Kept(what=what, size=size) for what, size in (facts.pop("kept", None) or {}).items())
    made = facts.pop("plan", None) or plan(host)
    host = replace(host, disk=DiskFacts(kept=kept, **facts))
    return [(lack.what, lack.why) for lack in disk_lacks(host, made, "/cache", ggml=GGML, build=build)]


# ---- what is needed -----------------------------------------------------------------------------


def test_a_plan_tells_what_it_takes_of_the_disk() -> None:
    assert 33 * MIB <= plan(PC).disk <= 80 * MIB
    # Where cmake comes as a wheel.
    assert plan(BARE).disk - plan(PC).disk == 87 * MIB
    portable = make_plan(PC, Request(portable=True), PRESETS)
    assert portable.disk > plan(PC).disk


def test_room_is_compared_with_what_is_not_there_yet() -> None:
    need = plan(PC).disk
    assert lacks(PC, free=need) == []
    ((what, why),) = lacks(PC, free=58 * MIB)
    assert what == "room on the disk"
    assert "75.0 MiB in /cache" in why
    assert "58.0 MiB are free" in why
    kept = {f"ggml/{GGML}": 19 * MIB, "build/cpu-0123456789": 14 * MIB}
    assert lacks(PC, free=6 * MIB, held=33 * MIB, kept=kept) == []
    assert lacks(PC, free=20 * MIB, kept={f"ggml/{GGML}": 19 * MIB}) == []
    assert len(lacks(PC, free=19 * MIB, kept={f"ggml/{GGML}": 19 * MIB})) == 1
    assert lacks(PC) == []


@pytest.mark.parametrize(
    "other",
    [
        "cuda/12.9.1",
        "ggml/0.15.0-0000",
        "build/vulkan-0123456789",
        "build/cpu-low-mem-0123456789",
        "wheels/abc",
        "tools/cmake",
        "tools/.cmake-scratch",
    ],
)
def test_what_other_plans_left_in_the_cache_pays_for_nothing(other: str) -> None:
    assert lacks(PC, free=20 * MIB, held=3 << 30, kept={other: 3 << 30}) == lacks(PC, free=20 * MIB)
    assert lacks(PC, free=1 << 40, inodes=800, held=4096, kept={other: 4096})
    assert lacks(BARE, free=1 << 40, temp=50 * MIB, held=4096)


def test_one_thing_in_the_cache_pays_for_no_other() -> None:
    kept = {f"ggml/{GGML}": 1 << 40}
    assert len(lacks(PC, free=19 * MIB, kept=kept)) == 1
    kept = {"build/cpu-0123456789": 14 * MIB}
    assert lacks(PC, free=61 * MIB, kept=kept) == []
    assert len(lacks(PC, "cpu-ffffffffff", free=61 * MIB, kept=kept)) == 1
    assert lacks(PC, "cpu-0123456789", free=61 * MIB, kept=kept) == []


def test_a_toolkit_counts_where_it_is_the_one_of_the_plan() -> None:
    made = replace(
        make_plan(pc(cuda=NVIDIA), Request(backend="cuda"), PRESETS), toolkit=INDEX_TOOLKIT, disk=3 << 30
    )
    assert len(lacks(PC, plan=made, free=2 << 30, kept={"cuda/12.9.1": 3 << 30})) == 1
    assert lacks(PC, plan=made, free=2 << 30, kept={f"cuda/{home_of(INDEX_TOOLKIT).name}": 3 << 30}) == []


def test_a_backend_takes_what_its_own_build_does_and_lower_bounds_are_told_so() -> None:
    made = make_plan(pc(cuda=NVIDIA), Request(backend="cuda"), PRESETS)
    assert made.disk >= 400 * MIB + 22 * MIB
    ((_, why),) = lacks(PC, plan=made, free=100 * MIB)
    assert "the build takes at least 521 MiB" in why
    ((_, why),) = lacks(PC, free=MIB)
    assert "the build takes 75.0 MiB" in why


def test_files_are_counted_where_the_file_system_does() -> None:
    ((what, why),) = lacks(PC, free=1 << 40, inodes=800)
    assert what == "room for files on the disk"
    assert "800 more" in why
    assert lacks(PC, free=1 << 40, inodes=5000) == []
    assert len(lacks(BARE, free=1 << 40, inodes=5000)) == 1


def test_the_folder_for_temporary_files_is_looked_at_where_it_is_another_disk() -> None:
    ((what, why),) = lacks(BARE, free=1 << 40, temp=50 * MIB)
    assert what == "room in TMPDIR"
    assert "pip take 250 MiB in TMPDIR, where 50.0 MiB are free" in why
    assert lacks(PC, free=1 << 40, temp=250 * MIB) == []
    source = {f"ggml/{GGML}": 19 * MIB}
    assert lacks(PC, free=1 << 40, kept=source, temp=64 * MIB) == []
    assert len(lacks(BARE, free=1 << 40, held=4096, kept=source, temp=100 * MIB)) == 1
    assert lacks(BARE, free=1 << 40, kept={"tools/cmake": 87 * MIB, **source}, temp=100 * MIB) == []


def test_a_cache_without_permission_to_execute_is_a_lack() -> None:
    ((what, why),) = lacks(PC, free=1 << 40, noexec=True)
    assert what == "a cache that programs can be run from"
    assert "noexec" in why


def test_a_cache_that_cannot_be_used_is_the_lack_and_not_its_room() -> None:
    ((what, why),) = lacks(PC, free=0, inodes=0, refusal="cannot be written to: Permission denied")
    assert what == "a cache that can be used"
    assert why == "/cache cannot be written to: Permission denied"


@pytest.mark.parametrize(
    "told",
    [
        {"refusal": 5},
        None,
        [],
        5,
        {"free": "much"},
        {"free": -1},
        {"held": None},
        {"free": 1 << 63},
        {"kept": {"a": "b"}},
    ],
)
def test_an_odd_record_makes_no_lack(told: object) -> None:
    found = probe_disk(Replay({"native": {"disk": told}}), Findings())
    assert found.free in {None, 1 << 60}
    assert disk_lacks(replace(PC, disk=found), plan(PC)) == ()


# ---- this machine -------------------------------------------------------------------------------


def test_the_disk_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "far" / "cache"))
    assert disk.look()["held"] == 0
    (tmp_path / "far" / "cache" / "ggml" / "tree").mkdir(parents=True)
    (tmp_path / "far" / "cache" / "ggml" / "tree" / "file").write_bytes(b"x" * MIB)
    (tmp_path / "far" / "cache" / "other").write_bytes(b"x" * MIB)
    found = probe_disk(LiveSystem(), Findings())
    assert found.free
    assert MIB <= found.held < 2 * MIB
    assert found.kept == (Kept(what="ggml/tree", size=found.held),)
    assert not found.noexec
    # An error that was kept is no reason to take the cache for filled.
    (tmp_path / "far" / "cache" / "errors").mkdir()
    (tmp_path / "far" / "cache" / "errors" / "1.json").write_bytes(b"x" * 4096)
    assert probe_disk(LiveSystem(), Findings()).kept == found.kept
    # `clean` counts as `detect` does.
    assert clean(unheard, only_look=True).size == disk.look()["held"]
    assert disk.forbids_programs(tmp_path) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["far"]


def refusal(cache: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setenv("FLOATLLM_CACHE_DIR", str(cache))
    return probe_disk(LiveSystem(), Findings()).refusal


@pytest.mark.skipif(sys.platform == "win32", reason="a folder of a user is closed to others there")
def test_a_cache_is_refused_as_an_install_would_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for names, which a recorded host is not to have; and nothing is made or put right."""
    cache = tmp_path / "cache"
    assert refusal(cache, monkeypatch) == ""
    assert not cache.exists()
    assert refusal(closed_folder(tmp_path) / "x", monkeypatch).startswith("cannot be written to: ")
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file", monkeypatch) == "cannot be written to: File exists"
    for place, mode, said in (
        (cache, 0o777, "can be written by everyone"),
        (cache / "wheels", 0o777, "holds something that can be written by everyone"),
    ):
        (cache / "wheels").mkdir(parents=True, exist_ok=True)
        cache.chmod(0o755)
        (cache / "wheels").chmod(0o755)
        assert refusal(cache, monkeypatch) == ""
        place.chmod(mode)
        assert refusal(cache, monkeypatch) == said
        assert stat.S_IMODE(place.stat().st_mode) == mode
        with pytest.raises(MissingError, match="cannot be trusted"), cache_lock(cache, unheard):
            pass
        place.chmod(0o755)


def test_detect_and_plan_answer_with_the_lack_that_install_ends_with(tmp_path: Path) -> None:
    cache = closed_folder(tmp_path) / "x"
    for command in ("plan", "detect"):
        done = tool(command, "--json", "--backend", "cpu", FLOATLLM_CACHE_DIR=str(cache))
        assert done.returncode == 0, done.stderr
        missing = {lack["what"]: lack["why"] for lack in json.loads(done.stdout)["missing"]}
        assert "cannot be written to: " in missing["a cache that can be used"]
        assert "room on the disk" not in missing
    done = tool("install", "--python", sys.executable, FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 3
    assert "cannot be written to: " in done.stderr


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "noexec"
    with mounted(folder, "-t", "tmpfs", "-o", "noexec,size=64m"):
        yield folder


@LINUX
def test_a_cache_on_a_noexec_mount_is_refused_before_anything_is_done(noexec: Path, tmp_path: Path) -> None:
    cache = noexec / "cache"
    done = tool("wheel", "--out", tmp_path / "out", FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 3, done.stderr
    assert f"Nothing may be run from the cache folder {cache}" in done.stderr
    assert "Name a folder on another file system in FLOATLLM_CACHE_DIR" in done.stderr
    assert "probe" not in done.stderr
    assert sorted(path.name for path in cache.iterdir()) == ["errors", "lock"]
    shown = tool("detect", FLOATLLM_CACHE_DIR=str(cache))
    assert "a cache that programs can be run from" in shown.stdout


@LINUX
@pytest.mark.parametrize("way", ["mapping", "start"])
def test_both_ways_of_running_are_really_tried(
    noexec: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A policy may forbid one of them, and statvfs knows neither policy."""
    other = {"mapping": "_refused_start", "start": "_refused_mapping"}[way]
    monkeypatch.setattr(disk, other, lambda _: "")
    with pytest.raises(MissingError, match="FLOATLLM_CACHE_DIR"):
        disk.check_runs_programs(noexec)
    assert list(noexec.iterdir()) == []


@LINUX
def test_a_full_disk_is_no_refusal_to_run(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    with mounted(folder, "-t", "tmpfs", "-o", "nr_inodes=1"):
        disk.check_runs_programs(folder)


@LINUX
def test_an_environment_on_a_noexec_mount_is_refused(noexec: Path) -> None:
    with pytest.raises(MissingError, match="--python") as caught:
        disk.check_loads_libraries(noexec)
    assert f"could not be loaded from {noexec}" in str(caught.value)


@LINUX
def test_so_is_one_that_this_user_cannot_write_to(noexec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> str:
        raise PermissionError

    monkeypatch.setattr(disk, "forbids_programs", refused)
    disk.check_loads_libraries(noexec)
    (noexec / "floatllm").mkdir()
    shutil.copy(_ctypes.__file__, noexec / "floatllm" / "libfloatllm.so")
    with pytest.raises(MissingError, match="--python"):
        disk.check_loads_libraries(noexec)


@LINUX
def test_a_failed_proof_says_so_instead_of_advising_another_build(noexec: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="--python"):
        verify.prove_installed(sys.executable, noexec, "NONE0", lambda _: None)
    wheel = tmp_path / "floatllm.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("floatllm/__init__.py", "")
        archive.writestr("floatllm/selftest.py", "raise SystemExit(1)")
    with pytest.raises(MissingError, match="FLOATLLM_CACHE_DIR"):
        verify.prove_wheel(wheel, sys.executable, "CPU", noexec, lambda _: None)


@LINUX
def test_a_disk_that_is_too_small_is_told_with_both_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with mounted(folder, "-t", "tmpfs", "-o", "size=22m"):
        shown = tool("detect", FLOATLLM_CACHE_DIR=str(folder))
    assert "room on the disk" in shown.stdout
    assert "22.0 MiB are free" in shown.stdout


@LINUX
def test_a_kept_error_does_not_put_the_check_off_until_all_is_fetched(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    with mounted(folder, "-t", "tmpfs", "-o", "size=12m"):
        (folder / "errors").mkdir(mode=0o700)
        (folder / "errors" / "1.json").write_bytes(b"x" * 4096)
        folder.chmod(0o700)
        done = tool("wheel", "--out", tmp_path / "out", FLOATLLM_CACHE_DIR=str(folder))
        assert {path.name for path in folder.iterdir()} == {"errors", "lock"}
    assert done.returncode == 3, done.stderr
    assert "room on the disk is missing" in done.stderr
    assert "fetching" not in done.stderr


@LINUX
def test_what_the_loader_says_of_a_noexec_mount_is_known(noexec: Path) -> None:
    """Should it be mounted so later, the engine does not advise to build once more."""
    library = shutil.copy(_ctypes.__file__, noexec)
    done = subprocess.run(
        [sys.executable, "-c", "import floatllm; floatllm.devices()"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "native"), "FLOATLLM_LIBRARY": library},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "without permission to execute (noexec)" in done.stderr
    assert "rebuild" not in done.stderr
