"""A model on a GPU beside llama.cpp's llama-bench, in one run: in the GPU's memory, and streamed.

    python benchmarks/device.py MODEL.gguf --llama-bench PATH [--layers 32] > result.json

FloatLLM is imported from where it is installed, or by PYTHONPATH and FLOATLLM_LIBRARY. `--make 7b` writes a
model of random weights to MODEL first (needs gguf and numpy): speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import stream

PROMPT, TOKENS, ROUNDS = 512, 64, 5
SHAPES = {"1b": stream.SHAPE, "7b": stream.Shape(32, 4096, 32, 32, 11008, 32000)}


def ours(path: Path, device: str, **options: Any) -> dict[str, Any]:
    """Medians; `link` is what went to the device in a token or a prompt, in GB/s."""
    import floatllm  # noqa: PLC0415

    with floatllm.Model.open(path) as model:
        plan = model.plan(ctx=PROMPT + TOKENS + 64, device=device, **options)
        ids = [(i * 37 + 11) % 1000 for i in range(PROMPT)]
        with floatllm.Engine(plan) as engine:
            prompts, tokens = [], []
            for _ in range(ROUNDS + 2):
                engine.truncate(0)
                began = time.perf_counter()
                logits = bytes(engine.forward(ids))
                prompts.append(time.perf_counter() - began)
            for token in ids[: TOKENS + 8]:
                began = time.perf_counter()
                engine.likeliest([(0, [token], 1)])
                tokens.append(time.perf_counter() - began)
    prompt, token = statistics.median(prompts[2:]), statistics.median(tokens[8:])
    wide = sum(chunk.bytes for chunk in plan.chunks if not chunk.pinned)
    narrow = sum(chunk.bytes for chunk in plan.chunks if not chunk.pinned and not chunk.shared)
    return {
        "options": options,
        "chunks": len(plan.chunks),
        "pinned": sum(chunk.pinned for chunk in plan.chunks),
        "hosted": sum(chunk.hosted for chunk in plan.chunks),
        "cpu_share": [each.cpu_share for each in plan.devices],
        "device_bytes": sum(each.kv + each.activations + each.pinned + each.ring for each in plan.devices),
        "beside_weights": sum(each.kv + each.activations for each in plan.devices),
        "prompt": PROMPT / prompt,
        "decode": 1 / token,
        "prompt_link": wide / prompt / 1e9,
        "decode_link": narrow / token / 1e9,
        "logits": logits,
    }


def link_rate(path: Path, device: str, memory: int) -> float:
    """GB/s from pinned memory, as the engine measures it."""
    import floatllm  # noqa: PLC0415
    from floatllm.predict import predict  # noqa: PLC0415

    with floatllm.Model.open(path) as model:
        plan = model.plan(ctx=PROMPT, device=device, device_memory=memory, cpu_share=0)
        return max(predict(plan).read_rate for _ in range(3)) / 1e9


def peer(program: Path, model: Path, layers: int, threads: int) -> dict[str, Any]:
    command = [program, "-m", model, "-p", PROMPT, "-n", TOKENS, "-ngl", layers, "-t", threads, "-fa", 1]
    done = subprocess.run(
        [*map(str, command), "-r", str(ROUNDS), "-o", "json"], check=True, capture_output=True, text=True
    )
    rows = json.loads(done.stdout)
    found = {"command": " ".join(map(str, command[1:])), "n_gpu_layers": layers}
    for row in rows:
        found["prompt" if row["n_prompt"] else "decode"] = statistics.median(row["samples_ts"])
    return found


def said(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--make", choices=SHAPES)
    parser.add_argument("--device", default="CUDA0")
    parser.add_argument("--llama-bench", type=Path, help="the peer; left out without it")
    parser.add_argument("--peer", default="", help="its version, to be written down")
    parser.add_argument("--layers", type=int, default=32, help="of the model; the peer offloads half of them")
    parser.add_argument("--threads", type=int, default=16)
    arguments = parser.parse_args()
    if arguments.make:
        stream.make_model(arguments.model, SHAPES[arguments.make])
    import floatllm  # noqa: PLC0415

    size = arguments.model.stat().st_size
    found: dict[str, Any] = {
        "command": " ".join(sys.argv),
        "machine": f"{platform.machine()}, {arguments.threads} threads",
        "gpu": said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        "floatllm": floatllm.versions().engine,
        "ggml": floatllm.versions().ggml,
        "model_bytes": size,
        "prompt_tokens": PROMPT,
        "link": link_rate(arguments.model, arguments.device, size // 4),
    }
    # The peer puts half of the layers on the device, and beside them its cache and activations. `half` is as
    # much; `strict` has half of the model's size for everything.
    runs: dict[str, dict[str, Any]] = {
        "resident": {},
        "quarter": {"device_memory": size // 4, "cpu_share": 0},
        "strict": {"device_memory": size // 2},
        "half": {},
    }
    kept = b""
    for name, options in runs.items():
        if name == "half":
            options["device_memory"] = size // 2 + found["resident"]["beside_weights"]
        run = ours(arguments.model, arguments.device, threads=arguments.threads, **options)
        logits = run.pop("logits")
        kept = kept or logits
        # Of the prompt, which the device computes alone.
        run["prompt_equal_to_resident"] = logits == kept
        found[name] = run
        sys.stderr.write(f"{name}: {run}\n")
    found["quarter"]["share_of_link"] = {
        each: found["quarter"][f"{each}_link"] / found["link"] for each in ("prompt", "decode")
    }
    if arguments.llama_bench:
        for name, layers in (("resident", 99), ("half", arguments.layers // 2)):
            other: dict[str, Any] = {"version": arguments.peer}
            other |= peer(arguments.llama_bench, arguments.model, layers, arguments.threads)
            found[name]["llama.cpp"] = other
            for against in (name, "strict") if name == "half" else (name,):
                found[against]["ratio"] = {
                    each: found[against][each] / other[each] for each in ("prompt", "decode")
                }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
