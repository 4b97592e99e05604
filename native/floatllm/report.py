"""What the engine does, in the project's house style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from floatllm.render import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from floatllm.engine import Event
    from floatllm.model import Model

DONE = "[FloatLLM] Engine successfully mapped."


class Report:
    """Writes each tensor and each chunk the first time it is seen, so that passes do not repeat it."""

    def __init__(self, model: Model, write: Callable[[str], None], *, tensors: bool) -> None:
        """`write` takes one line without its end; `tensors` asks for a line for each tensor."""
        self._tensors = model.tensors
        self._write = write
        self._wanted = tensors
        self._seen: set[int] = set()
        self._chunks = 0

    def __call__(self, event: Event) -> None:
        """An Engine's listener."""
        if event.tensor is not None:
            if self._wanted and event.tensor not in self._seen:
                self._seen.add(event.tensor)
                tensor = self._tensors[event.tensor]
                shape = list(tensor.shape)
                name = printable(tensor.name)
                self._write(f"[FloatLLM] Mapped {name} | Shape: {shape} | Target hardware: {event.device}")
        elif event.kind == "chunk" and event.chunk == self._chunks:
            self._chunks += 1
            self._write(f"[FloatLLM] Chunk {event.chunk + 1}/{event.chunks} executed. Hardware link closed.")
            if self._chunks == event.chunks:
                self._write(DONE)
