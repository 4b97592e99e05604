"""The portable wheel, looked at as those who publish and install it do."""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest
from elf import read as library_facts
from toolchains import packages

from floatllm_build.system import LiveSystem
from floatllm_build.tools import bring_repairer
from floatllm_build.values import Repairer
from floatllm_build.wheel_file import parse_record, record_hash

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(platform.system() != "Linux", reason="auditwheel and ELF are Linux's"),
]

# What auditwheel's policy of the C library allows, as far as the engine has a use for it.
SYSTEMS = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2"}


@pytest.fixture(scope="module")
def archive(portable_wheel: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(portable_wheel) as opened:
        yield opened


@pytest.fixture(scope="module")
def repairer(portable_wheel: Path) -> Repairer:
    """The very one that repaired it."""
    found = bring_repairer(LiveSystem(), "Linux", portable_wheel.parents[1] / "tool")
    assert found is not None
    return found


def libraries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    return {
        name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if name.endswith(".so")
    }


@pytest.fixture(scope="module")
def checkers() -> Path:
    """A folder with the programs by which publishers check a wheel."""
    return packages("wheel-checkers", "twine>=6", "check-wheel-contents>=0.6", "pyelftools>=0.31")


def checked(folder: Path, module: str, *arguments: object) -> str:
    """What a checker says once it agrees."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_is_for_every_python_of_systems_that_are_not_newer(portable_wheel: Path) -> None:
    tag = re.fullmatch(r"floatllm-[0-9.]+-py3-none-(.*)\.whl", portable_wheel.name)
    assert tag
    named = tag[1].split(".")
    assert all(one.startswith(("manylinux", "musllinux")) for one in named)
    assert all(one.endswith(f"_{platform.machine()}") for one in named)
    libc = re.search(r"manylinux_2_([0-9]+)_", tag[1])
    own = platform.libc_ver()[1].split(".")
    if libc and len(own) > 1:
        assert int(libc[1]) <= int(own[1])


def test_auditwheel_finds_the_tag_that_it_has(portable_wheel: Path, repairer: Repairer) -> None:
    env = {**os.environ, **dict(pair.split("=", 1) for pair in repairer.variables)}
    command = [*repairer.command, "show", "--json", str(portable_wheel)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert shown["overall_tag"] in portable_wheel.stem.split("-")[-1].split(".")
    assert not shown["pure"]
    assert not shown["unsupported_isa"]
    assert set(shown["external_libs"]) <= SYSTEMS


def test_twine_would_upload_it(portable_wheel: Path, checkers: Path) -> None:
    assert "PASSED" in checked(checkers, "twine", "check", "--strict", portable_wheel)


def test_check_wheel_contents_has_nothing_to_say(portable_wheel: Path, checkers: Path) -> None:
    # W004 takes each library for a module of Python, and finds that these names cannot be imported: they are
    # ggml's, which looks for them.
    said = checked(checkers, "check_wheel_contents", "--ignore", "W004", portable_wheel)
    assert said.strip() == f"{portable_wheel}: OK"


def test_it_is_small(portable_wheel: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the limit is one for x86-64")
    assert portable_wheel.stat().st_size <= 8_000_000


def test_each_member_is_a_plain_file_that_the_record_knows(archive: zipfile.ZipFile) -> None:
    record_name = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
    record = parse_record(archive.read(record_name).decode())
    assert sorted(record) == sorted(archive.namelist())
    assert len(set(archive.namelist())) == len(archive.namelist())
    for member in archive.infolist():
        assert stat.S_ISREG(member.external_attr >> 16), member.filename
        assert not {"..", ""} & set(member.filename.split("/")), member.filename
        if member.filename != record_name:
            assert record_hash(archive.read(member)) == record[member.filename], member.filename


def test_its_libraries_keep_their_names(archive: zipfile.ZipFile) -> None:
    names = set(libraries(archive))
    assert "libfloatllm.so" in names
    variants = {name for name in names if name.startswith("libggml-cpu-")}
    if platform.machine() == "x86_64":
        assert {f"libggml-cpu-{name}.so" for name in ("x64", "sse42", "haswell", "zen4")} <= variants
    else:
        assert len(variants) > 1
    # A name that a repair had changed would hold a hash.
    assert not [name for name in names if re.search(r"-[0-9a-f]{8}\.so", name)]
    folders = {name.rpartition("/")[0] for name in archive.namelist() if name.endswith(".so")}
    assert folders == {"floatllm"}


def test_every_library_is_hardened(archive: zipfile.ZipFile) -> None:
    for name, content in libraries(archive).items():
        found = library_facts(content)
        assert (found.relro, found.now, found.stack) == (True, True, False), name
    engine = library_facts(libraries(archive)["libfloatllm.so"])
    assert "__stack_chk_fail" in engine.wanted


def test_it_finds_its_own_libraries_in_its_own_folder_alone(
    archive: zipfile.ZipFile, checkers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(checkers))
    elf = import_module("elftools.elf.elffile")
    own = libraries(archive)
    for name, content in own.items():
        section = elf.ELFFile(BytesIO(content)).get_section_by_name(".dynamic")
        found: dict[str, list[str]] = {}
        for entry in section.iter_tags():
            for kind, attribute in (
                ("DT_NEEDED", "needed"),
                ("DT_RPATH", "rpath"),
                ("DT_RUNPATH", "runpath"),
                ("DT_SONAME", "soname"),
            ):
                if entry.entry.d_tag == kind:
                    found.setdefault(kind, []).append(getattr(entry, attribute))
        assert found.get("DT_RPATH", []) + found.get("DT_RUNPATH", []) == ["$ORIGIN"], name
        # What is loaded by its path needs none.
        assert found.get("DT_SONAME", [name]) == [name]
        loader = {needed for needed in found["DT_NEEDED"] if needed.startswith("ld-linux")}
        assert set(found["DT_NEEDED"]) - loader <= SYSTEMS | set(own), name
