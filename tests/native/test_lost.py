"""A file that shrinks, or whose disk fails, while it is read is an error with exit code 8, never a signal."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import arch_files
import pytest
from floatllm import Engine, EngineError, Model
from installed import Installed
from tool_environment import skip_or_fail

fcntl = pytest.importorskip("fcntl")
MIB = 1 << 20
IO = ["mmap", "direct"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be cut there")

# Cuts the file in the middle of a pass, then goes on, twice.
_CUT = """
import json, os, sys
from floatllm import Engine, EngineError, Model
path, io, mode, bound, size = sys.argv[1:]
said = []
def cut(event):
    if event.chunk == 1 or event.chunks == 1:
        os.truncate(path, int(size))
def work(engine):
    engine.map() if mode == "map" else engine.forward([1, 2, 3])
with Model.open(path) as model:
    plan = model.plan(device="CPU", mode=mode, io=io, threads=1, **json.loads(bound))
    with Engine(plan) as engine:
        work(engine)
        for listener in (cut, None, None):
            engine.on_event(listener)
            try:
                work(engine)
                said.append("")
            except EngineError as error:
                said.append(str(error))
print(json.dumps(said))
"""


@pytest.fixture
def model(tmp_path: Path, smollm: Path) -> Path:
    return Path(shutil.copyfile(smollm, tmp_path / "model.gguf"))


@pytest.mark.parametrize("io", IO)
@pytest.mark.parametrize("mode", ["map", "run"])
@pytest.mark.parametrize("bound", ['{"chunk": "1M"}', '{"chunk": "4M"}', '{"memory": "64M"}'])
@pytest.mark.parametrize("size", [40 * MIB, 40 * MIB + 1000, 0])
def test_a_file_cut_in_the_middle_of_a_pass(
    engine: Installed, model: Path, io: str, mode: str, bound: str, size: int
) -> None:
    said = engine.script(_CUT, model, io, mode, bound, size)
    assert all("became shorter" in each and str(model) in each for each in said), said


@pytest.mark.parametrize("io", IO)
def test_a_file_cut_while_all_of_it_is_held(engine: Installed, model: Path, io: str) -> None:
    # A window of the whole file is lost with it; memory of the engine's own is not, and only embedding rows
    # beyond the cut are read again.
    said = engine.script(_CUT, model, io, "run", "{}", 40 * MIB + 1000)
    # The file is cut after the first pass, which is one chunk.
    assert said[0] == ""
    if io == "direct":
        assert said[1:] == ["", ""]
    else:
        assert all("became shorter" in each for each in said[1:]), said


@pytest.mark.parametrize("io", IO)
@pytest.mark.parametrize("command", [("map", "-v"), ("run", "-v", "-p", "one two", "-n", "40")])
def test_the_command_ends_with_8(
    engine: Installed, model: Path, tmp_path: Path, io: str, command: tuple[str, ...]
) -> None:
    # Nobody reads on after the first bytes, so the command waits until the file is cut: one page is less than
    # it says.
    child = subprocess.Popen(
        engine.command(command[0], model, *command[1:], "--io", io, "--chunk", "256K", "--threads", "1"),
        env=engine.env,
        stdout=subprocess.PIPE if command[0] == "map" else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    stream = child.stdout if command[0] == "map" else child.stderr
    assert stream is not None
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 4096)
    os.read(stream.fileno(), 1)
    os.truncate(model, 10 * MIB)
    out, error = child.communicate(timeout=300)
    assert child.returncode == 8, error
    assert b"became shorter" in error
    assert b"Traceback" not in error
    assert out is None or b"successfully" not in out


@pytest.mark.parametrize("io", IO)
def test_a_part_that_was_cut_is_the_one_named(
    engine: Installed, made: Callable[..., Path], io: str, tmp_path: Path
) -> None:
    first = arch_files.split(tmp_path, made(layers=4, embed=256, feed=512), 10)
    second = sorted(tmp_path.glob("*.gguf"))[1]
    with (
        Model.open(first) as opened,
        Engine(opened.plan(device="CPU", mode="map", io=io, chunk="100K", threads=1)) as session,
    ):
        session.map()
        os.truncate(second, second.stat().st_size // 2)
        with pytest.raises(EngineError, match=second.name):
            session.map()


def test_windows_beyond_number_are_all_guarded(
    engine: Installed, made: Callable[..., Path], tmp_path: Path
) -> None:
    # Every engine holds the whole file in a window of its own.
    path = Path(shutil.copyfile(made(), tmp_path / "model.gguf"))
    said = engine.script(
        """
import json, os, sys
from floatllm import Engine, EngineError, Model
model = Model.open(sys.argv[1])
plan = model.plan("64M", "CPU", mode="map", io="mmap", threads=1)
engines = [Engine(plan) for _ in range(300)]
for engine in engines:
    engine.map()
os.truncate(sys.argv[1], 8192)
lost = 0
for engine in engines:
    try:
        engine.map()
    except EngineError as error:
        lost += "became shorter" in str(error)
print(json.dumps(lost))
""",
        path,
    )
    assert said == 300


_FOREIGN = """
import faulthandler, mmap, os, sys
from floatllm import Engine, Model
path, foreign, when = sys.argv[1:]
if when == "before":
    faulthandler.enable()
with Model.open(path) as model, Engine(model.plan("48M", "CPU", io="mmap", threads=1)) as engine:
    engine.forward([1])
    if when == "after":
        faulthandler.enable()
    engine.forward([2])
    with open(foreign, "r+b") as file:
        window = mmap.mmap(file.fileno(), 0)
        os.truncate(foreign, 0)
        window[0]
"""


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_a_fault_of_others_is_theirs(engine: Installed, smollm: Path, tmp_path: Path, when: str) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(bytes(8192))
    done = subprocess.run(
        [engine.python, "-c", _FOREIGN, smollm, foreign, when],
        env=engine.env,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == -signal.SIGBUS, done.stderr
    assert (b"Fatal Python error: Bus error" in done.stderr) == (when != "never")


class Disk:
    """A file system of its own on a loop device, whose end can be taken away: reads there fail for real."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mounted = folder / "image", folder / "mounted"
        self.mounted.mkdir()
        self.size = 160 * MIB
        with self.image.open("wb") as file:
            file.truncate(self.size)
        self._do("mkfs.ext4", "-q", "-F", self.image)

    def mount(self) -> None:
        self._do("mount", "-o", "loop", self.image, self.mounted)

    def seal(self) -> None:
        """Nothing is to be written any more."""
        self._do("mount", "-o", "remount,ro", self.mounted)

    def unmount(self) -> None:
        # Lazily: what a test left open must not keep the rest from being cleaned.
        self._do("umount", "-l", self.mounted)

    def lose_the_end(self, model: Path) -> None:
        """Everything from 60 MiB on, and what the system remembers of the model."""
        os.truncate(self.image, 60 * MIB)
        with model.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _do(self, *command: object) -> None:
        rooted = [] if os.geteuid() == 0 else ["sudo", "-n"]
        done = subprocess.run([*rooted, *map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            skip_or_fail(f"needs a loop device and the right to mount it: {done.stderr.strip()[-300:]}")


@pytest.fixture
def failing(tmp_path: Path, smollm: Path) -> Iterator[tuple[Disk, Path]]:
    if sys.platform != "linux":
        pytest.skip("loop devices are Linux's")
    disk = Disk(tmp_path)
    disk.mount()
    if os.geteuid() != 0:
        disk._do("chown", os.getuid(), disk.mounted)
    model = Path(shutil.copyfile(smollm, disk.mounted / "model.gguf"))
    disk.seal()
    try:
        yield disk, model
    finally:
        disk.unmount()


@pytest.mark.parametrize("io", IO)
def test_a_disk_that_fails_is_an_error(engine: Installed, failing: tuple[Disk, Path], io: str) -> None:
    disk, path = failing
    with (
        Model.open(path) as model,
        Engine(model.plan("48M", "CPU", io=io, ctx=256, threads=1)) as session,
    ):
        session.forward([1])
        disk.lose_the_end(path)
        for _ in range(2):
            with pytest.raises(EngineError, match="Input/output error") as failed:
                session.forward([2])
            assert str(path) in str(failed.value)
    done = engine.run("map", path, "--io", io, "--memory", "48M")
    assert done.returncode == 8, done.stderr
    assert "Input/output error" in done.stderr
