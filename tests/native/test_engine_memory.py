"""The budget holds: peak resident memory of a child, the model's mapped pages included."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from floatllm import EngineError, Model
from gguf import GGMLQuantizationType as Type
from installed import Installed

_PROC = Path("/proc/self/smaps_rollup")

_MEASURE = """
import json, sys
from floatllm import Engine, Model

def status(name):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(name))

def once(path, memory, prompt):
    plan = model.plan(memory, "CPU", mode=mode)
    with Engine(plan) as engine:
        if mode == "map":
            engine.map()
        else:
            list(engine.generate(prompt, 8, ignore_end=True))
    return len(plan.chunks)

tiny, path, memory, mode = sys.argv[1:]
# Code is loaded when it first runs; a tiny model brings in what the big one will use.
with Model.open(tiny) as model:
    once(tiny, "16M", [1, 2, 3])
with Model.open(path) as model:
    model.tensors
    prompt = model.tokenizer.encode("The capital of France is" * 30)
    baseline = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    chunks = once(path, memory, prompt)
print(json.dumps({"baseline": baseline, "peak": status("VmHWM"), "chunks": chunks}))
"""


@pytest.mark.skipif(not _PROC.exists(), reason="resident memory is read from /proc, which is not here")
@pytest.mark.parametrize("mode", ["map", "run"])
@pytest.mark.parametrize("memory", [48, 64])
def test_memory_stays_inside_the_budget(
    engine: Installed, tiny: Path, smollm: Path, mode: str, memory: int
) -> None:
    found = engine.script(_MEASURE, tiny, smollm, f"{memory}M", mode)
    assert found["chunks"] >= 2
    grown = found["peak"] - found["baseline"]
    # The file is larger than the budget, so holding all of it would be seen.
    assert smollm.stat().st_size > memory * 2**20
    assert grown <= memory * 2**20
    assert grown > 8 * 2**20


_REPEAT = """
import json, os, sys
from floatllm import Engine, Model

def resident():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmRSS"))

def once():
    with Model.open(sys.argv[1]) as model, Engine(model.plan("32M", "CPU", ctx=64, chunk="128K")) as engine:
        engine.forward([1, 2, 3])
    with Model.open(sys.argv[1]) as model:
        Engine(model.plan("32M", "CPU", mode="map", chunk="128K")).map()

for _ in range(10):
    once()
before = resident(), len(os.listdir("/proc/self/fd")), len(open("/proc/self/maps").readlines())
for _ in range(50):
    once()
after = resident(), len(os.listdir("/proc/self/fd")), len(open("/proc/self/maps").readlines())
print(json.dumps([before, after]))
"""


@pytest.mark.skipif(not _PROC.exists(), reason="resident memory is read from /proc, which is not here")
def test_nothing_is_left_behind(engine: Installed, tiny: Path) -> None:
    before, after = engine.script(_REPEAT, tiny)
    assert after[0] - before[0] <= 2 * 2**20
    assert after[1] == before[1]
    assert after[2] <= before[2] + 4


_CLOSED = """
import json, sys
from floatllm import Engine, Model
from floatllm.predict import predict

def resident():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("RssAnon"))

held = []
with Model.open(sys.argv[1]) as model:
    for memory in ("40M", None, "40M"):
        plan = model.plan(memory, "CPU", ctx=256, io="direct")
        predict(plan)
        with Engine(plan) as engine:
            engine.forward([1, 2, 3])
            assert plan.weights_repacked in (0, sum(t.size for t in model.tensors if t.type == "q4_0"))
        held.append(resident())
print(json.dumps([held, plan.weights_bytes]))
"""


@pytest.mark.skipif(not _PROC.exists(), reason="resident memory is read from /proc, which is not here")
def test_what_was_repacked_is_given_back(engine: Installed, made: Callable[..., Path]) -> None:
    """The allocator keeps large blocks that it gave out once, unless it is told."""
    path = made(matrix=Type.Q4_0, embed=512, feed=2048, layers=8, vocab=512)
    held, weights = engine.script(_CLOSED, path)
    assert weights > 16 << 20
    assert held[-1] - held[0] < 4 << 20


def test_the_smallest_memory_named_for_repacked_weights_works(
    engine: Installed, made: Callable[..., Path]
) -> None:
    path = made(matrix=Type.Q4_0, embed=512, feed=2048, layers=8, vocab=512)
    with Model.open(path) as model:
        with pytest.raises(EngineError, match="the smallest that works is") as refused:
            model.plan("2M", "CPU", ctx=256)
        named = re.search(r"the smallest that works is (\d+)K", str(refused.value))
        assert named is not None
        model.plan(f"{named[1]}K", "CPU", ctx=256)
