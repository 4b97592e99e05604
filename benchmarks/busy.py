"""Engines beside a program that keeps one CPU busy, and with more threads than CPUs, in one run.

    python benchmarks/busy.py --model MODEL.gguf --library NAME=PATH [--library NAME=PATH ...]
        [--threads 1,2,3] [--tokens 64] [--rounds 5]

PATH: libfloatllm of a build, by another commit or other flags; PYTHONPATH has a `floatllm` that fits all.
Each round runs every engine once, in turn, alone and beside `yes`, at every number of threads. Prints JSON:
tokens per second of a prompt of 128 tokens and of what follows it, as medians, and as ratios to the fastest
that ran alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from itertools import product
from pathlib import Path

import resident

MEASURE = """
import json, sys, time
import floatllm
model = floatllm.Model.open(sys.argv[1])
with floatllm.Engine(model.plan(ctx=1024, threads=int(sys.argv[2]))) as engine:
    engine.forward(list(range(5, 133)))
    # Long enough for the engine to see what others do.
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        engine.forward([9])
    engine.truncate(0)
    began = time.perf_counter()
    engine.forward(list(range(5, 133)))
    read = time.perf_counter()
    # A way of waiting that burns the CPUs would take minutes.
    count = 0
    while count < int(sys.argv[3]) and time.perf_counter() < read + 10:
        engine.forward([9])
        count += 1
    print(json.dumps({"prompt": 128 / (read - began), "decode": count / (time.perf_counter() - read)}))
"""


def main() -> None:
    """Runs the rounds and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--library", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--threads", default="1,2,3")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    libraries = dict(pair.split("=", 1) for pair in given.library)
    rates: dict[str, list[dict[str, float]]] = {}
    for _, beside, threads, name in product(
        range(given.rounds), ("alone", "yes"), given.threads.split(","), libraries
    ):
        neighbour = subprocess.Popen(["yes"], stdout=subprocess.DEVNULL) if beside == "yes" else None
        command = [sys.executable, "-c", MEASURE, str(given.model), threads, str(given.tokens)]
        env = {**os.environ, "FLOATLLM_LIBRARY": libraries[name]}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
        if neighbour:
            neighbour.kill()
            neighbour.wait()
        rates.setdefault(f"{name}, {threads} threads, {beside}", []).append(json.loads(done.stdout))
    medians = resident.medians_of(rates)
    alone = [one for name, one in medians.items() if name.endswith("alone")]
    best = {key: max(one[key] for one in alone) for key in ("prompt", "decode")}
    ratios = {name: {key: round(one[key] / best[key], 3) for key in one} for name, one in medians.items()}
    result = {
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "model": given.model.name,
        "rounds": given.rounds,
        "tokens_per_second": medians,
        "of_the_fastest_alone": ratios,
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
