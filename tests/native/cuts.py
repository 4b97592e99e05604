"""Chunk sizes that cut a model into a wanted number of chunks."""

from __future__ import annotations

from typing import Any

from floatllm import Model, UsageError

MOST = 0
"""In place of a number of chunks: as many as the model can be cut into."""


def chunk_size(model: Model, chunks: int, **plan: Any) -> int:
    """Bytes of the smallest chunk that leaves the model in `chunks` of them, or in the most."""

    def count(size: int) -> int | None:
        try:
            return len(model.plan(chunk=size, **plan).chunks)
        except UsageError:
            return None

    # Larger chunks are fewer.
    low, high = 1, 2 * sum(tensor.size for tensor in model.tensors)
    while low < high:
        middle = (low + high) // 2
        found = count(middle)
        if found is None or (chunks != MOST and found > chunks):
            low = middle + 1
        else:
            high = middle
    assert chunks in (MOST, count(low)), (chunks, count(low))
    return low
