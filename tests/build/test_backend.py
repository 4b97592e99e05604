"""The engine through pip alone: from a checkout, editable, and from its source archive with no network."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkouts import NAME, Place, copied
from tool_environment import ROOT, Environment, make_venv, skip_or_fail

from floatllm_build.build.staging import read_sources
from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.ggml_source import hash_folder, read_pin
from floatllm_build.sdist import _NOT_CARRIED, _own_modules, pack_sdist, root_project
from floatllm_build.versions import CMAKE_MINIMUM, NINJA_MINIMUM

# What the backend asks for; whoever builds without isolation brings it.
REQUIREMENTS = ("scikit-build-core>=1.1", "packaging>=23", "platformdirs>=4")


def contents(folder: Path) -> dict[str, str]:
    """What stands in a folder, without what any Python writes beside the modules that it imports."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("checkout") / "floatllm")


@pytest.fixture(scope="module")
def ready(tool_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An environment with the requirements of a build and nothing else: no typer, no rich."""
    place = Place(make_venv(tmp_path_factory.mktemp("ready") / "venv"), tool_env.env)
    done = place.pip("install", "--quiet", *REQUIREMENTS)
    if done.returncode != 0:
        skip_or_fail(f"the build's requirements could not be installed: {done.stderr.strip()[-300:]}")
    return place


@pytest.fixture(scope="module")
def archive(
    ready: Place, engine_env: Environment, checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The engine's source archive, made while the cache holds ggml."""
    out = tmp_path_factory.mktemp("archive")
    done = ready.hook(checkout, f"build_sdist({str(out)!r})")
    assert done.stdout.splitlines()[-1:] == [f"{NAME}.tar.gz"], done.stderr
    return out / f"{NAME}.tar.gz"


# ---- pip install ./native -----------------------------------------------------------------------


@pytest.mark.build
def test_pip_alone_chooses_builds_proves_and_installs(
    engine_env: Environment, checkout: Path, tmp_path: Path
) -> None:
    before = contents(checkout)
    place = Place(make_venv(tmp_path / "venv"), engine_env.env)
    done = place.pip("install", "-v", checkout / "native", FLOATLLM_BACKEND="cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    for step in ("probe", "plan", "ggml", "build"):
        assert [line for line in lines if line.startswith(f"{step:<9}")], step
    assert place.computes()
    assert contents(checkout) == before
    assert place.pip("uninstall", "-y", "floatllm").returncode == 0
    assert not list(place.site.glob("*floatllm*"))


@pytest.mark.parametrize(
    ("options", "variables", "status", "said"),
    [
        (("--config-settings", "floatllm.backnd=cuda"), {}, 2, "Did you mean floatllm.backend?"),
        (("--config-settings", "floatllm.backend=cudda"), {}, 2, "Did you mean cuda?"),
        (("--config-settings", "cmake.define.GGML_LTO=ON"), {}, 2, "CMAKE_ARGS"),
        ((), {"FLOATLLM_BACKEDN": "cuda"}, 2, "Did you mean FLOATLLM_BACKEND?"),
        ((), {"FLOATLLM_BACKEND": "metal"}, 3, "metal was asked for"),
    ],
)
def test_a_refusal_is_a_sentence_and_pip_shows_it(
    ready: Place,
    checkout: Path,
    options: tuple[str, ...],
    variables: Mapping[str, str],
    status: int,
    said: str,
) -> None:
    if sys.platform == "darwin" and status == 3:
        pytest.skip("a Mac has Metal")
    arguments = ("install", "--no-index", "--no-build-isolation", *options, checkout / "native")
    done = ready.pip(*arguments, **variables)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert said in text
    assert f"exit code: {status}" in text
    assert "Traceback" not in text


def test_pips_word_beats_the_variable(ready: Place, checkout: Path) -> None:
    call = "get_requires_for_build_wheel({'floatllm.jobs': '1'})"
    assert ready.hook(checkout, call, FLOATLLM_JOBS="none").returncode == 0
    assert ready.hook(checkout, "get_requires_for_build_wheel()", FLOATLLM_JOBS="none").returncode == 2


def test_programs_are_asked_for_where_the_machine_has_none(
    ready: Place, checkout: Path, tmp_path: Path
) -> None:
    cmake, ninja = (".".join(map(str, least)) for least in (CMAKE_MINIMUM, NINJA_MINIMUM))
    call = "get_requires_for_build_wheel()"
    none = {"PATH": str(tmp_path), "CMAKE_EXECUTABLE": "", "NINJA": ""}
    for hook in (call, "get_requires_for_build_editable()"):
        done = ready.hook(checkout, hook, **none)
        assert done.stdout.strip() == str([f"cmake>={cmake}", f"ninja>={ninja}"]), done.stderr
    answer = '#!/bin/sh\necho \'{"version": {"string": "%s"}}\'\n'
    for name, said in (("cmake", answer % "4.1.0"), ("ninja", "#!/bin/sh\necho 1.12.1\n")):
        (tmp_path / name).write_text(said)
        (tmp_path / name).chmod(0o755)
    assert ready.hook(checkout, call, **none).stdout.strip() == "[]"
    (tmp_path / "cmake").write_text(answer % "3.20.0")
    assert ready.hook(checkout, call, **none).stdout.strip() == str([f"cmake>={cmake}"])
    # In Termux there are no wheels of them.
    android = f"__name__ and setattr(sys, 'getandroidapilevel', int) or _backend.{call}"
    assert ready.hook(checkout, android, **none).stdout.strip() == "[]"


@pytest.mark.slow
def test_what_is_missing_without_isolation_is_named(checkout: Path, tmp_path: Path) -> None:
    place = Place(make_venv(tmp_path / "venv"), {"PATH": os.defpath})
    done = place.hook(checkout, "build_wheel('.')")
    assert done.returncode == 3
    assert "scikit_build_core is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_alone_says_what_belongs_beside_it(ready: Place, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "native", tmp_path / "native", ignore=shutil.ignore_patterns("build", "src"))
    done = ready.hook(tmp_path, "build_wheel('.')")
    assert done.returncode == 3
    assert "floatllm_build beside native/" in done.stderr


# ---- editable -------------------------------------------------------------------------------------


@pytest.mark.build
def test_editable_modules_are_live_and_all_goes_again(
    engine_env: Environment, ready: Place, tmp_path: Path
) -> None:
    checkout = copied(tmp_path / "edited")
    before, empty = contents(checkout), set(ready.site.iterdir())
    done = ready.pip("install", "-v", "--no-index", "--no-build-isolation", "-e", checkout / "native")
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(checkout) == before
    assert ready.computes()
    where = ready.run("-c", "import floatllm, floatllm._lib as l; print(floatllm.__file__, l.library_path())")
    package, library = where.stdout.split()
    assert Path(package) == checkout / "native" / "floatllm" / "__init__.py"
    assert Path(library).parent == ready.site / "floatllm"
    assert (ready.site / "floatllm" / "manifest.json").is_file()
    there = engine_env.tool("detect", "--python", ready.python, "--json")
    assert json.loads(there.stdout)["engine"]["current"] is True, there.stdout + there.stderr
    done = engine_env.tool("install", "--python", ready.python)
    assert "is there already; nothing to do" in done.stderr, done.stderr
    with (checkout / "native" / "floatllm" / "sizes.py").open("a") as file:
        file.write("\nEDITED = 7\n")
    assert ready.run("-c", "import floatllm.sizes as s; print(s.EDITED)").stdout.strip() == "7"
    programs = ready.python.parent / "floatllm"
    assert programs.is_file()
    assert ready.pip("uninstall", "-y", "floatllm").returncode == 0
    assert set(ready.site.iterdir()) == empty
    assert not programs.exists()


@pytest.mark.slow
def test_a_checkout_takes_no_library_of_another_installation(tmp_path: Path) -> None:
    """Nor one from the current folder: an editable one has no modules in its environment."""
    place = Place(make_venv(tmp_path / "venv"), {"PATH": os.defpath})
    code = "import floatllm._lib as l; print(l.library_path())"
    beside = str(ROOT / "native" / "floatllm")

    def found() -> str:
        done = place.run("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT / "native"))
        return str(Path(done.stdout.strip()).parent)

    name = Path(place.run("-c", code, PYTHONPATH=str(ROOT / "native")).stdout.strip()).name
    if (ROOT / "native" / "floatllm" / name).exists():
        pytest.skip("the checkout has a library of its own")
    for folder in (tmp_path / "floatllm", place.site / "floatllm"):
        folder.mkdir()
        (folder / name).touch()
    (place.site / "floatllm" / "__init__.py").touch()
    assert found() == beside
    (place.site / "floatllm" / "__init__.py").unlink()
    assert found() == str(place.site / "floatllm")


# ---- the source archive ---------------------------------------------------------------------------


def _unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """As an installer does; Python has filters for that from 3.10.12 and 3.11.4 on."""
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
    else:
        tar.extractall(folder)  # noqa: S202  (it is ours)


def test_what_needs_the_command_lines_packages_is_not_carried() -> None:
    # An installed tool has the engine's sources too, in a folder of their own.
    rooms = {path.name for path in (ROOT / "floatllm_build").iterdir()} | {"data"}
    assert rooms >= _NOT_CARRIED
    carried = _own_modules()
    assert {name.split("/")[1] for name in carried} == rooms - _NOT_CARRIED - {"__pycache__"}
    text = b"\n".join(carried.values()).decode()
    assert not re.findall(r"^\s*(?:import|from) (?:rich|typer)\b", text, re.MULTILINE)


@pytest.mark.build
def test_the_archive_has_the_repositorys_shape(archive: Path, checkout: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        _unpack(tar, tmp_path)
    assert all(member.isreg() and member.name.startswith(f"{NAME}/") for member in members)
    names = {member.name.partition("/")[2] for member in members}
    assert len(names) == len(members)
    tool = {path.relative_to(ROOT).as_posix() for path in (ROOT / "floatllm_build").rglob("*.py")}
    shown = {name for name in tool if {"cli", "render", "__main__.py"} & {*name.split("/")}}
    assert {name for name in names if name.startswith("floatllm_build/")} == {
        *(tool - shown),
        "floatllm_build/py.typed",
    }
    rest = {name for name in names if not name.startswith(("floatllm_build/", "ggml/source/"))}
    assert rest == {*read_sources(checkout), "pyproject.toml", "PKG-INFO"}
    assert {"native/_backend.py", "native/src/c_api.cpp", "presets/base.json", "LICENSE"} <= rest
    source = tmp_path / NAME / "ggml" / "source"
    pin = read_pin(ROOT)
    assert hash_folder(pin, source) == pin.tree_sha256
    assert {path.name for path in source.iterdir()} == {
        "CMakeLists.txt",
        "LICENSE",
        "ggml",
        "include",
        "src",
    }


@pytest.mark.build
def test_the_archive_says_what_it_is(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        text = {name: tar.extractfile(f"{NAME}/{name}") for name in ("PKG-INFO", "pyproject.toml")}
        metadata, project = (file.read().decode() for file in text.values() if file)
    head, _, description = metadata.partition("\n\n")
    assert {"Name: floatllm", "Version: 0.1.0", "License-Expression: MIT"} <= set(head.splitlines())
    # An installer must not take what it requires from here: that depends on the machine.
    assert "Dynamic: Requires-Dist" in head.splitlines()
    assert description.strip() == (ROOT / "native" / "README.md").read_text().strip()
    assert 'backend-path = ["native"]' in project
    assert "[tool" not in project


@pytest.mark.build
def test_the_same_content_makes_the_same_bytes(ready: Place, archive: Path, tmp_path: Path) -> None:
    """Whoever packs it, when and where: another folder, other times and rights, another order."""
    other = copied(tmp_path / "other")
    for path in sorted(other.rglob("*"), reverse=True):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    for epoch in ("", "1700000000"):
        out = tmp_path / f"out{epoch}"
        done = ready.hook(other, f"build_sdist({str(out)!r})", SOURCE_DATE_EPOCH=epoch)
        assert done.returncode == 0, done.stderr
    plain, dated = (tmp_path / name / archive.name for name in ("out", "out1700000000"))
    assert plain.read_bytes() == archive.read_bytes()
    assert dated.read_bytes() != plain.read_bytes()
    with tarfile.open(dated) as tar:
        facts = {(member.mtime, member.mode, member.uid, member.gid, member.uname) for member in tar}
    assert facts == {(1700000000, 0o644, 0, 0, "")}
    assert gzip.decompress(dated.read_bytes()) != gzip.decompress(plain.read_bytes())


@pytest.mark.build
def test_the_archive_installs_without_a_network(
    engine_env: Environment, ready: Place, archive: Path, tmp_path: Path
) -> None:
    """Nor with ggml in the cache: it is in the archive. An installed tool of another version is not asked."""
    decoy = ready.site / "floatllm_build"
    decoy.mkdir()
    (decoy / "__init__.py").write_text("raise SystemExit('the wrong floatllm_build')\n")
    shutil.rmtree(engine_env.cache / "ggml")
    alone = ["unshare", "--map-root-user", "--net"]
    if not shutil.which(alone[0]) or subprocess.run([*alone, "true"], check=False).returncode != 0:
        alone = []  # then pip's word has to do
    pip = [ready.python, "-m", "pip", "install", "-v", "--no-index", "--no-cache-dir", "--no-build-isolation"]
    try:
        done = subprocess.run(
            [*alone, *pip, archive], env=ready.env, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert f"ggml     {read_pin(ROOT).what}, verified" in said
        assert "fetched" not in said
        assert ready.computes()
        manifest = json.loads((ready.site / "floatllm" / "manifest.json").read_text())
        assert manifest["ggml"]["pinned"] is True
    finally:
        shutil.rmtree(decoy)
        ready.pip("uninstall", "-y", "floatllm")


@pytest.mark.build
def test_a_changed_ggml_in_the_archive_is_refused(ready: Place, archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        _unpack(tar, tmp_path)
    with (tmp_path / NAME / "ggml" / "source" / "src" / "ggml.c").open("a") as file:
        file.write("// changed\n")
    done = ready.hook(tmp_path / NAME, f"build_wheel({str(tmp_path)!r})")
    assert done.returncode == 6
    assert "was changed" in done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_a_damaged_project_file_is_not_passed_over() -> None:
    with pytest.raises(MissingError, match=r"pyproject\.toml"):
        root_project((ROOT / "native" / "pyproject.toml").read_bytes().replace(b"backend-path", b"backend"))


@pytest.mark.parametrize("epoch", ["yesterday", "-1", "1.5", " 1", "٣", "4294967296", "9" * 5000])
def test_a_time_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageFaultError, match="SOURCE_DATE_EPOCH"):
        pack_sdist({}, tmp_path)


@pytest.mark.build
def test_the_tool_carries_what_its_staged_sources_name(engine_env: Environment) -> None:
    for name in ("native/_backend.py", "native/README.md", "native/pyproject.toml"):
        assert (engine_env.data / name).read_bytes() == (ROOT / name).read_bytes()
