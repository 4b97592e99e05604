"""Portable wheels are repaired: small real ones, by the real auditwheel."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC, VENV
from tool_environment import skip_or_fail
from toolchains import keep

from floatllm_build.build_folder import Folder
from floatllm_build.errors import BuildFailedError, MissingError
from floatllm_build.presets import load_presets
from floatllm_build.repair import _is_expected, _options, pack_again, repair
from floatllm_build.select import make_plan
from floatllm_build.system import Completed, LiveSystem
from floatllm_build.tools import bring_repairer
from floatllm_build.values import Plan, Repairer, Request, Wheel
from floatllm_build.wheel_file import parse_record, platform_fits, record_hash

pytestmark = [pytest.mark.network, pytest.mark.slow]

PRESETS = load_presets(Path(__file__).resolve().parents[2])
PLAN = make_plan(PC, Request(portable=True), PRESETS)
PLUGIN = replace(PLAN, plugin="vulkan")
INFO = "floatllm-0.1.0.dist-info"


@pytest.fixture(scope="module")
def tools() -> Path:
    """A cache of the tool that holds the programs that repair."""

    def make(folder: Path) -> None:
        try:
            bring_repairer(LiveSystem(), "Linux", folder)
        except MissingError as error:
            skip_or_fail(f"auditwheel cannot be had: {error}")

    if platform.system() != "Linux":
        pytest.skip("auditwheel repairs wheels of Linux")
    return keep("repairer", make)


@pytest.fixture
def repairer(tools: Path) -> Repairer:
    found = bring_repairer(LiveSystem(), "Linux", tools)
    assert found is not None
    return found


def library(path: Path, text: str = "int one(void) { return 1; }", *more: str) -> Path:
    compiler = shutil.which("cc") or skip_or_fail("no C compiler; install one (Debian: apt install gcc)")
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text(text)
    command = [str(compiler), "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
    subprocess.run([*command, *more], check=True)
    return path


def needing(folder: Path, name: str) -> Path:
    """A library that needs `name`, which lies elsewhere and is found there."""
    other = library(folder / "elsewhere" / name, "int two(void) { return 2; }")
    text = "int two(void); int one(void) { return two() - 1; }"
    return library(folder / "libggml-cpu-x64.so", text, str(other), f"-Wl,-rpath,{other.parent}")


def wheel_of(folder: Path, *libraries: Path, tag: str = "") -> Wheel:
    tag = tag or f"linux_{platform.machine()}"
    files = {f"floatllm/{path.name}": path.read_bytes() for path in libraries}
    files[f"{INFO}/METADATA"] = b"Metadata-Version: 2.1\nName: floatllm\nVersion: 0.1.0\n"
    files[f"{INFO}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n".encode()
    )
    lines = [f"{name},{record_hash(content)},{len(content)}\n" for name, content in files.items()]
    files[f"{INFO}/RECORD"] = "".join([*lines, f"{INFO}/RECORD,,\n"]).encode()
    path = folder / f"floatllm-0.1.0-py3-none-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Wheel(path=str(path), key="k", reused=False)


def repaired(wheel: Wheel, folder: Path, repairer: Repairer, plan: Plan = PLAN) -> Path:
    (folder / "build").mkdir(exist_ok=True)
    return Path(repair(wheel, plan, PC.toolchain, repairer, Folder(folder / "build")).path)


def test_a_wheel_gets_the_tag_that_is_found_and_keeps_its_libraries(
    tmp_path: Path, repairer: Repairer
) -> None:
    own = library(tmp_path / "libggml-cpu-x64.so")
    made = repaired(wheel_of(tmp_path, own), tmp_path, repairer)
    assert "-none-manylinux" in made.name
    assert platform_fits(made, replace(VENV, platform=f"linux-{platform.machine()}"))
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        assert archive.read("floatllm/libggml-cpu-x64.so") == own.read_bytes()
        record = parse_record(archive.read(f"{INFO}/RECORD").decode())
        assert {name: record_hash(archive.read(name)) for name in names if record[name]} == {
            name: digest for name, digest in record.items() if digest
        }
        tags = archive.read(f"{INFO}/WHEEL").decode()
    assert names == ["floatllm/libggml-cpu-x64.so", *(f"{INFO}/{n}" for n in ("METADATA", "WHEEL", "RECORD"))]
    assert set(record) == set(names)
    assert f"Tag: py3-none-linux_{platform.machine()}" not in tags
    assert not (tmp_path / "build" / "repaired" / "raw").exists()


def test_a_foreign_library_is_named_and_never_copied(tmp_path: Path, repairer: Repairer) -> None:
    own = needing(tmp_path, "libforeign.so.3")
    with pytest.raises(BuildFailedError, match=r"needs libforeign\.so\.3, which not every system has"):
        repaired(wheel_of(tmp_path, own), tmp_path, repairer)
    assert not list((tmp_path / "build" / "repaired").glob("*.whl"))


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("libcuda.so.1", PLAN),
        ("libcudart.so.13", PLAN),
        ("libcublas.so.13", PLAN),
        ("libcublasLt.so.13", PLAN),
        ("libvulkan.so.1", PLAN),
        ("libamdhip64.so.7", PLAN),
        ("libfloatllm-ggml-base.so", PLUGIN),
    ],
)
def test_what_the_machine_or_another_package_has_stays_there(
    tmp_path: Path, repairer: Repairer, name: str, plan: Plan
) -> None:
    own = needing(tmp_path, name)
    made = repaired(wheel_of(tmp_path, own), tmp_path, repairer, plan)
    with zipfile.ZipFile(made) as archive:
        assert archive.read("floatllm/libggml-cpu-x64.so") == own.read_bytes()
        assert len(archive.namelist()) == 4


def test_the_engine_itself_must_have_its_libraries(tmp_path: Path, repairer: Repairer) -> None:
    """What a plugin may lack is copied nowhere, and of the engine's own wheel it is a fault."""
    own = needing(tmp_path, "libfloatllm-ggml-base.so")
    with pytest.raises(BuildFailedError, match=r"libfloatllm-ggml-base\.so"):
        repaired(wheel_of(tmp_path, own), tmp_path, repairer)


def test_a_library_that_is_nowhere_is_named(tmp_path: Path, repairer: Repairer) -> None:
    own = needing(tmp_path, "libgone.so.1")
    (tmp_path / "elsewhere" / "libgone.so.1").unlink()
    with pytest.raises(BuildFailedError, match=r"libgone\.so\.1") as caught:
        repaired(wheel_of(tmp_path, own), tmp_path, repairer)
    assert str(tmp_path / "build" / "build.log") in str(caught.value)


def test_the_tag_of_an_image_holds_and_a_promise_that_cannot_be_kept_is_refused(
    tmp_path: Path, repairer: Repairer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = f"manylinux_2_28_{platform.machine()}"
    wheel = wheel_of(tmp_path, library(tmp_path / "libggml-cpu-x64.so"))
    assert asked not in repaired(wheel, tmp_path, repairer).name
    monkeypatch.setenv("AUDITWHEEL_PLAT", asked)
    assert asked in repaired(wheel, tmp_path, repairer).name
    monkeypatch.setenv("AUDITWHEEL_PLAT", "manylinux_9_9")
    with pytest.raises(BuildFailedError, match="AUDITWHEEL_PLAT"):
        repaired(wheel, tmp_path, repairer)


def test_no_other_setting_of_the_users_counts(
    tmp_path: Path, repairer: Repairer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_of(tmp_path, library(tmp_path / "libggml-cpu-x64.so"))
    plain = repaired(wheel, tmp_path, repairer).read_bytes()
    monkeypatch.setenv("AUDITWHEEL_ZIP_COMPRESSION_LEVEL", "none of this")
    assert repaired(wheel, tmp_path, repairer).read_bytes() == plain


def test_the_umask_changes_nothing(tmp_path: Path, repairer: Repairer) -> None:
    wheel = wheel_of(tmp_path, library(tmp_path / "libggml-cpu-x64.so"))
    made = []
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            made.append(repaired(wheel, tmp_path, repairer).read_bytes())
        finally:
            os.umask(before)
    assert made[0] == made[1]


def test_a_repaired_wheel_is_not_repaired_again(tmp_path: Path) -> None:
    nobody = Repairer(name="auditwheel", version="0", command=("/nowhere",), variables=())
    for tag in ("manylinux_2_28_x86_64", "musllinux_1_2_x86_64"):
        wheel = wheel_of(tmp_path, tag=tag)
        assert repaired(wheel, tmp_path, nobody) == Path(wheel.path)


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    files = {"floatllm/b.py": b"b", f"{INFO}/RECORD": b"", f"{INFO}/WHEEL": b"w", "floatllm/a.py": b"a" * 999}
    made = []
    for number, names in enumerate((sorted(files), sorted(files, reverse=True))):
        raw = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(raw, "w") as archive:
            archive.mkdir("floatllm") if hasattr(archive, "mkdir") else archive.writestr("floatllm/", b"")
            for name in names:
                info = zipfile.ZipInfo(name, (2001 + number, 2, 3, 4, 5, 6))
                info.external_attr = (0o100600 + 0o111 * number) << 16
                archive.writestr(info, files[name])
        whole = tmp_path / f"{number}.whl"
        pack_again(raw, whole)
        made.append(whole.read_bytes())
    assert made[0] == made[1]
    with zipfile.ZipFile(tmp_path / "0.whl") as archive:
        # The list of the files comes last, as the wheel format recommends.
        assert archive.namelist() == ["floatllm/a.py", "floatllm/b.py", f"{INFO}/WHEEL", f"{INFO}/RECORD"]
        assert {name: archive.read(name) for name in files} == files


def test_on_musl_the_compilers_own_libraries_are_copied_and_no_other() -> None:
    musl, glibc = (
        Path("f-1-py3-none-musllinux_1_2_x86_64.whl"),
        Path("f-1-py3-none-manylinux_2_28_x86_64.whl"),
    )
    for name in ("libstdc++-0a1b2c3d.so.6.0.33", "libgcc_s-0a1b2c3d.so.1"):
        assert _is_expected(f"floatllm.libs/{name}", musl)
        assert not _is_expected(f"floatllm.libs/{name}", glibc)
    assert not _is_expected("floatllm.libs/libgomp-0a1b2c3d.so.1", musl)


class Watched(LiveSystem):
    """The machine that we run on, and what was run there."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, ...]] = []

    def run(self, argv: tuple[str, ...], **options: Any) -> Completed:
        self.ran.append(argv)
        return super().run(argv, **options)


def test_the_tools_are_brought_once(tools: Path) -> None:
    system = Watched()
    found = bring_repairer(system, "Linux", tools)
    assert found is not None
    assert found.name == "auditwheel"
    assert not [argv for argv in system.ran if "pip" in argv or "install" in argv]
    env = {**os.environ, **dict(pair.split("=", 1) for pair in found.variables)}
    done = subprocess.run([*found.command, "--version"], env=env, capture_output=True, text=True, check=True)
    assert found.version in done.stdout
    assert shutil.which("patchelf", path=env["PATH"])


def programs(folder: Path, **versions: str) -> str:
    """A PATH with programs that say they have these versions."""
    folder.mkdir()
    for name, version in versions.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} {version}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_those_on_path_are_taken_where_they_are_new_enough(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "new", auditwheel="6.9", patchelf="0.18.0"))
    found = bring_repairer(LiveSystem(), "Linux", tmp_path / "empty")
    assert found is not None
    assert found.command == (str(tmp_path / "new" / "auditwheel"),)
    assert not (tmp_path / "empty").exists()
    monkeypatch.setenv("PATH", programs(tmp_path / "old", auditwheel="6.1.0", patchelf="0.14.3"))
    found = bring_repairer(LiveSystem(), "Linux", tools)
    assert found is not None
    assert str(tmp_path) not in found.command[0]
    path = dict(pair.split("=", 1) for pair in found.variables)["PATH"]
    assert path.split(os.pathsep)[0] == str(tools / "tools" / "patchelf" / "bin")


def test_one_that_cannot_be_had_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", patchelf="0.18.0"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(MissingError, match="pipx install auditwheel"):
        bring_repairer(LiveSystem(), "Linux", tmp_path / "empty")


def test_other_systems_have_other_tools_or_need_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Windows", "Android"):
        assert bring_repairer(LiveSystem(), name, tmp_path) is None
    monkeypatch.setenv("PATH", programs(tmp_path / "bin", **{"delocate-wheel": "0.13.0"}))
    found = bring_repairer(LiveSystem(), "Darwin", tmp_path)
    assert found is not None
    assert found.name == "delocate"
    assert _options(PLAN, found, tmp_path) == ("--wheel-dir", str(tmp_path))
    assert _options(PLUGIN, found, tmp_path)[-2:] == ("--exclude", "libfloatllm")
