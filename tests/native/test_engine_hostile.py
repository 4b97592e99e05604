"""Files that are wrong on purpose get a reason: no crash, no long wait, no memory to speak of."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hostile
import pytest
from floatllm import Model, ModelError
from installed import Installed

_MEASURE = """
import json, resource, sys, time
from floatllm import Model, ModelError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
refused = []
for path in sys.argv[1:]:
    try:
        with Model.open(path) as model:
            model.plan(device="CPU")
        refused.append(False)
    except ModelError:
        refused.append(True)
print(json.dumps({
    "refused": refused,
    "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
    "seconds": time.process_time() - began,
}))
"""


@pytest.mark.parametrize("kind", hostile.OPEN)
def test_what_cannot_be_right_is_refused_when_opened(engine: Installed, tmp_path: Path, kind: str) -> None:
    make, reason = hostile.OPEN[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(make())
    with pytest.raises(ModelError) as refused:
        Model.open(path)
    assert reason in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("kind", hostile.RUN)
def test_what_cannot_be_run_is_refused_when_planned(engine: Installed, tmp_path: Path, kind: str) -> None:
    make, reason = hostile.RUN[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(make())
    with Model.open(path) as model:
        with pytest.raises(ModelError) as refused:
            model.plan(device="CPU")
        assert reason in str(refused.value)
        # Whatever cannot be run can still be mapped.
        assert model.plan(device="CPU", mode="map").chunks


def test_the_makers_good_model_is_good(engine: Installed, tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(hostile.model())
    with Model.open(path) as model:
        assert model.plan(device="CPU").chunks


def test_refusing_is_quick_and_small(engine: Installed, tmp_path: Path) -> None:
    paths = []
    for index, (make, _) in enumerate([*hostile.OPEN.values(), *hostile.RUN.values()]):
        paths.append(tmp_path / f"{index}.gguf")
        paths[-1].write_bytes(make())
    # An array that claims a gigabyte of strings, and has it, in a file that takes no room on the disk.
    huge = tmp_path / "huge.gguf"
    head = hostile.File(pairs=[hostile.array("a", hostile.STRING, 2**27 - 1, b"")]).build()
    huge.write_bytes(head)
    os.truncate(huge, 1 << 30)
    paths.append(huge)
    # More entries than any model has, all of them there.
    crowd = tmp_path / "crowd.gguf"
    crowd.write_bytes(hostile.many_keys(1_000_000))
    paths.append(crowd)
    long = tmp_path / "long.gguf"
    long.write_bytes(hostile.long_keys(1000))
    paths.append(long)
    seen = engine.script(_MEASURE, *paths)
    assert all(seen["refused"])
    assert seen["kib"] < 64 << 10
    assert seen["seconds"] < len(paths)


def test_a_hundred_thousand_keys_open(engine: Installed, tmp_path: Path) -> None:
    path = tmp_path / "keys.gguf"
    path.write_bytes(hostile.many_keys(100_000))
    with Model.open(path) as model:
        assert len(model.metadata) == 100_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_without_waiting(engine: Installed, tmp_path: Path) -> None:
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    with pytest.raises(ModelError, match="not a regular file"):
        Model.open(path)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be cut there")
@pytest.mark.parametrize("io", ["mmap", "direct"])
@pytest.mark.parametrize("chunk", [None, "1M"])
def test_a_file_cut_while_it_is_read_is_an_error(
    engine: Installed, tmp_path: Path, smollm: Path, io: str, chunk: str | None
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(smollm.read_bytes())
    said = engine.script(
        """
import json, os, sys
from floatllm import Engine, EngineError, Model
path, io, chunk = sys.argv[1], sys.argv[2], sys.argv[3] or None
said = []
with Model.open(path) as model, Engine(model.plan(device="CPU", io=io, chunk=chunk, ctx=256)) as engine:
    engine.forward([1, 2, 3])
    os.truncate(path, 40 << 20)
    for _ in range(2):
        try:
            engine.forward([4])
            said.append("")
        except EngineError as error:
            said.append(str(error))
print(json.dumps(said))
""",
        path,
        io,
        chunk or "",
    )
    if io == "direct" and chunk is None:
        # All of it is in memory of the engine's own; only embedding rows beyond the cut are lost.
        assert said == ["", ""]
    else:
        assert all("shorter" in each for each in said), said
