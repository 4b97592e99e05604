"""A build folder of a few units that take exactly the memory they are told to, and its build in a process of
its own, which can be put into a control group.

The "compiler" is a small C program: like gcc's driver it starts a child that does the work, and says so when
the child was killed. It reads the same file of flags as the real ones, and takes less memory by them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from floatllm_build.build.compile import Order, Outcome, compile_all
from floatllm_build.build.governor import spare
from floatllm_build.build.peaks import Cost, Costs, load_learned, save_learned
from floatllm_build.build_folder import Folder
from floatllm_build.errors import FloatllmBuildError
from floatllm_build.events import Event, Hint, UnitProgress
from floatllm_build.host.findings import Findings
from floatllm_build.host.memory import probe_memory
from floatllm_build.ninja import STATUS
from floatllm_build.sizes import MIB
from floatllm_build.system import LiveSystem

ROOT = Path(__file__).resolve().parents[2]
_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")

COMPILER = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* compiler MIB MILLISECONDS FLAGS -o OUTPUT [fail|stubborn|starves] */
int main(int count, char **word) {
    const char *kind = count > 6 ? word[6] : "";
    int stubborn = !strcmp(kind, "stubborn");
    if (stubborn) signal(SIGTERM, SIG_IGN);
    int child = fork();
    if (child == 0) {
        char flags[400] = "";
        FILE *file = fopen(word[3], "r");
        if (file) { fread(flags, 1, sizeof flags - 1, file); fclose(file); }
        double size = atof(word[1]) * 1048576;
        if (strstr(flags, "ggc-min")) size *= 0.6;
        if (strstr(flags, "-Os")) size *= 0.5;
        if (!strcmp(kind, "starves") && !strstr(flags, "-Os")) raise(SIGKILL);
        int pause = atoi(word[2]) * 500;
        char *memory = malloc((size_t)size + 1);
        for (int part = 0; part < 64; ++part) {
            memset(memory + (size_t)size / 64 * part, part + 1, (size_t)size / 64);
            usleep(pause / 64);
        }
        usleep(pause);
        return memory[0] != 1;
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {}
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        fprintf(stderr, "c++: fatal error: Killed signal terminated program cc1plus\n");
        return 1;
    }
    if (!strcmp(kind, "fail") || status) {
        fprintf(stderr, "a.cpp:1:2: error: no such thing\n");
        return 1;
    }
    FILE *made = fopen(word[5], "w");
    return !made || fclose(made);
}
"""


@dataclass(frozen=True)
class Unit:
    name: str
    mib: int
    milliseconds: int = 400
    kind: str = ""


def make_project(root: Path, units: Iterable[Unit]) -> Folder:
    """A build folder with these units, as if it had been configured."""
    folder = Folder(root)
    folder.native.mkdir(parents=True)
    folder.out.mkdir()
    compiler = root / "cc1plus"
    source = root / "compiler.c"
    source.write_text(COMPILER)
    subprocess.run(["cc", "-O1", "-w", "-o", compiler, source], check=True)
    text = (
        "rule cxx\n"
        f"  command = {compiler} $mib $milliseconds {folder.flags} -o $out $kind\n"
        "  description = Building CXX object $out\n"
    )
    for unit in units:
        text += f"build {unit.name}: cxx\n"
        text += f"  mib = {unit.mib}\n  milliseconds = {unit.milliseconds}\n  kind = {unit.kind}\n"
    (folder.out / "build.ninja").write_text(text)
    return folder


def ninja_from_wheel(requirement: str) -> str:
    from tool_environment import skip_or_fail
    from toolchains import keep

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--only-binary=:all:", "--target", str(folder), requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            skip_or_fail(f"{requirement} cannot be had, perhaps without a network: {done.stderr[-300:]}")

    # The name says the version: a newer wheel some day changes nothing here.
    return str(keep(f"ninja-{re.sub(r'[^0-9.]', '', requirement)}", make) / "bin" / "ninja")


@dataclass(frozen=True)
class Told:
    """What a build is given. Sizes in MiB."""

    root: str
    jobs: int
    ninja: str
    known: Mapping[str, float] = field(default_factory=dict)
    """What is believed of units, rightly or not; without any flag."""
    compiler: str = "clang"
    room: int | None = None
    """None: what is really there."""
    reserve: int = 12
    """Stays free, for what others take meanwhile."""
    low_mem: bool = False


def make_order(told: Told) -> Order:
    folder = Folder(Path(told.root))
    system = LiveSystem()
    from machines import PC

    def room(used: int) -> int:
        if told.room is not None:
            return told.room * MIB - used
        return spare(probe_memory(system, PC.os, Findings()), used, None, told.reserve * MIB)

    def kept(reclaiming: bool, size: bool) -> Path:
        return folder.root / f"costs-{reclaiming:d}{size:d}.json"

    def costs(reclaiming: bool, size: bool) -> Costs:
        factor = (0.6 if reclaiming else 1.0) * (0.5 if size else 1.0)
        believed = {unit: Cost(int(mib * MIB * factor), 0.0) for unit, mib in told.known.items()}
        learned = believed | load_learned(kept(reclaiming, size))
        return Costs(told.compiler, "size" if size else "speed", reclaiming, learned)

    def learn(reclaiming: bool, size: bool, seen: Mapping[str, Cost]) -> None:
        path = kept(reclaiming, size)
        save_learned(path, load_learned(path) | dict(seen))

    said = subprocess.run([told.ninja, "--version"], capture_output=True, text=True, check=True)
    return Order(
        folder=folder,
        ninja=told.ninja,
        ninja_version=said.stdout.strip(),
        env={**os.environ, "NINJA_STATUS": STATUS, "LC_ALL": "C"},
        jobs=told.jobs,
        blind_jobs=1,
        compiler=told.compiler,
        backend="cpu",
        low_mem=told.low_mem,
        costs=costs,
        learn=learn,
        room=room,
        reconfigure=lambda _more: None,
    )


def known(units: list[Unit]) -> dict[str, float]:
    return {unit.name: unit.mib + 1 for unit in units}


def build(told: Told) -> tuple[Outcome, list[Event]]:
    outcome, events = Outcome(), list[Event]()
    compile_all(make_order(told), events.append, outcome)
    return outcome, events


def main() -> None:
    """Builds as told by the first argument and prints what came of it, as JSON."""
    told = Told(**json.loads(sys.argv[1]))
    outcome, events = Outcome(), list[Event]()
    found: dict[str, Any] = {"error": "", "code": 0}
    try:
        compile_all(make_order(told), events.append, outcome)
    except FloatllmBuildError as error:
        found = {"error": str(error), "code": error.exit_code}
    except KeyboardInterrupt:
        found = {"error": "interrupted", "code": 130}
    found |= {
        "spans": [asdict(span) for span in outcome.spans],
        "peaks": outcome.peaks,
        "rung": asdict(outcome.rung),
        "hints": [event.text for event in events if isinstance(event, Hint)],
        "progress": [asdict(event) for event in events if isinstance(event, UnitProgress)],
        "threads": threading.active_count(),
    }
    sys.stdout.write(json.dumps(found))


# ---- control groups ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A control group with a hard limit and no swap. Sizes in MiB."""

    folder: Path
    v1: bool

    def limit(self, mib: int) -> None:
        if self.v1:
            # The limit with swap may never be the lower one, whichever way it goes.
            names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
            names = [name for name in names if (self.folder / name).exists()]
            now = int((self.folder / names[0]).read_text())
            for name in names if mib * MIB < now else reversed(names):
                (self.folder / name).write_text(str(mib * MIB))
            return
        (self.folder / "memory.max").write_text(str(mib * MIB))
        (self.folder / "memory.swap.max").write_text("0")

    def start(
        self, *argv: object, env: Mapping[str, str] | None = None, errors: IO[str] | None = None
    ) -> subprocess.Popen[str]:
        members = self.folder / ("tasks" if self.v1 else "cgroup.procs")
        entered = ["sh", "-c", f'echo $$ > "{members}" && exec "$@"', "sh", *map(str, argv)]
        here = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent)))}
        return subprocess.Popen(entered, env=env or here, stdout=subprocess.PIPE, stderr=errors, text=True)

    def build(self, told: Told) -> dict[str, Any]:
        """What came of the build inside the group."""
        process = self.start(*build_command(told))
        out, _ = process.communicate(timeout=600)
        return dict(json.loads(out))

    @property
    def kills(self) -> int:
        """Processes that the kernel ended here for want of memory."""
        name = "memory.oom_control" if self.v1 else "memory.events"
        lines = (line.split() for line in (self.folder / name).read_text().splitlines())
        return next(int(words[1]) for words in lines if words[0] == "oom_kill")


def build_command(told: Told) -> tuple[str, ...]:
    return sys.executable, str(Path(__file__)), json.dumps(asdict(told))


@contextmanager
def memory_group(name: str) -> Iterator[Group]:
    """Raises OSError where none can be made."""
    v1 = _V1.is_dir()
    folder = (_V1 if v1 else _V2) / f"floatllm-{name}-{os.getpid()}"
    folder.mkdir()
    try:
        group = Group(folder, v1)
        group.limit(1024)
        yield group
    finally:
        for _ in range(50):
            try:
                folder.rmdir()
                break
            except OSError:
                threading.Event().wait(0.1)


def group_or_skip(name: str) -> Iterator[Group]:
    """For a fixture: a group of one's own, where one can be had."""
    from tool_environment import skip_or_fail

    try:
        with memory_group(name) as made:
            yield made
    except OSError as error:
        skip_or_fail(f"needs a control group that may limit memory: {error}")


if __name__ == "__main__":
    main()
