"""A thousand passes leave nothing behind: no file handle, no mapping, no memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from floatllm import Engine, Model, Sampling
from installed import Installed

pytestmark = pytest.mark.cpus

# Passes of all kinds, those that fail included, over a model of which a part is pinned and the rest streams.
_REPEAT = """
import gc, json, os, sys
from floatllm import Engine, EngineError, Model, UsageError

def held():
    gc.collect()
    status = open("/proc/self/status").read()
    resident = int(status.split("VmRSS:")[1].split()[0]) * 1024
    return resident, len(os.listdir("/proc/self/fd")), len(open("/proc/self/maps").readlines())

def stop(event):
    if event.chunk == 2:
        raise LookupError

def once(engine, turn):
    if engine.length > 200:
        engine.truncate(0)
    kind = turn % 10
    if kind == 0:
        engine.on_event(stop)
        try:
            engine.forward([1])
        except LookupError:
            pass
        engine.on_event(None)
    elif kind == 1:
        try:
            engine.forward([engine.vocab])
        except UsageError:
            pass
    elif kind < 5:
        engine.append([(0, [turn % 200] * (kind + 1), kind), (1, [7], 0)])
        engine.truncate(0, 1)
    else:
        engine.likeliest([(0, [turn % 200], 1)])

path, io, memory = sys.argv[1:]
with Model.open(path) as model:
    plan = model.plan(memory, "CPU", ctx=256, io=io, width=8, sequences=2, outputs=4, threads=2)
    pinned = sum(chunk.pinned for chunk in plan.chunks)
    with Engine(plan) as engine:
        for turn in range(200):
            once(engine, turn)
        before = held()
        for turn in range(1000):
            once(engine, turn)
        after = held()
print(json.dumps([pinned, len(plan.chunks), plan.io, before, after]))
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what a process holds is read from /proc")
@pytest.mark.parametrize("io", ["mmap", "direct"])
def test_a_thousand_passes_leave_nothing_behind(
    engine: Installed, made: Callable[..., Path], io: str
) -> None:
    path = made(layers=4, embed=256, feed=512)
    pinned, chunks, used, before, after = engine.script(_REPEAT, path, io, "9M")
    assert 0 < pinned < chunks
    assert used == io
    # One kilobyte a pass would be a megabyte.
    assert after[0] - before[0] < 512 * 1024, (before, after)
    assert after[1] == before[1]
    # Windows come and go, and which of them lie side by side and so count as one is chance.
    assert abs(after[2] - before[2]) <= 4, (before, after)


def test_no_pass_leaves_work_to_the_garbage_collector(engine: Installed, tiny: Path) -> None:
    """Rows of logits in a reference cycle would pile up, megabytes for each pass of a real vocabulary."""
    with Model.open(tiny) as model, Engine(model.plan(device="CPU", ctx=256, outputs=4)) as session:

        def passes() -> None:
            session.truncate(0)
            session.forward([1, 2])
            session.append([(0, [3, 4, 5], 3)])
            session.likeliest([(0, [6], 1)])
            for _ in session.generate([7, 8], 4, sampling=Sampling(temperature=1.0, seed=1)):
                pass

        passes()
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            passes()
            gc.collect()
            # Types of arrays are in cycles by their nature; they are small.
            assert not [each for each in gc.garbage if isinstance(each, (ctypes.Array, memoryview))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
