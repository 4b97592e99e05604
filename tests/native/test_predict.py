"""What a token will take: measured within what the plan grants, told by plan and bench."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from floatllm import EngineError, Model, UsageError
from floatllm.bench import measure
from floatllm.predict import Prediction, predict
from gguf import GGMLQuantizationType as Type
from installed import Installed


@pytest.mark.parametrize("plan", [{}, {"memory": "60M", "io": "direct"}, {"memory": "60M", "io": "mmap"}])
def test_bytes_are_those_of_the_plan(engine: Installed, smollm: Path, plan: dict[str, Any]) -> None:
    with Model.open(smollm) as model:
        made = model.plan(device="CPU", ctx=512, **plan)
        found = predict(made)
    streamed = [chunk for chunk in made.chunks if not chunk.pinned]
    assert bool(streamed) == bool(plan)
    assert found.streamed == sum(chunk.mapped for chunk in streamed)
    assert found.computed == sum(chunk.bytes for chunk in made.chunks)
    assert (found.read_seconds > 0) == bool(streamed)
    assert found.compute_seconds > 0
    # Nothing beats the rates of memory, and nothing here is a thousand times slower.
    assert 1e-4 < found.seconds < 60
    assert found.limit == ("disk" if found.read_seconds > found.compute_seconds else "compute")
    assert found.compute_rate == pytest.approx(found.computed / found.compute_seconds)
    if not streamed:
        assert found.seconds == found.compute_seconds


@pytest.mark.parametrize("chunk", ["160K", "1M"])
def test_every_way_to_cut_can_be_measured(engine: Installed, tiny: Path, chunk: str) -> None:
    with Model.open(tiny) as model:
        whole = predict(model.plan(device="CPU"))
        for io in ("mmap", "direct"):
            cut = model.plan(device="CPU", chunk=chunk, io=io, sequences=3, uniform=True)
            assert predict(cut).computed == whole.computed


def test_a_plan_to_map_has_no_tokens(engine: Installed, image_like: Path) -> None:
    with Model.open(image_like) as model, pytest.raises(UsageError, match="to run"):
        predict(model.plan(device="CPU", mode="map"))


def test_a_file_cut_short_is_told(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny.read_bytes())
    with Model.open(path) as model:
        plan = model.plan(device="CPU", chunk="160K", io="direct")
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 4)
        with pytest.raises(EngineError, match="became shorter"):
            predict(plan)


def test_the_plan_tells_seconds_per_token(engine: Installed, smollm: Path) -> None:
    bound = ("--memory", "60M", "--io", "direct")
    text = engine.run("plan", smollm, *bound).stdout
    assert "s a token" in text
    assert "limited by" in text
    document = json.loads(engine.run("plan", smollm, *bound, "--json").stdout)
    assert document["prediction"].keys() > set(Prediction.__dataclass_fields__)
    mapped = json.loads(engine.run("plan", smollm, "--mode", "map", "--json").stdout)
    assert mapped["prediction"] is None


def test_of_many_chunks_the_first_and_the_last_are_listed(engine: Installed, smollm: Path) -> None:
    for chunk, listed in (("16M", None), ("1M", [*range(1, 9), *range(-3, 1)])):
        done = engine.run("plan", smollm, "--chunk", chunk, "--mode", "map", "--device", "CPU")
        lines = done.stdout.partition("FROM .. TO\n")[2].splitlines()
        with Model.open(smollm) as model:
            count = len(model.plan(device="CPU", chunk=chunk, mode="map").chunks)
        shown = range(1, count + 1) if listed is None else [n if n > 0 else count + n for n in listed]
        more = [line for line in lines if line.startswith("...")]
        assert [int(line.split()[0]) for line in lines if line not in more] == list(shown)
        assert more == ([] if listed is None else [f"... {count - 12} more (all with --json)"])
        assert listed is None or lines[8] == more[0]


_PEAK = """
import json, sys
from floatllm import Model
from floatllm.predict import predict

def status(name):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(name))

tiny, path, memory, io = sys.argv[1:]
with Model.open(tiny) as model:
    predict(model.plan("16M", "CPU", io=io))
with Model.open(path) as model:
    plan = model.plan(memory, "CPU", io=io)
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    predict(plan)
print(json.dumps(status("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize("io", ["mmap", "direct"])
@pytest.mark.parametrize("memory", [36, 60])
def test_measuring_stays_inside_the_budget(
    engine: Installed, tiny: Path, smollm: Path, memory: int, io: str
) -> None:
    assert engine.script(_PEAK, tiny, smollm, f"{memory}M", io) <= memory << 20


def test_bench_tells_where_the_time_went(engine: Installed, smollm: Path) -> None:
    done = engine.run("bench", smollm, "--memory", "60M", "--io", "direct", "-n", "4", "--prompt-tokens", "8")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "CPU,",
        "prompt",
        "decode",
        "read",
        "compute",
        "time",
    ]
    document = json.loads(engine.run("bench", smollm, "-n", "3", "--json").stdout)
    assert document["tokens"] == 3
    assert document["tokens_per_second"] == pytest.approx(3 / document["seconds"])
    assert 0 < document["computing"] <= document["seconds"]
    assert document["waiting"] + document["computing"] <= document["seconds"]
    assert document["streamed_bytes_per_token"] == 0
    assert document["share_of_read_limit"] == 0


def test_bench_refuses_what_does_not_fit(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model, pytest.raises(UsageError, match="do not fit"):
        measure(model.plan(device="CPU", ctx=64), 60, 5)


def test_matrices_are_repacked_however_they_are_cut(
    engine: Installed, made: Callable[..., Path], tmp_path: Path
) -> None:
    """Where the CPU has such kernels (it has none on some, then nothing is repacked)."""
    path = made(matrix=Type.Q4_0, embd=Type.F16, embed=128, feed=384, vocab=512)
    with Model.open(path) as model:
        matrices = sum(t.size for t in model.tensors if t.type == "q4_0")
        repacked = {
            model.plan(device="CPU", ctx=256, **plan).weights_repacked
            for plan in ({}, {"chunk": "200K"}, {"chunk": "40K", "io": "direct"}, {"memory": "12M"})
        }
        assert repacked in ({matrices}, {0})
        assert model.plan(device="CPU", mode="map").weights_repacked == 0
    if "avx2" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split():
        assert repacked == {matrices}
