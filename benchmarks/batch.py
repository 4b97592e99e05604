"""Many sequences through one pass over the weights, beside one sequence, under the same hard limit.

    python benchmarks/batch.py [--limit 700] [--sequences 32] [--passes 12] [--rounds 3] [--read-ahead 128]

Needs root, a writable cgroup, and `floatllm`, `gguf` and `numpy` in one environment; the model is that of
benchmarks/stream.py. Every round runs each once, in turn, in a fresh process inside the limit, with the page
cache dropped before. The pass that reads the prompts is not counted, for either. Prints JSON: tokens per
second of each round, the medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import stream

HEAD = """
import json, sys, time, floatllm
from floatllm import batch
from floatllm.prompts import Prompt
passes, sequences = int(sys.argv[2]), int(sys.argv[3])
model = floatllm.Model.open(sys.argv[1])
def done(rate):
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps({"rate": rate, "peak": peak}))
"""
ONE = """
engine = floatllm.Engine(model.plan(ctx=256, device="CPU", threads=2))
tokens = engine.generate([5, 6, 7, 8], passes + 1, ignore_end=True)
next(tokens)
began = time.perf_counter()
count = sum(1 for _ in tokens)
done(count / (time.perf_counter() - began))
"""
MANY = """
plan = model.plan(ctx=256, device="CPU", threads=2, sequences=sequences, uniform=True)
rows = [Prompt(i, (5, 6, 7, 8 + i), passes + 1) for i in range(sequences)]
given = []
with floatllm.Engine(plan) as engine:
    on_pass = lambda tokens: given.append((time.perf_counter(), tokens))
    assert sum(1 for _ in batch.generate(engine, enumerate(rows), frozenset(), on_pass)) == sequences
began, ended = given[0][0], given[-1][0]
done(sum(tokens for _, tokens in given[1:]) / (ended - began))
"""


def run(code: str, arguments: list[object], members: Path) -> dict[str, Any]:
    """One measurement in a fresh process, inside the limit and with a cold cache."""
    done = stream.inside([sys.executable, "-c", code, *map(str, arguments)], members)
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        return {"rate": 0.0, "failed": done.returncode}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def rounds(codes: dict[str, str], arguments: list[object], given: argparse.Namespace) -> dict[str, Any]:
    """Runs each of `codes` in turn, so many times; the rates, their medians, and what they were taken on."""
    if not given.model.is_file():
        stream.make_model(given.model)
    import floatllm  # noqa: PLC0415

    rates: dict[str, list[float]] = {name: [] for name in codes}
    with stream.limited(given.limit, given.read_ahead) as members:
        for _ in range(given.rounds):
            for name, code in codes.items():
                result = run(code, [given.model, *arguments], members)
                rates[name].append(result["rate"])
                sys.stderr.write(f"{name}: {result}\n")
    return {
        "model_bytes": given.model.stat().st_size,
        "limit_mib": given.limit,
        "read_ahead_kib": given.read_ahead or {d.parts[3]: int(d.read_text()) for d in stream.disks()},
        "versions": asdict(floatllm.versions()),
        "tokens_per_second": {name: [round(v, 3) for v in all_] for name, all_ in rates.items()},
        "median": {name: round(statistics.median(all_), 3) for name, all_ in rates.items()},
    }


def main() -> None:
    """Runs the rounds and prints the result."""
    parser = stream.parser(__doc__)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--passes", type=int, default=12)
    given = parser.parse_args()
    codes = {"one sequence": HEAD + ONE, "batch": HEAD + MANY}
    found = rounds(codes, [given.passes, given.sequences], given)
    one, many = found["median"].values()
    found |= {"sequences": given.sequences, "ratio": round(many / one, 2) if one else None}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
