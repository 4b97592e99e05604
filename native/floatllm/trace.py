"""`--trace`: what the engine did and when, as Chrome trace events, for https://ui.perfetto.dev to show.

Format: Trace Event Format, JSON object form. Times are microseconds since the engine was made, with three
decimals; they are kept as whole nanoseconds, so that spans which touch do not overlap by rounding.
"""

from __future__ import annotations

import heapq
import json
from typing import TYPE_CHECKING, Any

from floatllm.atomic import AtomicFile

if TYPE_CHECKING:
    from types import TracebackType

    from floatllm.engine import Event
    from floatllm.plan import Plan

_PROCESS, _COMPUTE, _FIRST_LANE = 1, 1, 2
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Trace:
    """An Engine's listener that writes events as they come, and what its plan has of them."""

    def __init__(self, path: str, plan: Plan) -> None:
        """Raises as AtomicFile does where nothing can be written at `path`."""
        self._file = AtomicFile(path)
        self._writer = _Writer(self._file)
        self._reads = _Reads(self._writer)
        self._kept = [chunk.kept for chunk in plan.chunks]
        self._passes = 0
        self._until = 0
        self._writer.open(plan)

    def __enter__(self) -> Trace:  # noqa: PYI034 (Self needs Python 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the file in its place; also behind an error or Ctrl-C, whose own message then counts."""
        try:
            self._reads.close()
            self._writer.close()
            self._file.keep()
        except BaseException:
            self._file.drop()
            if kind is None:
                raise

    def __call__(self, event: Event) -> None:
        """Writes a chunk, or a reading. Raises EngineError where the disk is full."""
        if event.kind == "tensor":
            return
        begin = round(event.began * 1e9)
        end = round((event.began + event.seconds) * 1e9)
        arguments: dict[str, Any] = {
            "chunk": event.chunk,
            "bytes": event.bytes,
            "kept": self._kept[event.chunk],
        }
        if event.kind == "read":
            self._reads.add(begin, end, arguments)
            return
        # Each pass begins with the first chunk, also behind one that was stopped.
        self._passes += event.chunk == 0
        begin = max(begin, self._until)
        self._until = end = max(begin, end)
        ready = min(end, max(begin, round((event.began + event.waited) * 1e9)))
        self._writer.span(
            _COMPUTE, f"chunk {event.chunk}", begin, end, {"pass": max(self._passes, 1), **arguments}
        )
        if ready > begin:
            self._writer.span(_COMPUTE, "waiting", begin, ready)
        if end > ready:
            self._writer.span(_COMPUTE, "computing", ready, end)
        if event.chunk == event.chunks - 1:
            self._reads.end_first_pass()


class _Reads:
    """Spans of reading in as few lanes as hold them side by side, and the bytes in flight.

    A reading is told when its chunk's turn comes. Chunks that stay are all read at first, but told throughout
    the first pass; so that pass's readings are held and sorted. Later ones are told in the order that they
    began, and what began before the last one told is all known.
    """

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._lanes: list[int] = []
        self._held: list[tuple[int, int, int, dict[str, Any]]] = []
        self._edges: list[tuple[int, int]] = []
        self._count = self._flying = 0
        self._first_pass = True

    def add(self, begin: int, end: int, arguments: dict[str, Any]) -> None:
        """Takes a reading; writes those that no later one can come before."""
        self._count += 1
        heapq.heappush(self._held, (begin, self._count, max(begin, end), arguments))
        if not self._first_pass:
            self._write(begin)

    def end_first_pass(self) -> None:
        """Nothing is told late any more."""
        if self._first_pass:
            self._first_pass = False
            self._write(max(self._held)[0] if self._held else 0)

    def close(self) -> None:
        """Writes the rest."""
        self._write(None)

    def _write(self, until: int | None) -> None:
        while self._held and (until is None or self._held[0][0] <= until):
            begin, _, end, arguments = heapq.heappop(self._held)
            self._flight(begin)
            heapq.heappush(self._edges, (begin, arguments["bytes"]))
            heapq.heappush(self._edges, (end, -arguments["bytes"]))
            self._writer.span(self._lane(begin, end), f"chunk {arguments['chunk']}", begin, end, arguments)
        if until is None:
            self._flight(None)

    def _lane(self, begin: int, end: int) -> int:
        for lane, busy in enumerate(self._lanes):
            if busy <= begin:
                self._lanes[lane] = end
                return _FIRST_LANE + lane
        self._lanes.append(end)
        thread = _FIRST_LANE + len(self._lanes) - 1
        self._writer.row(thread, "read" if thread == _FIRST_LANE else f"read {len(self._lanes)}")
        return thread

    def _flight(self, until: int | None) -> None:
        while self._edges and (until is None or self._edges[0][0] < until):
            time = self._edges[0][0]
            while self._edges and self._edges[0][0] == time:
                self._flying += heapq.heappop(self._edges)[1]
            self._writer.counter("in flight", time, self._flying)


class _Writer:
    """Trace events as lines of a JSON document."""

    def __init__(self, file: AtomicFile) -> None:
        self._file = file
        self._between = ""

    def open(self, plan: Plan) -> None:
        about = {
            "device": plan.device,
            "architecture": plan.architecture,
            "mode": plan.mode,
            "io": plan.io,
            "slots": plan.slots,
            "chunks": len(plan.chunks),
            "memory": plan.memory.limit,
        }
        self._file.write(f'{{"displayTimeUnit":"ms","otherData":{_encode(about)},"traceEvents":[\n')
        self._event({"ph": "M", "pid": _PROCESS, "name": "process_name", "args": {"name": "floatllm"}})
        self.row(_COMPUTE, "compute")

    def close(self) -> None:
        self._file.write("\n]}\n")

    def row(self, thread: int, name: str) -> None:
        place = {"ph": "M", "pid": _PROCESS, "tid": thread}
        self._event({**place, "name": "thread_name", "args": {"name": name}})
        self._event({**place, "name": "thread_sort_index", "args": {"sort_index": thread}})

    def span(
        self, thread: int, name: str, begin: int, end: int, arguments: dict[str, Any] | None = None
    ) -> None:
        event = {"ph": "X", "pid": _PROCESS, "tid": thread, "name": name}
        event |= {"ts": begin / 1000, "dur": (end - begin) / 1000}
        self._event(event | {"args": arguments} if arguments else event)

    def counter(self, name: str, time: int, value: int) -> None:
        self._event({"ph": "C", "pid": _PROCESS, "name": name, "ts": time / 1000, "args": {"bytes": value}})

    def _event(self, event: dict[str, Any]) -> None:
        self._file.write(self._between + _encode(event))
        self._between = ",\n"
