"""A floatllm-build that runs while a test looks on: its lines, its processes, the end of the last of them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from tool_environment import Environment, make_venv

from floatllm_build.wheel_file import parse_record, record_hash

# No test measures time; this ends one that hangs.
LIMIT = 600.0
# What Place.change() changes, and how a comment starts there.
_CHANGED = (("src/arch.cpp", "//"), ("floatllm/devices.py", "#"))


@dataclass
class Running:
    """One tool that was started, in a session of its own as a terminal gives one."""

    child: subprocess.Popen[bytes]
    errors: Path
    cache: Path

    @property
    def said(self) -> str:
        return self.errors.read_text(errors="replace")

    def wait_for(self, mark: str) -> bool:
        """Whether it said that; False where it ended without."""
        ends = time.monotonic() + LIMIT
        while mark not in self.said:
            if self.child.poll() is not None:
                return mark in self.said
            assert time.monotonic() < ends, self.said
            time.sleep(0.01)
        return True

    def sleep(self, seconds: float) -> bool:
        """Whether it still runs after that time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(seconds)
        return self.child.poll() is None

    def tree(self) -> dict[int, str]:
        """The tool and all processes below it: id -> name of the program."""
        parents, names = {}, {}
        for pid, name, parent in processes():
            parents[pid], names[pid] = parent, name
        found = [self.child.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return {pid: names[pid] for pid in found if pid in names}

    def signal_group(self, number: signal.Signals) -> None:
        """As a terminal does: to the foreground group, which has the tool and none of its sessions."""
        os.killpg(self.child.pid, number)

    def wait(self) -> int:
        return self.child.wait(LIMIT)

    def wait_for_all(self) -> None:
        """Until the last process that works in the cache has ended: each holds the lock."""
        with (self.cache / "lock").open("a") as file:
            ends = time.monotonic() + LIMIT
            while not _locked(file):
                assert time.monotonic() < ends, "a process still holds the lock"
                time.sleep(0.05)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def processes() -> Iterator[tuple[int, str, int]]:
    """(id, program, parent) of all that run here; no zombies."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            head, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
            state, parent = rest.split()[:2]
            if state != "Z":
                yield int(folder.name), head.partition("(")[2], int(parent)


def working_in(cache: Path) -> dict[int, str]:
    """Processes that have something of the cache in their command line, their folder or their open files."""
    found = {}
    for pid, name, _ in processes():
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            places = [*words, os.fsencode((folder / "cwd").readlink())]
            places += [os.fsencode(handle.readlink()) for handle in (folder / "fd").iterdir()]
            if pid != os.getpid() and any(os.fsencode(cache) in place for place in places):
                found[pid] = name
    return found


@contextlib.contextmanager
def started(env: Environment, errors: Path, *arguments: object, **variables: str) -> Iterator[Running]:
    """The tool, started; nothing of it is left when the block ends."""
    cache = Path(variables.get("FLOATLLM_CACHE_DIR", env.cache))
    with errors.open("wb") as file:
        child = subprocess.Popen(
            [env.python.parent / "floatllm-build", *map(str, arguments)],
            cwd=env.prefix,
            env={**env.env, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
            # Under nohup the tests ignore hang-ups, which children inherit: none could be tested.
            preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
        )
    try:
        yield Running(child, errors, cache)
    finally:
        child.kill()
        child.wait()
        for pid in working_in(cache):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def bare_programs(folder: Path) -> Path:
    """A new folder for PATH: GCC and what it needs, no cmake and no ninja."""
    folder.mkdir(parents=True)
    for name in ("gcc", "g++", "as", "ld", "ar", "ranlib", "strip", "sh"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


# The reference and the quantizers are most of a proof: unoptimised, they cost each install three seconds.
_QUICK = """#!/bin/sh
case "$*" in
*/ggml-quants.c* | */src/proof*) exec {real} "$@" -O2 -g0 ;;
esac
exec {real} "$@" -O0 -g0
"""


def write_quick_compilers(folder: Path) -> None:
    """Real compilers that take a third of the time, as `cc` and `c++`."""
    for name, real in (("cc", "gcc"), ("c++", "g++")):
        (folder / name).write_text(_QUICK.format(real=real))
        (folder / name).chmod(0o755)


def quick_compilers(folder: Path) -> dict[str, str]:
    """CC, CXX and PATH, with quick compilers."""
    programs = bare_programs(folder / "bin")
    write_quick_compilers(programs)
    return {"PATH": str(programs), "CC": str(programs / "cc"), "CXX": str(programs / "c++")}


def make_place(env: Environment, folder: Path) -> Place:
    (folder / "tmp").mkdir()
    variables = {
        **quick_compilers(folder),
        "FLOATLLM_CACHE_DIR": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
    }
    return Place(env, folder, make_venv(folder / "venv"), variables)


@dataclass
class Place:
    """Where the engine is built, with quick compilers and a cache of its own, and where it goes."""

    env: Environment
    folder: Path
    target: Path
    variables: dict[str, str]

    @property
    def cache(self) -> Path:
        return Path(self.variables["FLOATLLM_CACHE_DIR"])

    @property
    def site(self) -> Path:
        return next(self.target.parent.parent.glob("lib/python*/site-packages"))

    @property
    def arguments(self) -> tuple[object, ...]:
        return "install", "--python", self.target

    def engine(self) -> dict[str, str]:
        """Hash by path of every file of the installed engine."""
        files = [path for path in self.site.glob("floatllm*/**/*") if path.is_file()]
        files.append(self.target.parent / "floatllm")
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.suffix != ".pyc" and path.is_file()
        }

    def is_whole(self) -> bool:
        """Whether each file that RECORD lists is there as it says."""
        records = list(self.site.glob("floatllm-*.dist-info/RECORD"))
        if len(records) != 1:
            return False
        listed = {path: h for path, h in parse_record(records[0].read_text()).items() if h}
        return len(listed) > 10 and all(
            (self.site / path).is_file() and record_hash((self.site / path).read_bytes()) == h
            for path, h in listed.items()
        )

    def round_of_engine(self) -> str:
        """What `change` wrote last into the sources that are installed."""
        return (self.site / "floatllm" / "devices.py").read_text().rpartition("# ")[2].strip()

    def works(self) -> bool:
        command = [self.target, "-m", "floatllm", "devices"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode == 0 and "CPU" in done.stdout

    def tool(self, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        return self.env.tool(*arguments, **{**self.variables, **more})

    def install(self, **more: str) -> subprocess.CompletedProcess[str]:
        return self.tool(*self.arguments, **more)

    def started(self, **more: str) -> contextlib.AbstractContextManager[Running]:
        """An install that a test looks at."""
        return started(self.env, self.folder / "said", *self.arguments, **{**self.variables, **more})

    def change(self, mark: str) -> None:
        """Sources that were not built yet: one unit to compile, a wheel to pack and to prove."""
        for name, comment in _CHANGED:
            path = self.env.data / "native" / name
            text = path.read_text().partition(f"\n{comment} round")[0]
            path.write_text(f"{text}\n{comment} round {mark}\n")

    def heavy_objects(self) -> list[Path]:
        return list(self.cache.glob("build/*/out/**/ggml-cpu/**/*.o"))

    def spoil(self) -> None:
        """What is installed works, and is not whole: else nothing would be made anew."""
        (self.site / "floatllm" / "py.typed").write_text("spoiled")

    def delete(self, what: str) -> None:
        if what == "wheels":
            self.spoil()
        if what == "installed":
            (self.target.parent / "floatllm").unlink()
        elif what == "objects":
            for path in self.heavy_objects():
                path.unlink()
        else:
            shutil.rmtree(self.cache / what)
