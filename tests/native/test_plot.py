"""`plan --plot`: the picture shows the plan's own bytes, and stays a small and valid document."""

from __future__ import annotations

import json
import random
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from floatllm import Chunk, Model, Part, Plan, format_size, plot
from floatllm.predict import Prediction
from installed import Installed

_SVG = "{http://www.w3.org/2000/svg}"
_SHARES = ("pinned", "host", "ring", "kv", "activations", "graph", "staging", "metadata")
_WIDTH = 880.0
_NEAR = 0.002  # pixels; places are rounded to a thousandth


class Picture:
    """An SVG as a program can look at it."""

    def __init__(self, text: str) -> None:
        assert len(text.encode()) < 1_000_000
        self.root = ET.fromstring(text)  # noqa: S314 (our own text)
        assert self.root.tag == f"{_SVG}svg"
        self.texts = ["".join(node.itertext()) for node in self.root.iter(f"{_SVG}text")]
        style = self.root.findtext(f"{_SVG}style") or ""
        light, _, dark = style.partition("@media (prefers-color-scheme:dark)")
        used = {name for node in self.root.iter() for name in node.get("class", "").split()}
        # What has a colour has one in the light and one in the dark.
        assert used - {"big", "head", "small", "end", "mid"} <= set(re.findall(r"\.([\w-]+)\{fill:", light))
        assert re.findall(r"\.([\w-]+)\{fill:", light) == re.findall(r"\.([\w-]+)\{fill:", dark)
        for node in self.root.iter():
            assert node.tag.startswith(_SVG)
            assert not set(node.attrib) & {"href", "onload", "style"}

    def bar(self, name: str) -> list[tuple[str, float, float, int]]:
        """Class, place, width and bytes of each piece of a bar, which follow each other without a gap."""
        group = next(g for g in self.root.iter(f"{_SVG}g") if g.get("clip-path") == f"url(#{name})")
        pieces = [
            (
                r.get("class", ""),
                float(r.get("x", "")),
                float(r.get("width", "")),
                int(r.get("data-bytes", "")),
            )
            for r in group.iter(f"{_SVG}rect")
        ]
        at = 40.0
        for _, x, width, _ in pieces:
            assert abs(x - at) < _NEAR
            assert width >= 0
            at = x + width
        assert abs(at - 40 - _WIDTH) < _NEAR
        whole = sum(size for *_, size in pieces)
        for _, _, width, size in pieces:
            assert abs(width - _WIDTH * size / whole) < _NEAR
        return pieces


def _tiers(pieces: Sequence[tuple[str, float, float, int]]) -> dict[str, int]:
    out: dict[str, int] = defaultdict(int)
    for name, _, _, size in pieces:
        out[name] += size
    return dict(out)


def _check(plan: Plan, prediction: Prediction | None = None) -> Picture:
    picture = Picture(plot.svg(plan, prediction))
    memory = {name: getattr(plan.memory, name) for name in _SHARES}
    free = plan.memory.limit - plan.memory.total
    expected = {name: size for name, size in memory.items() if size} | {"free": max(free, 0)}
    pieces = picture.bar("memory")
    assert _tiers(pieces) == expected
    assert [name for name, *_ in pieces] == list(expected)
    strip = picture.bar("weights")
    pinned = sum(chunk.bytes for chunk in plan.chunks if chunk.pinned)
    streamed = sum(chunk.bytes for chunk in plan.chunks if not chunk.pinned)
    tiers = _tiers(strip)
    single = tiers.pop("single", 0)
    assert tiers == {name: size for name, size in (("pinned", pinned), ("ring", streamed)) if size}
    assert single + pinned + streamed == plan.weights_bytes
    if len(plan.chunks) <= 240:
        order = [("pinned" if chunk.pinned else "ring", chunk.bytes) for chunk in plan.chunks]
        assert [(name, size) for name, _, _, size in strip if name != "single"] == order
    return picture


def _plan(path: Path, **options: Any) -> Plan:
    with Model.open(path) as model:
        return model.plan(device="CPU", **options)


@pytest.mark.parametrize(
    "options",
    [{"memory": "1GiB"}, {"memory": "48M"}, {"chunk": "256K"}, {"memory": "48M", "mode": "map"}],
    ids=str,
)
def test_the_bytes_are_those_of_the_plan(engine: Installed, smollm: Path, options: dict[str, Any]) -> None:
    plan = _plan(smollm, threads=1, **options)
    picture = _check(plan)
    assert not any("per token" in text for text in picture.texts)
    if options.get("memory") == "48M" and "mode" not in options:
        assert 0 < sum(chunk.pinned for chunk in plan.chunks) < len(plan.chunks)
        assert "layer 0" in picture.texts
        assert "5" in picture.texts


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_read_singly_is_a_thin_note(engine: Installed, made: Callable[..., Path], tied: bool) -> None:
    path = made(layers=2, embed=128, vocab=2000, tied=tied)
    picture = _check(_plan(path, memory="64M", ctx=64))
    strip = picture.bar("weights")
    if tied:
        # Then the same matrix is the output, and lies in chunks.
        assert "single" not in _tiers(strip)
        assert not any("singly" in text for text in picture.texts)
        return
    assert strip[0][::3] == ("single", 2000 * 128 * 4)
    heights = {r.get("class"): float(r.get("height", "")) for r in picture.root.iter(f"{_SVG}rect")}
    assert heights["single"] < 52
    assert any(text.startswith("embeddings") and "rows read singly" in text for text in picture.texts)


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (
            Prediction(0.4167, "disk", 640 / 1536, 0.1, 640 * 2**20, 2**30),
            [
                "417 ms per token",
                "predicted: 2.4 tokens/s",
                "the disk binds: 640.0 MiB in each pass, at 1.5 GiB/s",
            ],
        ),
        (
            Prediction(0.0042, "compute", 0.0, 1 / 9, 0, 2**30),
            ["4.2 ms per token", "predicted: 238 tokens/s", "computing binds, at 9.0 GiB/s of weights"],
        ),
        (
            Prediction(35.21, "link", 16.0, 4.0, 2**37, 2**37),
            ["35.2 s per token", "the link to the device binds: 128.0 GiB in each pass, at 8.0 GiB/s"],
        ),
        (Prediction(1234.5, "disk", 1024.0, 1.0, 2**30, 2**30), ["1,234 s per token"]),
    ],
    ids=lambda value: getattr(value, "limit", ""),
)
def test_the_prediction_is_said_with_the_limit_that_binds(
    engine: Installed, tiny: Path, prediction: Prediction, said: list[str]
) -> None:
    assert set(said) <= set(_check(_plan(tiny, memory="64M"), prediction).texts)


def test_names_that_would_be_markup_are_text(engine: Installed, tmp_path: Path) -> None:
    hostile = "</text><script>&\"'\x1b]]>\ufffe\u202e"
    path = tmp_path / "hostile.gguf"
    writer = gguf.GGUFWriter(path, hostile)
    for name in ("<b>&amp;", 'a"b', "]]>\x01\t"):
        writer.add_tensor(name, np.ones((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plan = _plan(path, memory="16M", mode="map")
    assert plan.architecture == hostile
    picture = _check(plan)
    shown = "</text><script>&\"'\\x1b]]>\\ufffe\\u202e"
    assert shown[:31] + "…" in picture.texts
    titles = [title.text or "" for title in picture.root.iter(f"{_SVG}title")]
    assert any("<b>&amp;" in title and "]]>\\x01\\t" in title for title in titles)
    unlike = replace(plan, device="<GPU&>", memory=replace(plan.memory, source="<&cgroup>"))
    texts = _check(unlike).texts
    assert any("<GPU&>" in text for text in texts)
    assert any("(<&cgroup>)" in text for text in texts)


def test_a_device_with_memory_of_its_own_may_hold_more_than_the_hosts_limit(
    engine: Installed, tiny: Path
) -> None:
    plan = _plan(tiny, memory="64M")
    memory = replace(plan.memory, limit=plan.memory.total // 2)
    picture = _check(replace(plan, memory=memory))
    # The limit is marked where it lies.
    assert sum(p.get("class") == "ink" for p in picture.root.iter(f"{_SVG}path")) == 1
    assert not any(p.get("class") == "ink" for p in _check(plan).root.iter(f"{_SVG}path"))


def _part(index: int, size: int, rows: int) -> Part:
    return Part(f"blk.{index // 60}.ffn_up.weight", index, index + 1, rows, size)


def _chunks(sizes: Sequence[int], pinned: Callable[[int], bool]) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(
            i, "CPU", size, size, pinned(i), hosted=False, shared=False, parts=(_part(i, size, len(sizes)),)
        )
        for i, size in enumerate(sizes)
    )


@pytest.mark.parametrize("count", [0, 1, 239, 240, 241, 500, 7763])
@pytest.mark.parametrize(
    "pinned",
    [
        lambda i: False,
        lambda i: True,
        lambda i: i % 2 == 0,
        lambda i: i % 35 == 3,
        lambda i: i == 170,
        lambda i: i < 100,
    ],
    ids=["none", "all", "every second", "a few", "one", "the first"],
)
def test_any_number_of_chunks_is_drawn(
    engine: Installed, tiny: Path, count: int, pinned: Callable[[int], bool]
) -> None:
    choose = random.Random(count)
    chunks = _chunks([choose.randrange(1, 40_000_000) for _ in range(count)], pinned)
    plan = replace(_plan(tiny, memory="64M"), chunks=chunks, weights_bytes=sum(c.bytes for c in chunks))
    found = plot.segments(chunks)
    assert len(found) <= 240
    assert sum(segment.count for segment in found) == count
    if count:
        _check(plan)
    else:
        Picture(plot.svg(replace(plan, weights_bytes=0), None))
    runs = sum(i == 0 or chunks[i].pinned != chunks[i - 1].pinned for i in range(count))
    if count > 240 and runs <= 24:
        # What can be drawn in its order is.
        assert [segment.pinned for segment in found] == [
            c.pinned for i, c in enumerate(chunks) if i == 0 or c.pinned != chunks[i - 1].pinned
        ]
    if runs > 240:
        # No chunk is drawn far from where it is computed, and each tier can be seen.
        whole = max(sum(c.bytes for c in chunks), 1)
        assert max(segment.bytes for segment in found) <= whole / 11
        for tier in (True, False):
            assert max(s.bytes for s in found if s.pinned is tier) * _WIDTH / whole > 1


def test_its_caption_and_its_legend_count_the_same_bytes(engine: Installed, smollm: Path) -> None:
    plan = _plan(smollm, threads=1, memory="48M")
    read = sum(chunk.mapped for chunk in plan.chunks if not chunk.pinned)
    assert format_size(read) != format_size(sum(c.bytes for c in plan.chunks if not c.pinned))
    picture = _check(plan, Prediction(1.0, "disk", 1.0, 0.1, read, plan.weights_bytes))
    said = [text for text in picture.texts if "in each pass" in text]
    assert len(said) == 2
    assert all(format_size(read) in text for text in said)


def _unmeasured(text: str) -> list[str]:
    """A plan's lines without those that are measured anew each time."""
    measured = ('"seconds"', '_seconds"', '_rate"', '"limit": "', "about ")
    return [line for line in text.splitlines() if not any(word in line for word in measured)]


def test_the_command_writes_it_beside_what_it_prints(engine: Installed, smollm: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    path.write_text("what was there before")
    options = ("--memory", "48M", "--device", "CPU")
    for more in (("--ctx", 256), ("--ctx", 256, "--json"), ("--mode", "map", "--json")):
        plain = engine.run("plan", smollm, *options, *more)
        done = engine.run("plan", smollm, *options, *more, "--plot", path)
        assert (done.returncode, done.stderr) == (0, "")
        assert _unmeasured(done.stdout) == _unmeasured(plain.stdout)
        assert [file.name for file in tmp_path.iterdir()] == ["plan.svg"]
        picture = Picture(path.read_text(encoding="utf-8"))
        if "--json" in more:
            chunks = json.loads(done.stdout)["chunks"]
            tiers = _tiers(picture.bar("weights"))
            assert tiers.get("pinned", 0) == sum(c["bytes"] for c in chunks if c["pinned"])
            assert tiers["ring"] == sum(c["bytes"] for c in chunks if not c["pinned"])


def test_a_place_that_cannot_be_written_is_refused(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    for place in (tmp_path / "none" / "plan.svg", tmp_path):
        done = engine.run("plan", tiny, "--plot", place)
        assert (done.returncode, done.stdout) == (2, "")
        assert str(place) in done.stderr
    if Path("/proc/self").exists():
        # Where root cannot write either.
        done = engine.run("plan", tiny, "--plot", "/proc/plan.svg")
        assert (done.returncode, done.stdout) == (8, ""), done.stderr
        assert "/proc/plan.svg cannot be written" in done.stderr
    assert list(tmp_path.iterdir()) == []
