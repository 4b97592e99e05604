"""Whose the cache is: what another user could have written is named and not used."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC
from plans import PRESETS
from small_wheels import small_wheel
from tool_environment import ROOT, skip_or_fail

from floatllm_build import flow, paths, trust
from floatllm_build.build.staging import stage
from floatllm_build.build_folder import Folder
from floatllm_build.errors import MissingError
from floatllm_build.events import Event, Hint
from floatllm_build.files import remove_folder, scratch_in, sha256_file
from floatllm_build.flow.wheels import key_now
from floatllm_build.ggml_source import Pin, hash_folder, locate, read_pin
from floatllm_build.lock import cache_lock
from floatllm_build.paths import CACHE_FOLDERS
from floatllm_build.pip import own_pip
from floatllm_build.sealed import is_whole, seal
from floatllm_build.select import make_plan
from floatllm_build.system import Completed, LiveSystem
from floatllm_build.tables.containers import MAKERS
from floatllm_build.trust import (
    Me,
    Status,
    check_cache,
    check_inside,
    distrust,
    is_ours,
    is_trusted,
    judge,
    make_private,
)
from floatllm_build.values import Proof, Request
from floatllm_build.wheel import find_cached, keep

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such owners and modes")

ME = Me(user=1000, own_group=1000)
NOBODY = 65534


def check(cache: Path) -> None:
    check_cache(cache)
    check_inside(cache, CACHE_FOLDERS)


@pytest.mark.parametrize(
    ("owner", "group", "mode", "fault"),
    [
        (1000, 1000, 0o40700, ""),
        (1000, 1000, 0o40755, ""),
        # As Debian's users make it, each with a group of its own.
        (1000, 1000, 0o40775, ""),
        (1000, 100, 0o40775, "can be written by its group"),
        (1000, 100, 0o40757, "can be written by everyone"),
        (1000, 1000, 0o100666, "can be written by everyone"),
        # /tmp: others add to it, and cannot replace what is ours.
        (0, 0, 0o41777, ""),
        (1000, 100, 0o41777, ""),
        (1001, 0, 0o41777, "belongs to"),
        (0, 0, 0o40755, "belongs to"),
        (0, 0, 0o100755, "belongs to"),
        (1001, 1000, 0o40700, "belongs to"),
        # The mode of a link says nothing.
        (1000, 100, 0o120777, ""),
    ],
)
def test_an_entry_is_ours_alone(owner: int, group: int, mode: int, fault: str) -> None:
    found, foreign = judge(Status(owner=owner, group=group, mode=mode), ME)
    assert found.startswith(fault)
    assert bool(found) == bool(fault)
    assert foreign == (fault == "belongs to")


def test_where_a_file_system_keeps_no_modes_only_the_owner_counts() -> None:
    me = Me(user=1000, own_group=None, modes=False)
    assert judge(Status(owner=1000, group=100, mode=0o40777), me) == ("", False)
    assert judge(Status(owner=1001, group=100, mode=0o40700), me)[1]


def test_a_file_system_that_gives_all_to_one_user_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As network drives do with root, and phones and Windows' drives in a container with everybody."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    check(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        wheel = small_wheel(tmp_path)
        with cache_lock(tmp_path / "far" / "cache", lambda _: None):
            keep(tmp_path / "far" / "cache", wheel, Proof(device="CPU", lines=(), report={}), whole=True)
    finally:
        os.umask(before)
    for folder in ("", "cache", "cache/wheels", "cache/wheels/k"):
        assert stat.S_IMODE((tmp_path / "far" / folder).stat().st_mode) == 0o700


def packed_source(folder: Path) -> tuple[Pin, Path]:
    """A small ggml as it lies beside the tool in the engine's source archive, and its pin."""
    for name in ("LICENSE", "ggml/src/ggml.c"):
        path = folder / "ggml" / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    pin = read_pin(ROOT)
    pin = replace(pin, tree_sha256=hash_folder(pin, folder / "ggml" / "source"))
    return pin, folder


def brought(cache: Path) -> bool:
    """Brings a tool as an installer does, by the user's umask; whether it was not there whole."""
    folder = cache / "tools" / "pip"
    if is_whole(folder):
        return False
    with scratch_in(folder.parent, ".pip-") as scratch:
        (scratch / "pip" / "pip").mkdir(parents=True)
        (scratch / "pip" / "pip" / "__main__.py").write_text("")
        (scratch / "pip" / "pip" / "__main__.py").chmod(0o664)
        seal(scratch / "pip")
        (scratch / "pip").rename(folder)
    return True


@pytest.fixture
def shared_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user whose group has other users in it, and who lets them write."""
    monkeypatch.setattr(trust, "_own_group", lambda: None)
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.mark.usefixtures("shared_group")
def test_what_is_made_by_a_umask_for_a_group_is_used_again(tmp_path: Path) -> None:
    cache = tmp_path / "far" / "cache"
    pin, data = packed_source(tmp_path / "data")
    wheel = small_wheel(tmp_path)
    Path(wheel.path).chmod(0o664)
    build = Folder(cache / "build" / "cpu-1")
    made = []
    for _ in range(2):
        with cache_lock(cache, lambda _: None):
            new = [name for name in ("build", "ggml", "tools", "wheels") if not (cache / name).exists()]
            make_private(build.root)
            stage({"native/CMakeLists.txt": b"project(x)"}, build.sources)
            assert locate(pin, data, cache, None)
            new += ["tool"] if brought(cache) else []
            if find_cached(cache, "k") is None:
                keep(cache, wheel, Proof(device="CPU", lines=(), report={}), whole=True)
                new.append("wheel")
            made.append(new)
    assert made == [["build", "ggml", "tools", "wheels", "tool", "wheel"], []]
    closed = [cache, *cache.glob("*/"), *cache.glob("*/*/")]
    assert {path.relative_to(cache).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in closed} == {
        path.relative_to(cache).as_posix(): 0o700 for path in closed
    }
    assert len(closed) == 9


@pytest.mark.usefixtures("shared_group")
@pytest.mark.parametrize("folder", ["build/cpu-1", "ggml/0.15", "tools/cmake"])
def test_what_an_earlier_version_made_by_such_a_umask_is_used(tmp_path: Path, folder: str) -> None:
    cache = tmp_path / "cache"
    sealed_tool(cache / folder)
    for path in (cache / folder).rglob("*"):
        path.chmod(0o775 if path.is_dir() else 0o664)
    (cache / folder).chmod(0o775)
    for above in (cache, (cache / folder).parent):
        above.chmod(0o755)
    with pytest.raises(MissingError, match="can be written by its group"):
        check(cache)
    assert not is_whole(cache / folder)
    (cache / folder).parent.chmod(0o700)
    check(cache)
    assert is_whole(cache / folder)


def test_an_earlier_cache_is_closed_to_others_and_used(tmp_path: Path) -> None:
    (tmp_path / "wheels" / "k").mkdir(parents=True)
    (tmp_path / "wheels").chmod(0o755)
    check(tmp_path)
    assert stat.S_IMODE((tmp_path / "wheels").stat().st_mode) == 0o700
    assert (tmp_path / "wheels" / "k").is_dir()


def test_an_earlier_cache_of_a_user_with_a_group_of_its_own_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_own_group", lambda: tmp_path.stat().st_gid)
    for folder in ("", "wheels", "wheels/k"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder).chmod(0o775)
    check(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "wheels").stat().st_mode) == 0o700


@pytest.mark.parametrize("folder", ["", "wheels", "wheels/k", "tools/cmake", "build/cpu-1"])
def test_a_folder_that_others_could_write_is_not_used(tmp_path: Path, folder: str) -> None:
    cache = tmp_path / "cache"
    (cache / folder).mkdir(parents=True)
    (cache / folder).chmod(0o777)
    with pytest.raises(MissingError, match="everyone") as caught:
        check(cache)
    said = str(caught.value)
    assert str(cache / folder) in said
    assert "floatllm-build clean" in said
    assert "FLOATLLM_CACHE_DIR" in said


def test_clean_works_in_a_cache_that_others_could_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path))
    (tmp_path / "wheels" / "k").mkdir(parents=True)
    (tmp_path / "wheels").chmod(0o777)
    flow.clean(lambda _: None)
    assert not (tmp_path / "wheels").exists()
    check(tmp_path)


# ---- another user's -----------------------------------------------------------------------------


def given_to_nobody(*folders: Path) -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root, to give a folder to another user")
    for folder in folders:
        os.lchown(folder, NOBODY, NOBODY)


@pytest.mark.parametrize("folder", ["", "wheels", "wheels/k", "tools/cmake", "ggml/0.15"])
def test_a_folder_of_another_user_is_not_used(tmp_path: Path, folder: str) -> None:
    cache = tmp_path / "cache"
    (cache / folder).mkdir(parents=True)
    given_to_nobody(cache / folder)
    with pytest.raises(MissingError, match="belongs to") as caught:
        check(cache)
    said = str(caught.value)
    assert f"{cache / folder} belongs to" in said
    # The cache itself may be somebody's home: nobody is told to delete that.
    assert (f"rm -r {cache / folder}" in said) is bool(folder)
    assert "FLOATLLM_CACHE_DIR" in said
    assert caught.value.exit_code == 3


def test_in_a_folder_that_is_closed_to_others_the_owner_counts(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tool = sealed_tool(cache / "tools" / "cmake")
    for path in (cache, cache / "tools", tool):
        path.chmod(0o700)
    given_to_nobody(tool / "Modules")
    assert not is_whole(tool)
    check(cache)
    given_to_nobody(tool)
    with pytest.raises(MissingError, match="belongs to"):
        check(cache)


def test_a_file_of_another_user_in_a_kept_wheel_is_not_used(tmp_path: Path) -> None:
    kept = keep(tmp_path, small_wheel(tmp_path), Proof(device="CPU", lines=(), report={}), whole=True)
    assert find_cached(tmp_path, "k")
    given_to_nobody(Path(kept.path))
    assert find_cached(tmp_path, "k") is None


def test_a_program_of_another_user_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "cmake"
    program.write_text("#!/bin/sh\n")
    seal(tmp_path)
    assert is_whole(tmp_path)
    given_to_nobody(program)
    assert not is_whole(tmp_path)


# ---- above the cache ----------------------------------------------------------------------------

ANOTHER = 4711


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder below none that is closed to others, on a machine with other users."""
    monkeypatch.setattr(trust, "_made_for_one_program", lambda: False)
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made).resolve() / "parent"
        folder.mkdir()
        for one in (folder.parent, folder):
            one.chmod(0o755)
        yield folder


@pytest.mark.parametrize(
    ("owner", "group", "mode", "fault"),
    [
        (1000, 1000, 0o40755, ""),
        (1000, 1000, 0o40775, ""),
        (1000, 100, 0o40775, "can be written by its group"),
        (1000, 1000, 0o40777, "can be written by everyone"),
        (0, 0, 0o40755, ""),
        (0, 100, 0o42775, "can be written by its group"),
        (0, 0, 0o40777, "can be written by everyone"),
        # /tmp.
        (0, 0, 0o41777, ""),
        # Root's own, where root is not known.
        (NOBODY, NOBODY, 0o40755, ""),
        (NOBODY, NOBODY, 0o40777, "can be written by everyone"),
        (1001, 1001, 0o40755, "belongs to"),
        # Its owner can rename whatever lies there.
        (1001, 1001, 0o41777, "belongs to"),
    ],
)
def test_a_folder_above_the_cache_is_ours_or_roots(owner: int, group: int, mode: int, fault: str) -> None:
    found = trust._judge_above(Path("/x"), Status(owner=owner, group=group, mode=mode), ME)
    assert (found.what if found else "").startswith(fault)
    assert bool(found) == bool(fault)


@pytest.mark.parametrize("mode", [0o777, 0o775])
@pytest.mark.usefixtures("shared_group")
def test_who_can_put_another_cache_in_the_place_of_ours_is_named(parent: Path, mode: int) -> None:
    cache = parent / "deep" / "cache"
    check(cache)
    parent.chmod(mode)
    with pytest.raises(MissingError, match="cannot be trusted") as caught:
        check(cache)
    said = str(caught.value)
    assert f"{parent} can be written by {'everyone' if mode == 0o777 else 'its group'}." in said
    assert f"chmod go-w {parent}`" in said
    assert "FLOATLLM_CACHE_DIR" in said
    assert not is_trusted(cache)
    # And of one that is not there yet.
    for place in (cache, parent / "none"):
        told = distrust(place, CACHE_FOLDERS)
        assert (
            told == f"lies in a folder that can be written by {'everyone' if mode == 0o777 else 'its group'}"
        )
    check_cache(cache, cleaning=True)
    # As the message says.
    parent.chmod(mode & ~0o022)
    check(cache)
    assert is_trusted(cache)


def test_another_user_above_the_cache_is_named(parent: Path) -> None:
    cache = parent / "cache"
    check(cache)
    if os.geteuid() != 0:
        skip_or_fail("needs root, to give a folder to another user")
    os.chown(parent, ANOTHER, ANOTHER)
    with pytest.raises(MissingError, match=f"{parent} belongs to user {ANOTHER}") as caught:
        check(cache)
    said = str(caught.value)
    assert "chmod" not in said
    assert "Name a folder in FLOATLLM_CACHE_DIR" in said
    with pytest.raises(MissingError):
        check_cache(cache, cleaning=True)


def test_what_others_cannot_get_to_may_be_open_to_them(parent: Path) -> None:
    (parent / "home" / "open").mkdir(parents=True)
    (parent / "home" / "open").chmod(0o777)
    (parent / "home").chmod(0o700)
    check(parent / "home" / "open" / "cache")


def test_in_the_container_of_one_program_nobody_else_is_there(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its image may open folders to whatever user it is run as."""
    parent.chmod(0o777)
    monkeypatch.setattr(trust, "_made_for_one_program", lambda: True)
    check(parent / "cache")


def test_who_could_change_the_tool_itself_needs_no_cache_for_that(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a phone, whose folders are the system's down to the one that holds Python and the home."""
    parent.chmod(0o777)
    monkeypatch.setattr(trust, "__file__", str(parent / "usr" / "lib" / "trust.py"))
    check(parent / "home" / "cache")
    (parent / "home").chmod(0o777)
    with pytest.raises(MissingError, match=f"{parent}/home can be written"):
        check(parent / "home" / "cache")


@pytest.mark.parametrize(
    ("made", "alone"),
    [("", False), ("docker", True), ("kubernetes", True), ("toolbox", False), ("apptainer", False)],
)
def test_a_container_with_the_users_of_its_machine_is_none_for_one_program(
    monkeypatch: pytest.MonkeyPatch, made: str, alone: bool
) -> None:
    # Toolbox brings the mark of Podman, which it works with.
    marks = {made, "podman"} if made == "toolbox" else {made}
    signs = [(kind, "", "/" if kind in marks else "/nowhere/mark") for kind, _, _ in MAKERS]
    monkeypatch.setattr(trust, "MAKERS", signs)
    assert trust._made_for_one_program() is alone


# ---- links --------------------------------------------------------------------------------------


def test_the_cache_may_be_a_link_to_a_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to("disk")
    (tmp_path / "disk" / "more").mkdir()
    (tmp_path / "disk" / "cuda").symlink_to("more")
    check(tmp_path / "cache")
    given_to_nobody(tmp_path / "disk")
    with pytest.raises(MissingError, match="belongs to"):
        check(tmp_path / "cache")


def test_a_link_to_a_folder_that_is_not_ours_is_not_followed(tmp_path: Path) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.mkdir()
    (cache / "ggml").symlink_to(elsewhere)
    given_to_nobody(elsewhere)
    with pytest.raises(MissingError, match="is a link to") as caught:
        check(cache)
    assert f"rm {cache / 'ggml'}" in str(caught.value)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "ggml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="which is not there"):
        check(tmp_path)


def test_clean_says_that_it_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    (elsewhere / "mine").mkdir(parents=True)
    (cache / "wheels").mkdir(parents=True)
    (cache / "ggml").symlink_to(elsewhere)
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(cache))
    with pytest.raises(MissingError) as caught:
        flow.clean(lambda _: None)
    said = str(caught.value)
    assert f"{cache / 'ggml'} is a link to {elsewhere}" in said
    assert f"rm {cache / 'ggml'}" in said
    assert (elsewhere / "mine").is_dir()
    assert not (cache / "wheels").exists()
    assert remove_folder(cache / "wheels") == ""


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "lock"
    if kind == "link":
        lock.symlink_to(tmp_path / "victim")
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with (
        pytest.raises(MissingError, match=f"{lock} is not an ordinary file"),
        cache_lock(tmp_path, lambda _: None),
    ):
        pass
    assert not (tmp_path / "victim").exists()


# ---- root with another user's home --------------------------------------------------------------


def test_root_does_not_work_in_the_home_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        skip_or_fail("needs root, which this is about")
    home, own = tmp_path / "home", tmp_path / "root" / ".cache" / "floatllm"
    home.mkdir()
    for name in ("FLOATLLM_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(paths, "_own_cache_of_root", lambda: own)
    assert paths.cache_dir() == home / ".cache" / "floatllm"
    given_to_nobody(home)
    told: list[Event] = []
    assert paths.cache_dir() == own
    with cache_lock(paths.cache_dir(), told.append):
        assert list(home.iterdir()) == []
    assert [event for event in told if isinstance(event, Hint) and str(home) in event.text]
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "caches"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_dir() == own
    # Whoever names a folder means it.
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(home / "mine"))
    assert paths.cache_dir() == home / "mine"
    assert paths.borrowed_home() == ""


# ---- damaged ------------------------------------------------------------------------------------


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_a_kept_wheel_makes_it_missing(tmp_path: Path) -> None:
    kept = keep(tmp_path, small_wheel(tmp_path), Proof(device="CPU", lines=(), report={}), whole=True)
    for place in (5, 60, -1):
        flip(Path(kept.path), place)
        assert find_cached(tmp_path, "k") is None
        flip(Path(kept.path), place)
        assert find_cached(tmp_path, "k")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"device": "CPU"}', '{"wheel_sha256": 5}', "[" * 10**5]
)
def test_a_proof_without_the_digest_of_the_wheel_is_none(tmp_path: Path, text: str) -> None:
    kept = keep(tmp_path, small_wheel(tmp_path), Proof(device="CPU", lines=(), report={}), whole=True)
    (Path(kept.path).parent / "proof.json").write_text(text)
    assert find_cached(tmp_path, "k") is None


def sealed_tool(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "cmake").write_bytes(b"program " * 100)
    (folder / "Modules").mkdir()
    (folder / "Modules" / "Find.cmake").write_text("words")
    seal(folder)
    return folder


def test_any_damage_to_a_sealed_folder_is_seen(tmp_path: Path) -> None:
    folder = sealed_tool(tmp_path / "tool")
    program, module = folder / "bin" / "cmake", folder / "Modules" / "Find.cmake"
    (folder / "bin" / "__pycache__").mkdir()
    (folder / "bin" / "__pycache__" / "later.pyc").write_text("compiled later")
    assert is_whole(folder)
    for path in (program, module):
        whole = path.read_bytes()
        flip(path, 3)
        assert not is_whole(folder)
        path.write_bytes(whole[:-1])
        assert not is_whole(folder)
        path.unlink()
        assert not is_whole(folder)
        path.symlink_to(tmp_path / "other")
        (tmp_path / "other").write_bytes(whole)
        assert not is_whole(folder)
        path.unlink()
        path.write_bytes(whole)
        assert is_whole(folder)


def test_sizes_are_looked_at_where_reading_is_put_off(tmp_path: Path) -> None:
    folder = sealed_tool(tmp_path / "tool")
    module = folder / "Modules" / "Find.cmake"
    flip(module, 0)
    assert is_whole(folder, lambda path: path == "bin/cmake")
    assert not is_whole(folder)
    module.write_text("")
    assert not is_whole(folder, lambda path: path == "bin/cmake")


def test_a_list_that_was_cut_short_or_changed_is_none(tmp_path: Path) -> None:
    folder = sealed_tool(tmp_path / "tool")
    path = folder / ".floatllm-files"
    first, second, last = path.read_text().splitlines(keepends=True)
    empty = f"{hashlib.sha256().hexdigest()}\n"
    other = f"{hashlib.sha256(first.encode()).hexdigest()}\n"
    for text in ("", "{}", empty, first + last, first + second, first + second + last[:-1], first + other):
        path.write_text(text)
        assert not is_whole(folder)
    path.write_text(first + second + last)
    assert is_whole(folder)
    path.unlink()
    assert not is_whole(folder)


def test_a_name_that_counts_twice_hides_no_file(tmp_path: Path) -> None:
    folder = sealed_tool(tmp_path / "tool")
    (folder / "json.py").write_text("import os")
    cmake, find = folder / "bin" / "cmake", folder / "Modules" / "Find.cmake"
    for again in ("bin/cmake", "bin/./cmake", "bin//cmake", "bin/../bin/cmake"):
        write_list(folder, [("Modules/Find.cmake", find), (again, cmake), ("bin/cmake", cmake)])
        assert not is_whole(folder)


@pytest.mark.parametrize("name", ["json.py", "later.pth", "late.so", "bin/json.pyc", "__init__.py"])
def test_a_file_that_came_after_the_list_makes_the_folder_not_whole(tmp_path: Path, name: str) -> None:
    """A module may hide a listed one."""
    folder = sealed_tool(tmp_path / "tool")
    (folder / name).write_text("import os")
    assert not is_whole(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/etc/hostname")
    assert not is_whole(folder)


def test_compiled_modules_of_another_user_count(tmp_path: Path) -> None:
    folder = sealed_tool(tmp_path / "tool")
    compiled = folder / "bin" / "__pycache__"
    compiled.mkdir()
    (compiled / "a.pyc").write_text("compiled later")
    seal(folder)
    (compiled / "a.pyc").write_text("compiled anew")
    assert is_whole(folder)
    given_to_nobody(compiled / "a.pyc")
    assert not is_whole(folder)


@pytest.mark.parametrize("way", ["absolute", "above", "link"])
def test_a_list_does_not_leave_its_folder(tmp_path: Path, way: str) -> None:
    """The file is there, ours and unchanged; it is not what is run."""
    folder, other = tmp_path / "tool", tmp_path / "other"
    other.mkdir()
    folder.mkdir()
    (other / "version").write_text("12")
    name = {"absolute": str(other / "version"), "above": "../other/version", "link": "etc/version"}[way]
    if way == "link":
        (folder / "etc").symlink_to(other)
    write_list(folder, [(name, other / "version")])
    assert not is_whole(folder)


def write_list(folder: Path, files: list[tuple[str, Path]]) -> None:
    """A list of files as `seal` would write it, whatever their names."""
    text = "".join(f"{sha256_file(path)} {path.stat().st_size} {json.dumps(name)}\n" for name, path in files)
    (folder / ".floatllm-files").write_text(f"{text}{hashlib.sha256(text.encode()).hexdigest()}\n")


# ---- without the lock ---------------------------------------------------------------------------


def spy(program: Path, mark: Path) -> None:
    """A cmake that tells that it was run."""
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch {mark}\necho cmake version 4.1.0\n")
    program.chmod(0o755)


def looked(cache: Path) -> str:
    """What `detect` does with a cache where an engine is installed and the machine has no cmake."""
    host = replace(PC, toolchain=replace(PC.toolchain, cmake=None))
    return key_now(LiveSystem(), host, make_plan(host, Request(), PRESETS), cache, None)


@pytest.mark.parametrize("place", ["", "tools", "tools/cmake", "tools/cmake/bin", "tools/cmake/bin/cmake"])
def test_detect_runs_nothing_that_another_user_may_have_put_into_the_cache(
    tmp_path: Path, place: str
) -> None:
    cache, mark = tmp_path / "cache", tmp_path / "was-run"
    spy(cache / "tools/cmake/bin/cmake", mark)
    seal(cache / "tools/cmake")
    assert looked(cache)
    assert mark.exists()
    mark.unlink()
    given_to_nobody(cache / place)
    assert looked(cache) == ""
    assert not mark.exists()


def test_detect_runs_no_program_that_is_not_on_the_list(tmp_path: Path) -> None:
    cache, mark, other = tmp_path / "cache", tmp_path / "was-run", tmp_path / "version"
    other.write_text("12")
    spy(cache / "tools/cmake/bin/cmake", mark)
    write_list(cache / "tools/cmake", [(str(other), other)])
    assert looked(cache) == ""
    assert not mark.exists()


class NoPip(LiveSystem):
    """A machine whose Python has no pip, as Debian's without python3-pip."""

    def run(self, argv: tuple[str, ...], **more: Any) -> Completed:
        if "pip" in argv:
            return Completed(rc=1, out="", err="No module named pip")
        return super().run(argv, **more)

    def glob(self, _pattern: str) -> tuple[str, ...]:
        return ()

    def which(self, _name: str) -> str | None:
        return None


def test_pip_is_not_run_from_a_cache_of_another_user(tmp_path: Path) -> None:
    """Whoever asks for it, with the lock or without."""
    cache = tmp_path / "cache"
    module = cache / "tools/pip/pip/__main__.py"
    module.parent.mkdir(parents=True)
    module.write_text("print('pip')")
    seal(cache / "tools/pip")
    assert own_pip(NoPip(), cache)[-1] == str(module.parent)
    (cache / "tools/pip/json.py").write_text("")
    with pytest.raises(MissingError, match="has no pip"):
        own_pip(NoPip(), cache)
    (cache / "tools/pip/json.py").unlink()
    given_to_nobody(cache)
    with pytest.raises(MissingError, match="cannot be trusted"):
        own_pip(NoPip(), cache)


def test_a_folder_of_ours_is_ours(tmp_path: Path) -> None:
    assert is_ours(tmp_path)
