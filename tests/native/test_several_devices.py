"""Devices with memory of their own, one and several: what stays where, and the same numbers all the same.

Each device is a server of ggml's RPC on this machine that computes on the CPU, so its numbers are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Type
from installed import Installed
from serving import serving

pytestmark = pytest.mark.cpus

# Logits of a prompt and of tokens behind it for each plan, and who holds what.
_RUN = """
import json, sys
from floatllm import Engine, Model, rpc
for endpoint in sys.argv[3:]:
    rpc.add(endpoint)
found = []
for options in json.loads(sys.argv[2]):
    with Model.open(sys.argv[1]) as model:
        plan = model.plan(ctx=256, width=16, threads=2, **options)
    with Engine(plan) as engine:
        events = []
        engine.on_event(lambda event: events.append((event.kind, event.chunk, event.device)))
        rows = [engine.forward([i * 7 % 250 for i in range(n)]).tobytes().hex() for n in (40, 1, 1, 3)]
    kept = [chunk.kept for chunk in plan.chunks]
    found.append({
        "rows": rows,
        "devices": [each.name for each in plan.devices],
        "chunks": [each.chunks for each in plan.devices],
        "taken": [each.kv + each.activations + each.pinned + each.ring for each in plan.devices],
        "limits": [each.limit for each in plan.devices],
        "host": sum(each.host for each in plan.devices),
        "kept": {name: kept.count(name) for name in kept},
        "computed": [device for kind, _, device in events if kind == "chunk"],
        "order": [chunk for kind, chunk, _ in events if kind == "chunk"],
    })
print(json.dumps(found))
"""
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(engine: Installed) -> Iterator[Run]:
    with serving(engine) as one, serving(engine) as other:

        def plans(model: Path, *options: dict[str, object]) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = engine.script(
                _RUN, model, json.dumps(options), one.endpoint, other.endpoint
            )
            return found

        yield plans


@pytest.mark.ci
def test_what_does_not_fit_streams_from_the_host_or_the_disk(run: Run, smollm: Path) -> None:
    device = {"device": "RPC0", "device_memory": "40M"}
    whole, hosted, both, direct, cut = run(
        smollm,
        {"device": "RPC0"},
        device,
        {**device, "memory": "60M", "io": "mmap"},
        {**device, "memory": "60M", "io": "direct"},
        {"device": "RPC0", "chunk": "3M"},
    )
    assert whole["kept"] == {"pinned": 1}
    assert set(hosted["kept"]) == {"pinned", "hosted"}
    assert set(both["kept"]) == {"pinned", "hosted", "streamed"} == set(direct["kept"])
    assert set(cut["kept"]) == {"streamed"}
    for found in (hosted, both, direct, cut):
        assert found["rows"] == whole["rows"]
        assert all(taken <= limit for taken, limit in zip(found["taken"], found["limits"], strict=True))
    assert both["host"] <= 60 << 20


def test_layers_are_divided_and_the_numbers_stay(run: Run, small: Callable[..., Path]) -> None:
    model = small("llama", Type.F32)
    alone, two, with_cpu, cpu = run(
        model,
        {"device": "RPC0"},
        {"device": "RPC0,RPC1", "device_memory": "64M"},
        {"device": "RPC1,CPU", "device_memory": "3M"},
        {"device": "CPU"},
    )
    # The same kernels compute on all of them.
    assert alone["rows"] == two["rows"] == with_cpu["rows"] == cpu["rows"]
    assert two["devices"] == ["RPC0", "RPC1"]
    assert with_cpu["devices"] == ["RPC1", "CPU"]
    for found in (two, with_cpu):
        first, second = found["chunks"]
        assert (
            found["computed"][: first + second]
            == [found["devices"][0]] * first + [found["devices"][1]] * second
        )
        assert found["order"][: first + second] == list(range(first + second))
    # Nothing streams where the CPU can take the rest.
    assert set(with_cpu["kept"]) == {"pinned"}


def test_a_device_too_small_streams_its_layers(run: Run, small: Callable[..., Path]) -> None:
    model = small("qwen3", Type.F16)
    alone, two = run(model, {"device": "RPC0"}, {"device": "RPC0,RPC1", "device_memory": "2M"})
    assert two["rows"] == alone["rows"]
    assert {"pinned", "hosted"} >= set(two["kept"]) > {"pinned"}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--device", "CPU,CPU"), 2, "named twice"),
        (("--device", "CPU,"), 2, "leaves out a name"),
        (("--device", "CPU,CUDA7"), 3, "no device CUDA7"),
        (("--device", "CPU", "--cpu-share", "0.5"), 2, "Leave --cpu-share out"),
        (("--cpu-share", "1.5"), 2, "from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(
    engine: Installed, tiny: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    done = engine.run("plan", tiny, *options)
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def test_a_device_with_too_little_memory_names_the_smallest(
    engine: Installed, small: Callable[..., Path]
) -> None:
    model = small("llama", Type.Q8_0)
    with serving(engine) as server:
        common = (*server.device, "--ctx", 256)
        done = engine.run("plan", model, *common, "--device-memory", "100K")
        assert done.returncode == 8, done.stderr
        assert "RPC0, --device-memory" in done.stderr
        least = done.stderr.split("the smallest that works is ")[1].split()[0]
        assert engine.run("plan", model, *common, "--device-memory", least).returncode == 0
        done = engine.run("plan", model, *common, "--device-memory", "9999G")
        assert done.returncode == 8
        assert "of free memory, less than" in done.stderr
        done = engine.run("plan", model, *common, "--device-memory", "64M", "--memory", "2M")
        assert done.returncode == 8
        assert "(--memory) is too small" in done.stderr
