"""How long a machine takes to be known: `floatllm-build detect --json` beside `node-llama-cpp inspect gpu`.

    pip install . && npm install --prefix FOLDER node-llama-cpp@3.22
    python benchmarks/detect.py --peer FOLDER/node_modules/.bin/node-llama-cpp [--rounds 7] > result.json

Linux only. Needs a C compiler, both programs, and root for a really cold start. Without --peer, the peer is
looked for on PATH and in ./node_modules, then through `npx`, whose own start then counts. Both programs run
in turn, and the one that goes first changes each round. Situations:

- cold: the page cache is dropped before each run (as root; else these are just the first runs);
- warm: nothing is changed;
- no_vulkan_driver: warm, with the Vulkan loader told of no driver;
- hanging_cuda: a libcuda.so.1 whose cuInit never returns stands first in LD_LIBRARY_PATH. A run is killed
  after --limit seconds; its time is then that limit.

Prints JSON. seconds: wall time. user_seconds, system_seconds: CPU time with all children that were waited
for. peak_mib: resident memory of the largest one process, not their sum. reached: the driver that hangs was
really called; where it was not, the time is no answer to a hang. left_behind: processes that still hung in it
when the program had ended. The two do not do the same: ours also looks for compilers and toolkits and makes
a plan; the peer also loads its binaries.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

OURS, PEER = "floatllm-build", "node-llama-cpp"
ASKS = {OURS: ["detect", "--json"], PEER: ["inspect", "gpu"]}
MEASURES = ("seconds", "user_seconds", "system_seconds", "peak_mib")
HANG_ROUNDS = 3
DROP_CACHES = Path("/proc/sys/vm/drop_caches")

HANGING = """
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuInit(unsigned flags) {
    (void)flags;
    const char *mark = getenv("FLOATLLM_BENCHMARK_REACHED");
    if (mark) close(open(mark, O_CREAT | O_WRONLY, 0600));
    for (;;) pause();
}
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One program, once. rc is None where it was killed at the limit."""

    seconds: float
    user_seconds: float
    system_seconds: float
    peak_mib: float
    rc: int | None
    out: str
    err: str


def run(command: list[str], variables: dict[str, str], limit: float) -> Run:
    """Output goes to files, because a child that is left behind would hold a pipe open."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, **variables},
            start_new_session=True,
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            with suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(limit, stop)
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        timer.cancel()
        # Popen did not do the waiting, so it has to be told.
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Run(
            seconds=seconds,
            user_seconds=usage.ru_utime,
            system_seconds=usage.ru_stime,
            peak_mib=usage.ru_maxrss / 1024,
            rc=None if late.is_set() else child.returncode,
            out=out.read().decode(errors="replace"),
            err=err.read().decode(errors="replace"),
        )


def must_answer(name: str, done: Run) -> None:
    """A program that fails quickly is not quick."""
    if done.rc != 0 or not done.out.strip():
        sys.exit(
            f"{name} gave no answer (exit {done.rc}), so there is nothing to measure. It said:\n"
            f"{done.err[-2000:]}\nTry the command by itself: {name} {shlex.join(ASKS[name])}"
        )
    if name == OURS:
        json.loads(done.out)


def drop_cache() -> bool:
    try:
        os.sync()
        DROP_CACHES.write_text("3")
    except OSError:
        return False
    return True


def rounds(
    programs: dict[str, list[str]], count: int, variables: dict[str, str], limit: float, *, cold: bool = False
) -> dict[str, list[Run]]:
    """`count` runs of each, in turn; who goes first changes."""
    done: dict[str, list[Run]] = {name: [] for name in programs}
    for number in range(count):
        for name in sorted(programs, reverse=number % 2 == 1):
            if cold:
                drop_cache()
            one = run(programs[name] + ASKS[name], variables, limit)
            must_answer(name, one)
            done[name].append(one)
            sys.stderr.write(f"{name}: {one.seconds:.3f} s, {one.peak_mib:.0f} MiB\n")
    return done


def summary(done: dict[str, list[Run]]) -> dict[str, Any]:
    """Every figure, its minimum and median, and how many times ours the peer's median is."""
    result: dict[str, Any] = {}
    for name, runs in done.items():
        result[name] = {}
        for measure in MEASURES:
            values = [round(getattr(one, measure), 3) for one in runs]
            middle = round(statistics.median(values), 3)
            result[name][measure] = {"min": min(values), "median": middle, "all": values}
    result["peer_to_ours"] = {
        f"{measure}_{kind}": round(result[PEER][measure][kind] / result[OURS][measure][kind], 2)
        for measure in ("seconds", "user_seconds", "peak_mib")
        for kind in ("min", "median")
        if result[OURS][measure][kind]
    }
    return result


def hanging_driver(folder: Path) -> None:
    source = folder / "hanging.c"
    source.write_text(HANGING)
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so.1", source.name]
    subprocess.run(command, cwd=folder, check=True)


def stop_those_in(library: Path) -> int:
    """Ends the processes that have this scratch library mapped, and says how many there were."""
    found = 0
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if str(library) in maps.read_text(errors="replace"):
                found += 1
                os.kill(int(maps.parts[2]), signal.SIGKILL)
    return found


def hang(programs: dict[str, list[str]], count: int, limit: float) -> dict[str, Any]:
    result: dict[str, Any] = {"limit": limit} | {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        hanging_driver(folder)
        mark = folder / "reached"
        known = os.environ.get("LD_LIBRARY_PATH")
        variables = {
            "LD_LIBRARY_PATH": f"{folder}:{known}" if known else str(folder),
            "FLOATLLM_BENCHMARK_REACHED": str(mark),
        }
        for _ in range(count):
            for program, command in programs.items():
                mark.unlink(missing_ok=True)
                done = run(command + ASKS[program], variables, limit)
                one = {measure: round(getattr(done, measure), 3) for measure in MEASURES}
                one |= {"rc": done.rc, "reached": mark.exists()}
                one["left_behind"] = stop_those_in(folder / "libcuda.so.1")
                if program == OURS and done.rc == 0:
                    notes = json.loads(done.out)["notes"]
                    one["said"] = [note["said"] for note in notes if "libcuda" in note["source"]]
                elif program == PEER:
                    one["said"] = gpu_lines(done.out)
                result[program].append(one)
                sys.stderr.write(f"hanging driver, {program}: {one}\n")
    return result


def gpu_lines(out: str) -> list[str]:
    """What the peer says of GPUs, without the colours of a terminal."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    return [line.strip() for line in plain.splitlines() if re.match(r"\s*(CUDA|Vulkan|Metal)\b.*: ", line)]


def find_peer() -> list[str]:
    for path in (os.environ.get("PATH"), str(Path("node_modules/.bin").resolve())):
        if found := shutil.which(PEER, path=path):
            return [found]
    if npx := shutil.which("npx"):
        return [npx, "--no-install", PEER]
    sys.exit(
        f"{PEER} was not found, and there is nothing to measure beside. Install Node.js, then run\n"
        f"  npm install --prefix FOLDER {PEER}@3.22\nand name FOLDER/node_modules/.bin/{PEER} with --peer."
    )


def version(command: list[str]) -> str:
    asked = [*command, "--version"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
        said = done.stdout.split()[-1]
    except (OSError, IndexError, subprocess.SubprocessError) as error:
        sys.exit(
            f"`{shlex.join(asked)}` did not say its version ({error!r}). Is it installed? See --help for how,"
            " and name the program with --ours or --peer."
        )
    return said.removeprefix("v")


def machine() -> str:
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    cpu = model[1].strip() if model else platform.machine()
    cpus, gibibytes = len(os.sched_getaffinity(0)), pages * size / 2**30
    return f"{cpus} CPUs ({cpu}), {gibibytes:.0f} GiB; {platform.system()} {platform.machine()}"


def load() -> list[float]:
    """Programs that wanted a CPU, in the mean of the last 1, 5 and 15 minutes."""
    return [round(mean, 2) for mean in os.getloadavg()]


def found_here(answer: str) -> dict[str, list[str]]:
    host = json.loads(answer)
    return {kind: [device["name"] for device in host[kind]["devices"]] for kind in ("cuda", "vulkan")}


def main() -> None:
    """Runs the situations and prints the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ours", default=OURS, help="the command that starts floatllm-build")
    parser.add_argument("--peer", help="the command that starts node-llama-cpp")
    parser.add_argument("--rounds", type=int, default=7, help="of the warm situations")
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds until a run is killed")
    options = parser.parse_args()
    programs = {
        OURS: shlex.split(options.ours),
        PEER: shlex.split(options.peer) if options.peer else find_peer(),
    }
    versions = {name: version(command) for name, command in programs.items()}
    versions["node"] = version(["node"])
    # Of the Python that the tool runs in, which need not be ours.
    first = run(programs[OURS] + ASKS[OURS], {}, options.limit)
    must_answer(OURS, first)
    versions["python"] = json.loads(first.out)["python"]["version"]

    before = load()
    dropped = drop_cache()
    cold = rounds(programs, options.cold_rounds, {}, options.limit, cold=True)
    warm = rounds(programs, options.rounds, {}, options.limit)
    # Two names for one thing: older loaders know only the first.
    nowhere = dict.fromkeys(("VK_ICD_FILENAMES", "VK_DRIVER_FILES"), os.devnull)
    without = rounds(programs, options.rounds, nowhere, options.limit)
    hung = hang(programs, HANG_ROUNDS, options.limit)
    result = {
        "date": datetime.now(tz=timezone.utc).date().isoformat(),
        "machine": machine(),
        "note": "Other work may run on the machine at the same time: the minimum says what a program needs,"
        " the median what its user waited.",
        "load_average": {"before": before, "after": load()},
        "command": shlex.join(["python", "benchmarks/detect.py", f"--rounds={options.rounds}"]),
        "commands": {name: " ".join((name, *asks)) for name, asks in ASKS.items()},
        "through_npx": "npx" in Path(programs[PEER][0]).name,
        "versions": versions,
        "devices": {
            OURS: found_here(warm[OURS][0].out),
            PEER: gpu_lines(warm[PEER][0].out),
        },
        "page_cache_dropped": dropped,
        "cold": summary(cold),
        "warm": summary(warm),
        "no_vulkan_driver": {
            "devices": {OURS: found_here(without[OURS][0].out), PEER: gpu_lines(without[PEER][0].out)},
            **summary(without),
        },
        "hanging_cuda": hung,
        "kept": {
            "no_driver_below_0.5_s": statistics.median(one.seconds for one in without[OURS]) < 0.5,
            "hanging_below_5_s": all(
                one["rc"] == 0 and one["reached"] and one["seconds"] < 5 for one in hung[OURS]
            ),
        },
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
