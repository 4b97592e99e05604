"""Plans and the mapping of every tensor, chunk by chunk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from floatllm import Engine, EngineError, Event, MissingError, Model, UsageError
from gguf import GGMLQuantizationType as Type
from installed import Installed
from llama_numpy import weights


def _check_cover(plan_json: str, model: Model) -> None:
    """Each row of each tensor lies in the plan exactly once."""
    rows: dict[str, list[tuple[int, int]]] = {}
    for chunk in json.loads(plan_json)["chunks"]:
        for part in chunk["parts"]:
            rows.setdefault(part["tensor"], []).append((part["row_begin"], part["row_end"]))
    assert set(rows) == {tensor.name for tensor in model.tensors}
    for tensor in model.tensors:
        count = tensor.shape[1] * tensor.shape[2] * tensor.shape[3]
        edges = [edge for part in sorted(rows[tensor.name]) for edge in part]
        assert edges[0] == 0
        assert edges[-1] == count
        assert edges[1:-1:2] == edges[2::2]


@pytest.mark.parametrize("chunk", [None, "192K", "64K"])
@pytest.mark.parametrize("which", ["llama", "image"])
def test_map_sums_every_tensor(
    engine: Installed, made: Callable[..., Path], image_like: Path, which: str, chunk: str | None
) -> None:
    path = made(matrix=Type.Q5_1, embd=Type.Q8_0, embed=128, feed=256) if which == "llama" else image_like
    expected = weights(path)
    with Model.open(path) as model:
        plan = model.plan("64M", "CPU", mode="map", chunk=chunk)
        _check_cover(plan.json, model)
        assert plan.memory.total <= plan.memory.limit == 64 * 2**20
        if chunk is not None:
            assert len(plan.chunks) > 1
            assert all(part.mapped <= 192 * 1024 for part in plan.chunks)
        events: list[Event] = []
        with Engine(plan) as session:
            sums = session.map(events.append)
        for tensor, found in zip(model.tensors, sums, strict=True):
            values = expected[tensor.name]
            # Ones and rows are rounded to 8 bits for products with quantised types.
            assert abs(found - values.sum()) <= 1e-3 * np.abs(values).sum(), tensor.name
        mapped = [event.tensor for event in events if event.tensor is not None]
        assert sorted(set(mapped)) == list(range(len(model.tensors)))
        assert {event.device for event in events if event.tensor is not None} == {"CPU"}
        done = [event.chunk for event in events if event.kind == "chunk"]
        assert done == list(range(len(plan.chunks)))


def test_a_listener_that_raises_stops_the_pass(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model:
        plan = model.plan("64M", "CPU", mode="map", chunk="64K")
        with Engine(plan) as session:
            calls = []

            def fail(event: Event) -> None:
                calls.append(event)
                raise LookupError("enough")

            with pytest.raises(LookupError, match="enough"):
                session.map(fail)
            assert len(calls) == 1
            assert len(session.map()) == len(model.tensors)


def test_map_prints_the_house_lines(engine: Installed, smollm: Path) -> None:
    done = engine.run("map", smollm, "--memory", "48M", "--device", "CPU", "-v")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    norm = "[FloatLLM] Mapped output_norm.weight | Shape: [576, 1, 1, 1] | Target hardware: CPU"
    assert lines.count(norm) == 1
    with Model.open(smollm) as model:
        names = {tensor.name for tensor in model.tensors}
    found = [m[1] for line in lines if (m := re.match(r"\[FloatLLM\] Mapped (\S+) \| Shape: ", line))]
    assert sorted(found) == sorted(names)
    chunks = [line for line in lines if "executed" in line]
    assert len(chunks) >= 2
    count = len(chunks)
    assert chunks == [
        f"[FloatLLM] Chunk {i}/{count} executed. Hardware link closed." for i in range(1, count + 1)
    ]
    assert lines[-1] == "[FloatLLM] Engine successfully mapped."
    assert len(lines) == len(names) + count + 1
    quiet = engine.run("map", smollm, "--memory", "48M", "--device", "CPU")
    assert quiet.stdout.splitlines() == [*chunks, lines[-1]]


def test_plan_shows_budget_and_chunks(engine: Installed, smollm: Path) -> None:
    done = engine.run("plan", smollm, "--memory", "48M", "--device", "CPU", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["memory"]["limit"] == 48 * 2**20
    assert document["memory"]["source"] == "--memory"
    assert len(document["chunks"]) >= 2
    table = engine.run("plan", smollm, "--memory", "48M", "--device", "CPU").stdout
    assert f"in {len(document['chunks'])} chunks" in table
    assert "of 48.0 MiB (--memory)" in table
    with Model.open(smollm) as model:
        _check_cover(done.stdout, model)


def test_a_plan_without_memory_says_what_binds(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model:
        plan = model.plan(device="CPU")
    assert plan.memory.limit > 0
    assert plan.memory.source not in ("", "--memory")


def test_too_little_memory_names_the_smallest_that_works(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:
        with pytest.raises(EngineError) as refused:
            model.plan("1M", "CPU")
        smallest = re.search(r"smallest that works is (\d+)K", str(refused.value))
        assert smallest is not None
        size = int(smallest[1]) * 1024
        plan = model.plan(size, "CPU")
        assert plan.memory.total <= size
        with pytest.raises(EngineError):
            model.plan(size - 4096, "CPU")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"mode": "walk"}, UsageError),
        ({"ctx": 0}, UsageError),
        ({"ctx": 2**31}, UsageError),
        ({"width": -1}, UsageError),
        ({"threads": 100000}, UsageError),
        ({"memory": "lots"}, UsageError),
        ({"memory": -1}, UsageError),
        ({"chunk": "1B"}, UsageError),
        ({"device": "Abacus0"}, MissingError),
    ],
)
def test_arguments_out_of_range_are_refused(
    engine: Installed, tiny: Path, wrong: dict[str, object], error: type[Exception]
) -> None:
    with Model.open(tiny) as model, pytest.raises(error):
        model.plan(**wrong)
