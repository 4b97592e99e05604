"""What the engine tells of its work: when bytes came, when chunks were computed, what was waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from floatllm import Engine, Event, Model, Plan
from installed import Installed

# Times are sums and differences of doubles.
_ROUNDING = 1e-9
_BOUNDS: dict[str, dict[str, Any]] = {
    "whole": {},
    "ring": {"chunk": "2M"},
    "pinned and ring": {"memory": "64M"},
}


def _of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def _check_times(plan: Plan, events: list[Event], lasted: float) -> None:
    ends: dict[int, float] = {}
    until = 0.0
    for event in events:
        assert event.chunks == len(plan.chunks)
        if event.kind == "tensor":
            assert event.tensor is not None
            assert (event.seconds, event.began, event.waited) == (0, 0, 0)
            continue
        assert event.tensor is None
        assert event.device == "CPU"
        end = event.began + event.seconds
        assert event.began >= 0
        assert event.seconds > 0
        assert end <= lasted
        if event.kind == "read":
            assert event.bytes == plan.chunks[event.chunk].mapped
            assert event.waited == 0
            ends[event.chunk] = end
            continue
        # One after the other, and none begins to compute before its bytes are there.
        assert event.bytes == plan.chunks[event.chunk].bytes
        assert event.began >= until - _ROUNDING
        until = end
        assert 0 <= event.waited <= event.seconds
        assert ends[event.chunk] <= event.began + event.waited + _ROUNDING


@pytest.mark.parametrize("io", ["mmap", "direct"])
@pytest.mark.parametrize("bound", list(_BOUNDS))
def test_every_chunk_is_told_each_time_and_every_reading_once(
    engine: Installed, smollm: Path, bound: str, io: str
) -> None:
    with Model.open(smollm) as model:
        plan = model.plan(device="CPU", ctx=256, threads=1, io=io, **_BOUNDS[bound])
        began = time.monotonic()
        passes: list[list[Event]] = []
        with Engine(plan) as session:
            for tokens in ([1, 2, 3], [4], [5, 6]):
                passes.append([])
                session.on_event(passes[-1].append)
                session.forward(tokens)
        lasted = time.monotonic() - began
    streamed = [chunk.index for chunk in plan.chunks if not chunk.pinned]
    assert (len(streamed) > 0, len(streamed) < len(plan.chunks)) == {
        "whole": (False, True),
        "ring": (True, False),
        "pinned and ring": (True, True),
    }[bound]
    for index, events in enumerate(passes):
        assert [event.chunk for event in _of(events, "chunk")] == list(range(len(plan.chunks)))
        # What stays is read once, however often it is bound again.
        told = [event.chunk for event in _of(events, "read")]
        assert told == (streamed if index else list(range(len(plan.chunks))))
    _check_times(plan, [event for events in passes for event in events], lasted)
    # All of it was asked for before the first pass, but not more than the slots hold of what streams.
    first = min(event.began for event in _of(passes[0], "chunk"))
    early = [event for event in _of(passes[0], "read") if event.began < first]
    assert len(early) <= len(plan.chunks) - len(streamed) + plan.slots


def test_mapping_tells_the_same(engine: Installed, image_like: Path) -> None:
    with Model.open(image_like) as model:
        plan = model.plan("64M", "CPU", mode="map", chunk="128K")
        began = time.monotonic()
        events: list[Event] = []
        with Engine(plan) as session:
            session.map(events.append)
            session.map(events.append)
        _check_times(plan, events, time.monotonic() - began)
    assert len(plan.chunks) > 1
    for kind in ("read", "chunk"):
        assert [event.chunk for event in _of(events, kind)] == list(range(len(plan.chunks))) * 2


def test_waiting_is_waiting_for_bytes_alone(engine: Installed, made: Callable[..., Path]) -> None:
    with Model.open(made(layers=4, embed=256, feed=512)) as model:
        plan = model.plan("64M", "CPU", ctx=64, chunk="1M")
        chunks: list[Event] = []

        def listen(event: Event) -> None:
            if event.kind == "chunk":
                chunks.append(event)
            elif event.kind == "read":
                time.sleep(0.05)

        with Engine(plan) as session:
            session.on_event(listen)
            session.forward([1])
            # While the listener slept, the slots were filled.
            session.forward([2])
    assert len(chunks) > 2 * plan.slots
    for event in chunks:
        assert event.seconds >= 0.05
        assert event.waited <= event.seconds - 0.05
    assert min(event.waited for event in chunks) > 0


def test_what_a_stopped_pass_read_ahead_is_read_again(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:
        plan = model.plan("64M", "CPU", ctx=256, threads=1)
        began = time.monotonic()
        events: list[Event] = []
        with Engine(plan) as session:
            session.on_event(events.append)
            session.forward([1])
            known = len(events)
            last = len(plan.chunks) // 2

            def stop(event: Event) -> None:
                events.append(event)
                if event.kind == "chunk" and event.chunk == last:
                    raise LookupError

            session.on_event(stop)
            with pytest.raises(LookupError):
                session.forward([2])
            stopped = len(events)
            session.on_event(events.append)
            session.forward([2])
        _check_times(plan, events, time.monotonic() - began)
    streamed = [chunk.index for chunk in plan.chunks if not chunk.pinned]
    assert [event.chunk for event in _of(events[known:stopped], "read")] == [i for i in streamed if i <= last]
    assert [event.chunk for event in _of(events[stopped:], "read")] == streamed
