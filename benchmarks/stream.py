"""A model larger than memory: this engine beside llama.cpp under the same hard limit, in one run.

    python benchmarks/stream.py [--limit 700] [--read-ahead 128] [--tokens 12] [--rounds 3]

Needs root, a writable cgroup (v1 or v2), and `floatllm`, `llama-cpp-python`, `gguf` and `numpy` in one
environment. Makes a random llama model of 1.17 GB in Q8_0 (kept in the folder of --model for the next run).
Every round runs each engine once, in turn, in a fresh process inside the limit, with the page cache dropped
before. Prints JSON: tokens per second of each round, the medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """Of a llama model: `feed` is the width of its feed-forward layers."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed: int
    vocab: int


SHAPE = Shape(22, 2048, 32, 4, 5632, 32000)
PROMPT = [5, 6, 7, 8]

PEER = """
import json, sys, time
from llama_cpp import Llama
model = Llama(sys.argv[1], n_threads=2, n_ctx=256, verbose=False, flash_attn=True)
step = lambda tokens: model.eval(tokens)
"""
OURS = """
import json, sys, time, floatllm
plan = floatllm.Model.open(sys.argv[1]).plan(ctx=256, device="CPU", threads=2)
engine = floatllm.Engine(plan)
step = lambda tokens: engine.forward(tokens)
"""
MEASURE = """
step(json.loads(sys.argv[2]))
began = time.perf_counter()
for _ in range(int(sys.argv[3])):
    step([9])
print(json.dumps({"rate": int(sys.argv[3]) / (time.perf_counter() - began), "peak": next(
    int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))}))
"""


def make_model(path: Path, shape: Shape = SHAPE) -> None:
    """Random weights: speed does not depend on them."""
    import gguf  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_tokenizer_model("no_vocab")
    kind = gguf.GGMLQuantizationType.Q8_0

    def matrix(name: str, rows: int, columns: int) -> None:
        blocks = np.empty((rows, columns // 32, 34), np.uint8)
        blocks[..., 2:] = rng.integers(0, 256, (rows, columns // 32, 32), dtype=np.uint8)
        blocks[..., :2] = np.frombuffer(np.float16(2e-4).tobytes(), np.uint8)
        writer.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=kind)

    key = shape.width // shape.heads * shape.kv_heads
    matrix("token_embd.weight", shape.vocab, shape.width)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        writer.add_tensor(prefix + "attn_norm.weight", np.ones(shape.width, np.float32))
        for part, rows in (("q", shape.width), ("k", key), ("v", key), ("output", shape.width)):
            matrix(prefix + f"attn_{part}.weight", rows, shape.width)
        writer.add_tensor(prefix + "ffn_norm.weight", np.ones(shape.width, np.float32))
        matrix(prefix + "ffn_gate.weight", shape.feed, shape.width)
        matrix(prefix + "ffn_up.weight", shape.feed, shape.width)
        matrix(prefix + "ffn_down.weight", shape.width, shape.feed)
    writer.add_tensor("output_norm.weight", np.ones(shape.width, np.float32))
    matrix("output.weight", shape.vocab, shape.width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def limited_group(limit: int) -> Path:
    """A cgroup of our own with a hard memory limit and no swap; returns the file that takes members."""
    v1 = Path("/sys/fs/cgroup/memory")
    root = v1 if v1.is_dir() else Path("/sys/fs/cgroup")
    group = root / f"floatllm-bench-{os.getpid()}"
    group.mkdir()
    if v1.is_dir():
        (group / "memory.limit_in_bytes").write_text(str(limit))
        return group / "tasks"
    (group / "memory.max").write_text(str(limit))
    swap = group / "memory.swap.max"
    if swap.exists():
        swap.write_text("0")
    return group / "cgroup.procs"


@contextmanager
def limited(limit: int, read_ahead: int | None) -> Iterator[Path]:
    """A cgroup of `limit` MiB, every disk reading `read_ahead` KiB ahead; all as before behind it."""
    former = {disk: disk.read_text() for disk in disks()}
    members = limited_group(limit << 20)
    try:
        if read_ahead:
            for disk in former:
                disk.write_text(str(read_ahead))
        yield members
    finally:
        for disk, text in former.items():
            disk.write_text(text)
        members.parent.rmdir()


def inside(command: Sequence[str], members: Path) -> subprocess.CompletedProcess[str]:
    """Runs `command` in the group of `members`, with a cold cache."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: members.write_text(str(os.getpid())),
    )


def run(code: str, model: Path, tokens: int, members: Path) -> dict[str, float]:
    """One engine, once, inside the limit and with a cold cache."""
    command = [sys.executable, "-c", code + MEASURE, str(model), json.dumps(PROMPT), str(tokens)]
    done = inside(command, members)
    if done.returncode != 0:
        return {"rate": 0.0, "peak": 0, "failed": done.returncode}
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def disks() -> list[Path]:
    """Read-ahead settings of the machine's disks."""
    return [p for p in Path("/sys/block").glob("*/queue/read_ahead_kb") if "loop" not in str(p)]


def parser(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark under the limit asks for."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, default=Path("stream-benchmark.gguf"))
    made.add_argument("--limit", type=int, default=700, help="MiB")
    made.add_argument("--read-ahead", type=int, help="KiB, of every disk, for the time of the run")
    made.add_argument("--rounds", type=int, default=3)
    return made


def main() -> None:
    """Runs the rounds and prints the result."""
    asked = parser(__doc__)
    asked.add_argument("--tokens", type=int, default=12)
    options = asked.parse_args()
    if not options.model.is_file():
        make_model(options.model)
    import floatllm  # noqa: PLC0415
    import llama_cpp  # noqa: PLC0415

    rates: dict[str, list[float]] = {"llama.cpp": [], "floatllm": []}
    with limited(options.limit, options.read_ahead) as members:
        for _ in range(options.rounds):
            for name, code in (("llama.cpp", PEER), ("floatllm", OURS)):
                result = run(code, options.model, options.tokens, members)
                rates[name].append(result["rate"])
                sys.stderr.write(f"{name}: {result}\n")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    sys.stdout.write(
        json.dumps(
            {
                "model_bytes": options.model.stat().st_size,
                "limit_mib": options.limit,
                "read_ahead_kib": options.read_ahead or {d.parts[3]: int(d.read_text()) for d in disks()},
                "versions": {
                    "floatllm": asdict(floatllm.versions()),
                    "llama-cpp-python": llama_cpp.__version__,
                },
                "tokens_per_second": {n: [round(v, 3) for v in r] for n, r in rates.items()},
                "median": {n: round(v, 3) for n, v in medians.items()},
                "ratio": round(medians["floatllm"] / medians["llama.cpp"], 2)
                if medians["llama.cpp"]
                else None,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
