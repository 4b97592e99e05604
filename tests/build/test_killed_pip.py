"""Pip is killed half-way in the target environment, at each of the steps that it takes there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_wheels import small_wheel
from tool_environment import make_venv

from floatllm_build.files import remove_folder
from floatllm_build.host.python import probe_target
from floatllm_build.install import clear_remains, holds, install
from floatllm_build.pip import install_command
from floatllm_build.system import LiveSystem
from floatllm_build.values import Target, Wheel

pytestmark = pytest.mark.slow

# Kills the pip that it is loaded into at its n-th step in an engine's files, once: the file then is gone.
_DIES = """
import os, pathlib, signal, sys
_file = pathlib.Path(os.environ.get("DIES_AT", "none"))
if _file.is_file():
    _left = int(_file.read_text())
    def _hook(event, arguments):
        global _left
        if event not in {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}:
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        if any(isinstance(path, str) and "loatllm" in path and "site-packages" in path for path in arguments):
            _left -= 1
            if not _left:
                os.remove(_file)
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(_hook)
    import atexit
    atexit.register(lambda: _file.write_text(str(_left)))
"""
_MANY = 10_000
# How far pip has come when it is killed.
SHARES = [0, 1, 0.4, *(pytest.param(share, marks=pytest.mark.ci) for share in (0.2, 0.6, 0.8))]


class Place:
    """An environment whose pip can be told when to die, with an engine in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, make_venv(folder / "venv")
        self.dies = folder / "dies"
        self.site = next((folder / "venv").glob("lib/python*/site-packages"))
        # Debian's Python has a sitecustomize of its own, which comes first.
        (self.site / "dies_at.py").write_text(_DIES)
        (self.site / "dies_at.pth").write_text("import dies_at\n")
        self.wheels = []
        for name in ("former", "new"):
            (folder / name).mkdir()
            self.wheels.append(small_wheel(folder / name, said=name))
        self.system = LiveSystem()

    @property
    def target(self) -> Target:
        return probe_target(self.system, str(self.python))

    def put(self, wheel: Wheel) -> None:
        install(self.system, self.target, wheel, self.folder)

    def pip(self, wheel: Wheel) -> int:
        call = install_command(self.system, self.target, Path(wheel.path), self.folder)
        return subprocess.run(call.argv, env=call.env, capture_output=True, check=False).returncode

    def says(self) -> str:
        done = subprocess.run([self.python.parent / "floatllm"], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def die_at(self, step: int) -> None:
        self.dies.write_text(str(step))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("pip"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIES_AT", str(place.dies))
        yield place


@pytest.fixture(scope="module")
def steps(place: Place) -> int:
    """How many steps pip takes when it replaces the one by the other."""
    former, new = place.wheels
    place.put(former)
    place.die_at(_MANY)
    place.put(new)
    return _MANY - int(place.dies.read_text())


@pytest.mark.parametrize("share", SHARES)
def test_a_killed_pip_is_started_again(place: Place, steps: int, share: float) -> None:
    former, new = place.wheels
    assert steps > 10
    place.put(former)
    place.die_at(1 + round(share * (steps - 1)))
    place.put(new)
    assert not place.dies.exists(), "pip was not killed"
    assert holds(place.target, new)
    assert place.says() == "new"
    assert list(place.site.glob("~*")) == []


@pytest.mark.parametrize("share", SHARES)
def test_where_the_tool_is_gone_too_the_next_install_repairs(place: Place, steps: int, share: float) -> None:
    former, new = place.wheels
    place.put(former)
    place.die_at(1 + round(share * (steps - 1)))
    assert place.pip(new) == -9
    clear_remains(place.target)
    # One of the two can be used; its program comes with the next install, for pip hid the former one.
    words = [place.python, "-c", "import floatllm; floatllm.main()"]
    assert subprocess.check_output(words, text=True).strip() in {"former", "new"}
    assert len(list(place.site.glob("floatllm-*.dist-info/RECORD"))) == 1
    place.put(new)
    assert holds(place.target, new)
    assert place.says() == "new"
    assert list(place.site.glob("~*")) == []


def test_half_of_a_first_engine_is_cleared_away(place: Place, steps: int) -> None:
    _, new = place.wheels
    place.put(new)
    (place.site / "floatllm-0.1.0.dist-info" / "RECORD").unlink()
    (place.site / "floatllm" / "plugin.so").write_text("of another engine")
    assert place.pip(new) != 0, "an installer that mends this itself needs no help"
    place.put(new)
    assert holds(place.target, new)
    assert not (place.site / "floatllm" / "plugin.so").exists()


def test_a_whole_engine_is_let_be(place: Place, steps: int) -> None:
    former, _ = place.wheels
    place.put(former)
    mine = place.site / "floatllm" / "mine.txt"
    mine.write_text("of a user")
    clear_remains(place.target)
    assert holds(place.target, former)
    assert mine.exists()


def test_what_pip_moved_aside_of_this_tool_is_let_be(place: Place, steps: int) -> None:
    former, _ = place.wheels
    place.put(former)
    theirs = [place.site / "~loatllm_build", place.site / "~loatllm_build-0.1.0.dist-info"]
    for folder in theirs:
        folder.mkdir()
        (folder / "file").touch()
    try:
        clear_remains(place.target)
        assert all((folder / "file").exists() for folder in theirs)
        assert holds(place.target, former)
    finally:
        for folder in theirs:
            remove_folder(folder)
