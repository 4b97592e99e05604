"""`--trace`: a timeline that any viewer of Chrome trace events shows, whole however the run ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from floatllm import EngineError, Event, Model, Plan
from floatllm.trace import Trace
from installed import Installed

fcntl = pytest.importorskip("fcntl") if sys.platform != "win32" else None


@dataclass
class Timeline:
    """A trace file as a viewer takes it in; times are whole nanoseconds."""

    rows: dict[int, str] = field(default_factory=dict)
    spans: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    flying: list[tuple[int, int]] = field(default_factory=list)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The spans of whole chunks, in order."""
        return [span for span in self.spans[self._compute] if "args" in span]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What the chunks' spans are split into."""
        return [span for span in self.spans[self._compute] if "args" not in span]

    @property
    def reads(self) -> list[dict[str, Any]]:
        """The spans of all lanes of reading."""
        return [span for row in self.lanes for span in self.spans[row]]

    @property
    def lanes(self) -> list[int]:
        """The rows of reading."""
        return [row for row, name in self.rows.items() if name.startswith("read")]

    @property
    def _compute(self) -> int:
        return next(row for row, name in self.rows.items() if name == "compute")


def _timeline(path: Path) -> Timeline:
    document = json.loads(path.read_text(encoding="utf-8"))
    timeline = Timeline()
    for event in document["traceEvents"]:
        assert event["pid"] == 1
        if event["ph"] == "M":
            if event["name"] == "thread_name":
                assert event["tid"] not in timeline.rows
                timeline.rows[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "C":
            timeline.flying.append((round(event["ts"] * 1000), event["args"]["bytes"]))
        else:
            assert event["ph"] == "X"
            begin = round(event["ts"] * 1000)
            span = {**event, "begin": begin, "end": begin + round(event["dur"] * 1000)}
            timeline.spans[event["tid"]].append(span)
    _check(timeline)
    return timeline


def _check(timeline: Timeline) -> None:
    """What holds of every trace."""
    assert set(timeline.spans) <= set(timeline.rows)
    assert set(timeline.rows.values()) <= {"compute", "read", *(f"read {i}" for i in range(2, 1000))}
    for row in [timeline.chunks, *(timeline.spans[lane] for lane in timeline.lanes)]:
        ordered = sorted(row, key=lambda span: span["begin"])
        for before, after in pairwise(ordered):
            assert before["end"] <= after["begin"]
    # Every chunk's span is split into waiting and computing, without a gap.
    parts = iter(timeline.parts)
    for chunk in timeline.chunks:
        at = chunk["begin"]
        names = []
        while at < chunk["end"]:
            part = next(parts)
            assert part["begin"] == at
            at = part["end"]
            names.append(part["name"])
        assert at == chunk["end"]
        assert names in (["waiting", "computing"], ["computing"], ["waiting"])
    assert next(parts, None) is None
    edges = [(span["begin"], span["args"]["bytes"]) for span in timeline.reads]
    edges += [(span["end"], -span["args"]["bytes"]) for span in timeline.reads]
    flying, expected = 0, {}
    for time, size in sorted(edges):
        flying = expected[time] = flying + size
    assert dict(timeline.flying) == expected
    assert [time for time, _ in timeline.flying] == sorted(expected)


def _check_passes(timeline: Timeline, plan: Plan, passes: int) -> None:
    """Every pass computes every chunk; what streams is read at each, the rest once."""
    kept = {chunk.index: "pinned" if chunk.pinned else "streamed" for chunk in plan.chunks}
    assert [(span["args"]["pass"], span["args"]["chunk"]) for span in timeline.chunks] == [
        (number, chunk.index) for number in range(1, passes + 1) for chunk in plan.chunks
    ]
    for span in timeline.chunks:
        index = span["args"]["chunk"]
        assert span["name"] == f"chunk {index}"
        assert span["args"]["bytes"] == plan.chunks[index].bytes
        assert span["args"]["kept"] == kept[index]
    reads: dict[int, int] = defaultdict(int)
    for span in timeline.reads:
        index = span["args"]["chunk"]
        reads[index] += 1
        assert span["name"] == f"chunk {index}"
        assert span["args"]["bytes"] == plan.chunks[index].mapped
        assert span["args"]["kept"] == kept[index]
    assert reads == {i: 1 if how == "pinned" else passes for i, how in kept.items()}


@pytest.mark.parametrize("options", [("--chunk", "2M"), ("--memory", "64M"), ("--memory", "1GiB")], ids=str)
def test_a_run_is_traced_pass_by_pass(
    engine: Installed, smollm: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    common = ("run", smollm, "-p", "The capital of France is", "-n", 3, "--ctx", 256, "--draft", "off")
    options = ("--device", "CPU", "--threads", "1", "--io", "direct", *options)
    path = tmp_path / "trace.json"
    done = engine.run(*common, *options, "--trace", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == engine.run(*common, *options).stdout
    assert [file.name for file in tmp_path.iterdir()] == ["trace.json"]
    with Model.open(smollm) as model:
        bound = {options[-2].removeprefix("--"): options[-1]}
        plan = model.plan(device="CPU", ctx=256, threads=1, io="direct", **bound)
    timeline = _timeline(path)
    # The prompt's pass gives the first token.
    _check_passes(timeline, plan, 3)
    # As many threads read; one chunk's last blocks may be in flight beside the next one's first.
    assert len(timeline.lanes) <= 7


def test_a_mapping_is_traced_beside_its_lines(engine: Installed, image_like: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("what was there before")
    options = ("--memory", "64M", "--chunk", "128K", "--device", "CPU")
    done = engine.run("map", image_like, *options, "--trace", path, "-v")
    assert done.returncode == 0, done.stderr
    assert done.stdout == engine.run("map", image_like, *options, "-v").stdout
    with Model.open(image_like) as model:
        plan = model.plan("64M", "CPU", mode="map", chunk="128K")
    assert len(plan.chunks) > 1
    _check_passes(_timeline(path), plan, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_interrupted_run_leaves_a_whole_trace(
    engine: Installed, smollm: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path = tmp_path / "trace.json"
    options = ("-n", 3000, "--ctx", 4096, "--threads", 1, "--chunk", "4M", "--trace", path)
    command = engine.command("run", smollm, "-p", "Once upon a time", *options)
    with subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read(8)
        assert not path.exists()
        child.send_signal(number)
        assert child.wait(timeout=60) == code
    assert [file.name for file in tmp_path.iterdir()] == ["trace.json"]
    chunks = _timeline(path).chunks
    assert chunks[-1]["args"]["pass"] >= 2
    assert [span["args"]["chunk"] for span in chunks[:3]] == [0, 1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be cut there")
def test_a_run_that_fails_leaves_a_whole_trace(engine: Installed, smollm: Path, tmp_path: Path) -> None:
    assert fcntl is not None
    model, path = tmp_path / "model.gguf", tmp_path / "trace.json"
    model.write_bytes(smollm.read_bytes())
    # Nobody reads on after the first byte, so the command waits until the file is cut.
    command = engine.command("map", model, "-v", "--chunk", "256K", "--threads", 1, "--trace", path)
    with subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, 4096)
        os.read(child.stdout.fileno(), 1)
        os.truncate(model, 10 << 20)
        _, error = child.communicate(timeout=300)
        assert child.returncode == 8, error
    assert b"became shorter" in error
    assert {file.name for file in tmp_path.iterdir()} == {"model.gguf", "trace.json"}
    chunks = _timeline(path).chunks
    assert [span["args"]["chunk"] for span in chunks] == list(range(len(chunks)))
    assert chunks


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(
    engine: Installed, tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    places = [tmp_path / "none" / "F.json", tmp_path / "file" / "F.json", tmp_path / "folder", ""]
    places.append(tmp_path / ("x" * 300))
    left = ["file", "folder"]
    if os.name == "posix":
        # To rename over it, or over a device, would take it away from whoever uses it.
        os.mkfifo(tmp_path / "pipe")
        places.append(tmp_path / "pipe")
        left.append("pipe")
    for command in (("map", tiny), ("run", tiny, "-p", "hello", "-n", 3)):
        for place in places:
            done = engine.run(*command, "--trace", place)
            assert done.returncode == 2, place
            assert done.stdout == ""
            assert str(place) in done.stderr
            assert done.stderr.count("\n") == 1
    assert sorted(file.name for file in tmp_path.rglob("*")) == left
    assert not (tmp_path / "pipe").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="limits are set by the shell")
def test_a_full_disk_ends_the_run_and_leaves_what_was_there(
    engine: Installed, smollm: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    path.write_text("before")
    # A file may grow to 8 blocks of 512 bytes, or of 1024 in some shells.
    limited = ("sh", "-c", 'ulimit -f 8; exec "$@"', "sh")
    options = ("--chunk", "256K", "--threads", 1, "--trace", path)
    done = engine.run("map", smollm, *options, under=limited)
    assert done.returncode == 8, done.stderr
    assert f"{path} could not be written: File too large" in done.stderr
    assert "successfully" not in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["trace.json"]
    assert path.read_text() == "before"


def test_a_link_is_followed_and_the_mode_is_the_users(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "behind").mkdir()
    link = tmp_path / "link.json"
    try:
        link.symlink_to(Path("behind") / "trace.json")
    except OSError:
        pytest.skip("no right to make links")
    with Model.open(tiny) as model, Trace(str(link), model.plan(device="CPU", ctx=64)):
        pass
    assert link.is_symlink()
    assert not (tmp_path / "behind" / "trace.json").is_symlink()
    _timeline(link)
    plain = tmp_path / "plain"
    plain.write_text("")
    assert link.stat().st_mode == plain.stat().st_mode


def _event(kind: str, chunk: int, began: float, seconds: float, waited: float = 0.0) -> Event:
    return Event(
        kind=kind,
        chunk=chunk,
        chunks=1_000_000,
        tensor=None,
        computed=False,
        device="CPU",
        bytes=1000 + chunk,
        seconds=seconds,
        began=began,
        waited=waited,
    )


@pytest.fixture
def streaming(engine: Installed, made: Callable[..., Path]) -> Plan:
    """A plan of several chunks."""
    with Model.open(made(layers=6, embed=128, feed=256)) as model:
        plan = model.plan("8M", "CPU", ctx=64, chunk="128K")
    assert len(plan.chunks) > 8
    return plan


@pytest.mark.parametrize("seed", range(5))
def test_spans_of_one_row_never_overlap(streaming: Plan, tmp_path: Path, seed: int) -> None:
    # In the first pass readings are told in any order; afterwards in the order that they began.
    choose = random.Random(seed)
    count = len(streaming.chunks)
    path = tmp_path / "trace.json"
    with Trace(str(path), streaming) as trace:
        now = asked = 1.0
        reads = 0
        for number in range(20):
            for chunk in range(count):
                if number == 0 or chunk % 3:
                    asked += choose.uniform(0, 0.01)
                    began = choose.uniform(0, 1) if number == 0 else asked
                    trace(_event("read", chunk, began, choose.uniform(0, 0.05)))
                    reads += 1
                seconds = choose.uniform(1e-7, 0.01)
                waited = choose.uniform(0, seconds)
                trace(replace(_event("chunk", chunk, now, seconds, waited), chunks=count))
                now += seconds
    timeline = _timeline(path)
    assert len(timeline.reads) == reads
    assert len(timeline.chunks) == 20 * count
    # No more lanes than are needed side by side, and never fewer.
    most = flying = 0
    for _, change in sorted(
        [(r["begin"], 1) for r in timeline.reads] + [(r["end"], -1) for r in timeline.reads]
    ):
        flying += change
        most = max(most, flying)
    assert len(timeline.lanes) == most


def test_a_long_trace_takes_no_memory(streaming: Plan, tmp_path: Path) -> None:
    count = len(streaming.chunks)
    path = tmp_path / "trace.json"
    tracemalloc.start()
    try:
        with Trace(str(path), streaming) as trace:
            for number in range(6000 // count):
                for chunk in range(count):
                    now = 1 + number * count + chunk
                    trace(_event("read", chunk, now - 1.5, 1.0))
                    trace(replace(_event("chunk", chunk, now, 0.9, 0.1), chunks=count))
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 2_000_000
    assert peak < 200_000


def test_what_stopped_a_run_is_told_before_what_became_of_its_trace(streaming: Plan, tmp_path: Path) -> None:
    def lose(error: Exception | None) -> None:
        for part in tmp_path.glob(".floatllm-*"):
            part.unlink()
        if error is not None:
            raise error

    path = tmp_path / "trace.json"
    with pytest.raises(LookupError), Trace(str(path), streaming):
        lose(LookupError())
    with pytest.raises(EngineError, match="could not be written"), Trace(str(path), streaming):
        lose(None)
    assert list(tmp_path.iterdir()) == []
