"""Devices of other processes over ggml's RPC: listed, and with the CPU's numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Type
from installed import Installed
from serving import Server, serving

pytestmark = pytest.mark.cpus


@pytest.fixture(scope="module")
def server(engine: Installed) -> Iterator[Server]:
    """One that every test may use, one after the other."""
    with serving(engine) as running:
        yield running


def test_devices_of_servers_stand_behind_those_of_this_machine(engine: Installed, server: Server) -> None:
    own = json.loads(engine.run("devices", "--json").stdout)["devices"]
    with serving(engine) as other:
        options = [option for each in (server, other, server) for option in ("--rpc", each.endpoint)]
        done = engine.run("devices", "--json", *options)
        assert done.returncode == 0, done.stderr
        text = engine.run("devices", *options).stdout
    found = json.loads(done.stdout)["devices"]
    assert [device["name"] for device in found] == [*(d["name"] for d in own), "RPC0", "RPC1"]
    assert [d["description"] for d in found[-2:]] == [server.endpoint, other.endpoint]
    assert all(d["memory_total"] > 2**20 and not d["maps_host"] for d in found[-2:])
    assert server.endpoint in text


# Logits of prompts and of tokens behind them, on the CPU and on the server, whole and in chunks.
_COMPARE = """
import json, sys
from floatllm import Engine, Model, rpc
rpc.add(sys.argv[1])
def logits(device, chunk):
    with Model.open(sys.argv[2]) as model:
        plan = model.plan("1GiB", device, 256, threads=2, chunk=chunk, kv=sys.argv[3])
    with Engine(plan) as engine:
        rows = [engine.forward([i * 7 % 250 for i in range(n)]).tobytes().hex() for n in (1, 40, 1, 3)]
    return len(plan.chunks), rows, plan.weights_repacked
print(json.dumps([logits("CPU", None), logits("RPC0", None), logits("RPC0", sys.argv[4])]))
"""


def _floats(rows: list[str]) -> list[float]:
    return [value for row in rows for (value,) in struct.iter_unpack("<f", bytes.fromhex(row))]


@pytest.mark.parametrize(
    ("arch", "matrix", "kv"),
    [
        ("llama", Type.F32, "f16"),
        ("llama", Type.Q8_0, "q8_0"),
        ("llama", Type.Q4_0, "f16"),
        ("qwen3", Type.F16, "f16"),
        ("gemma3", Type.Q6_K, "f16"),
    ],
    ids=str,
)
def test_the_numbers_are_the_cpus(
    engine: Installed, server: Server, small: Callable[..., Path], arch: str, matrix: Type, kv: str
) -> None:
    model = small(arch, matrix)
    here, there, in_chunks = engine.script(_COMPARE, server.endpoint, model, kv, "300K")
    assert in_chunks[0] > 1
    assert in_chunks[1] == there[1]
    if here[2] == 0:
        assert there[1] == here[1]
        return
    # Weights that the CPU rearranges are multiplied by other kernels there; a remote device rearranges none.
    assert matrix is not Type.F32
    expected, found = _floats(here[1]), _floats(there[1])
    error = sum((a - b) ** 2 for a, b in zip(expected, found, strict=True))
    assert error / sum(a * a for a in expected) <= 2e-3


@pytest.mark.ci
def test_a_real_model_gives_the_same_text_whole_and_in_chunks(
    engine: Installed, server: Server, smollm: Path
) -> None:
    common = ("run", smollm, "-p", "The capital of France is", "-n", 6, "--ctx", 64, "--threads", 2)
    expected = engine.run(*common, "--device", "CPU").stdout
    assert "Paris" in expected
    for options in ((), ("--memory", "60M"), ("--chunk", "2M", "--draft", "3")):
        done = engine.run(*common, *server.device, *options)
        assert done.returncode == 0, done.stderr
        assert "RPC0" in done.stderr
        assert ("1 chunk" in done.stderr) == (not options)
        assert done.stdout == expected


def test_every_tensor_is_mapped_to_the_server(engine: Installed, server: Server, smollm: Path) -> None:
    # The model is larger than this memory.
    done = engine.run("map", smollm, *server.device, "--memory", "60M", "-v")
    assert done.returncode == 0, done.stderr
    mapped = [line for line in done.stdout.splitlines() if "Mapped" in line]
    assert len(mapped) == 272
    assert all(line.endswith("| Target hardware: RPC0") for line in mapped)
    assert done.stdout.endswith("[FloatLLM] Engine successfully mapped.\n")


def test_plan_bench_and_batch_take_a_server(
    engine: Installed, server: Server, tiny: Path, tmp_path: Path
) -> None:
    plan = engine.run("plan", tiny, *server.device, "--ctx", 64, "--json")
    assert json.loads(plan.stdout)["device"] == "RPC0"
    assert json.loads(plan.stdout)["prediction"]["seconds"] > 0
    done = engine.run("bench", tiny, *server.device, "--ctx", 64, "-n", 3, "--prompt-tokens", 5, "--json")
    assert json.loads(done.stdout)["tokens_per_second"] > 0
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt": "hello", "max_tokens": 5}\n{"prompt": "hi", "max_tokens": 3}\n')
    found = []
    for device in (("--device", "CPU"), server.device):
        done = engine.run("batch", tiny, rows, tmp_path / f"{len(found)}.jsonl", "--ctx", 64, *device)
        assert done.returncode == 0, done.stderr
        found.append((tmp_path / f"{len(found)}.jsonl").read_text())
    assert found[0] == found[1]


def test_large_tensors_are_kept_by_the_server(engine: Installed, smollm: Path, tmp_path: Path) -> None:
    texts = []
    with serving(engine, "--cache", tmp_path / "deep" / "cache") as running:
        for _ in range(2):
            done = engine.run("run", smollm, "-p", "Once", "-n", 5, "--ctx", 64, *running.device)
            assert done.returncode == 0, done.stderr
            texts.append(done.stdout)
            kept = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "deep" / "cache").iterdir()}
            assert kept
            if len(texts) == 1:
                first = kept
    assert kept == first
    assert texts[0] == texts[1]
