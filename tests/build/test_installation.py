"""A wheel goes into a real environment and is looked for there: whole, damaged, with its program gone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from machines import VENV
from small_wheels import small_wheel
from tool_environment import make_venv

from floatllm_build.errors import InstallFailedError, MissingError
from floatllm_build.host.python import probe_target
from floatllm_build.install import holds, install
from floatllm_build.system import LiveSystem
from floatllm_build.values import Proof, Target, Wheel
from floatllm_build.wheel import find_cached, keep, take_cached
from floatllm_build.wheel_file import console_scripts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return small_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("target") / "venv")


def put(python: Path, wheel: Wheel, cache: Path) -> Target:
    system = LiveSystem()
    target = probe_target(system, str(python))
    install(system, target, wheel, cache)
    return probe_target(system, str(python))


def test_the_program_belongs_to_the_wheel(wheel: Wheel) -> None:
    assert console_scripts(Path(wheel.path)) == ("floatllm",)


def test_what_was_installed_is_found_whole(python: Path, wheel: Wheel, tmp_path: Path) -> None:
    assert holds(put(python, wheel, tmp_path), wheel)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_program_that_is_gone_or_changed_is_brought_back(
    python: Path, wheel: Wheel, tmp_path: Path, damage: str
) -> None:
    target = put(python, wheel, tmp_path)
    program = python.parent / "floatllm"
    if damage == "gone":
        program.unlink()
    else:
        program.write_text("nothing")
    assert not holds(target, wheel)
    assert holds(put(python, wheel, tmp_path), wheel)
    assert "main" in program.read_text()


def test_a_record_without_a_hash_of_the_program_will_do(python: Path, wheel: Wheel, tmp_path: Path) -> None:
    target = put(python, wheel, tmp_path)
    record = Path(target.installed) / "RECORD"
    lines = record.read_text().splitlines()
    bare = [f"{line.split(',')[0]},," if line.startswith("..") else line for line in lines]
    assert bare != lines
    record.write_text("".join(f"{line}\n" for line in bare))
    assert holds(target, wheel)
    record.unlink()
    assert not holds(target, wheel)


def test_an_installer_that_fails_is_exit_4_with_the_command(python: Path, tmp_path: Path) -> None:
    broken = tmp_path / "floatllm-0.1.0-py3-none-any.whl"
    broken.write_text("no wheel")
    with pytest.raises(InstallFailedError, match="could not be installed") as caught:
        put(python, Wheel(path=str(broken), key="k", reused=False), tmp_path)
    assert caught.value.exit_code == 4
    assert str(caught.value).endswith(f"--no-deps --force-reinstall --no-index {broken}")


def test_an_installer_that_is_not_there_is_exit_3(wheel: Wheel, tmp_path: Path) -> None:
    target = replace(VENV, executable=str(tmp_path / "python"))
    with pytest.raises(MissingError, match="cannot be started"):
        install(LiveSystem(), target, wheel, tmp_path)


def test_a_kept_wheel_that_was_cut_off_is_not_used_again(wheel: Wheel, tmp_path: Path) -> None:
    kept = keep(tmp_path, wheel, Proof(device="CPU", lines=(), report={}), whole=True)
    assert find_cached(tmp_path, "k") == replace(kept, reused=True)
    path = Path(kept.path)
    path.write_bytes(path.read_bytes()[:-40])
    assert find_cached(tmp_path, "k") is None


def test_of_many_kept_wheels_those_in_use_stay(wheel: Wheel, tmp_path: Path) -> None:
    """A plugin's may be built long after the engine's, beside which it is proven and handed over."""
    proof = Proof(device="CPU", lines=(), report={})
    for number in range(10):
        keep(tmp_path, replace(wheel, key=f"k{number}"), proof, whole=True)
        assert take_cached(tmp_path, "k0")
    assert find_cached(tmp_path, "k1") is None


def test_looking_for_a_kept_wheel_writes_nothing(wheel: Wheel, tmp_path: Path) -> None:
    """`detect` looks without the cache's lock."""
    kept = keep(tmp_path, wheel, Proof(device="CPU", lines=(), report={}), whole=True)
    folder = Path(kept.path).parent
    os.utime(folder, (1000, 1000))
    assert find_cached(tmp_path, "k")
    assert folder.stat().st_mtime == 1000
    assert take_cached(tmp_path, "k")
    assert folder.stat().st_mtime > 1000
