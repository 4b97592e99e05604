"""The portable wheel beside the engine that was built for this machine, in one run.

    python benchmarks/portable.py NATIVE.whl PORTABLE.whl [--model MODEL.gguf] [--tokens 48] [--rounds 7]

Needs `gguf` and `numpy` where the model of benchmarks/stream.py is not there yet. Every round runs each
engine once, in turn, in a fresh process, with the file in the page cache. Prints JSON: tokens per second of a
prompt of 512 tokens and of what follows it, the medians, and the ratio of the portable to the native one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import resident
import stream


def main() -> None:
    """Runs the rounds and prints the result."""
    asked = stream.parser(__doc__)
    asked.add_argument("native", type=Path)
    asked.add_argument("portable", type=Path)
    asked.add_argument("--tokens", type=int, default=48)
    given = asked.parse_args()
    if not given.model.is_file():
        stream.make_model(given.model)
    wheels = {"native": given.native, "portable": given.portable}
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in wheels}
    with tempfile.TemporaryDirectory() as scratch:
        for name, wheel in wheels.items():
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(scratch, name))
        for index in range(given.rounds + 1):
            for name in wheels:
                env = {**os.environ, "PYTHONPATH": str(Path(scratch, name))}
                code = resident.CODES["floatllm"]
                found = resident.run(code, given.model, given.tokens, env)
                sys.stderr.write(f"{name}: {found}\n")
                # The first brings the file into the page cache.
                if index:
                    rates[name].append(found)
        manifests = {
            name: json.loads(Path(scratch, name, "floatllm", "manifest.json").read_text()) for name in wheels
        }
    medians = resident.medians_of(rates)
    document = {
        "model_bytes": given.model.stat().st_size,
        "cpu": {name: manifest["cpu"] for name, manifest in manifests.items()},
        "tokens_per_second": rates,
        "median": medians,
        "ratio": {
            key: round(value / medians["native"][key], 3) for key, value in medians["portable"].items()
        },
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
