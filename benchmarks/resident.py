"""A model with memory to spare: this engine beside llama.cpp at equal threads, in one run.

    python benchmarks/resident.py [--model MODEL.gguf] [--tokens 48] [--rounds 5]

Needs `floatllm`, `llama-cpp-python`, `gguf` and `numpy` in one environment; makes the model of
benchmarks/stream.py where there is none. Every round runs each engine once, in turn, in a fresh process, with
the file in the page cache. Prints JSON: tokens per second of a prompt of 512 tokens and of what follows it,
the medians and their ratios.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import stream

MEASURE = """
prompt = [5 + i % 100 for i in range(512)]
step(prompt)
clear()
began = time.perf_counter()
step(prompt)
read = time.perf_counter()
for _ in range(int(sys.argv[2])):
    step([9])
print(json.dumps({"prompt": 512 / (read - began), "decode": int(sys.argv[2]) / (time.perf_counter() - read)}))
"""
CODES = {
    "llama.cpp": stream.PEER.replace("n_ctx=256", "n_ctx=1024") + "clear = model.reset\n",
    "floatllm": stream.OURS.replace("ctx=256", "ctx=1024") + "clear = lambda: engine.truncate(0)\n",
}


def run(code: str, model: Path, tokens: int, env: Mapping[str, str] | None = None) -> dict[str, float]:
    """One engine, once."""
    command = [sys.executable, "-c", code + MEASURE, str(model), str(tokens)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def medians_of(rates: Mapping[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each engine's rounds."""
    return {
        name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in rates.items()
    }


def main() -> None:
    """Runs the rounds and prints the result."""
    asked = stream.parser(__doc__)
    asked.add_argument("--tokens", type=int, default=48)
    given = asked.parse_args()
    if not given.model.is_file():
        stream.make_model(given.model)
    import floatllm  # noqa: PLC0415
    import llama_cpp  # noqa: PLC0415

    with given.model.open("rb") as file:
        while file.read(1 << 24):
            pass
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in CODES}
    for _ in range(given.rounds):
        for name, code in CODES.items():
            rates[name].append(run(code, given.model, given.tokens))
            sys.stderr.write(f"{name}: {rates[name][-1]}\n")
    medians = medians_of(rates)
    document = {
        "model_bytes": given.model.stat().st_size,
        "versions": {"floatllm": asdict(floatllm.versions()), "llama-cpp-python": llama_cpp.__version__},
        "tokens_per_second": rates,
        "median": medians,
        "ratio": {
            key: round(value / medians["llama.cpp"][key], 3) for key, value in medians["floatllm"].items()
        },
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
