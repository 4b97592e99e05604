"""The forward pass of a llama model in plain Python: what the engine must compute, without any of its code.

Sources: RMS norm (arXiv 1910.07467), rotary positions over neighbouring pairs (arXiv 2104.09864),
grouped-query attention (arXiv 2305.13245), SwiGLU (arXiv 2002.05202).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import mul
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

    from floatllm._testmodel import Shape, Weight

Vector = Sequence[float]


def logits(shape: Shape, weights: Iterable[Weight], tokens: Sequence[int]) -> list[float]:
    """The `vocab` logits that follow the last of `tokens`."""
    rows = {weight.name: weight.rows for weight in weights}
    cache: list[tuple[list[Vector], list[Vector]]] = [([], []) for _ in range(shape.layers)]
    state: list[float] = []
    for position, token in enumerate(tokens):
        state = list(rows["token_embd.weight"][token])
        for layer in range(shape.layers):
            own = {name.split(".", 2)[2]: r for name, r in rows.items() if name.startswith(f"blk.{layer}.")}
            normed = _rms(state, own["attn_norm.weight"][0], shape.eps)
            state = _add(state, _attention(shape, own, normed, position, cache[layer]))
            normed = _rms(state, own["ffn_norm.weight"][0], shape.eps)
            gate = [_silu(x) for x in _apply(own["ffn_gate.weight"], normed)]
            up = _apply(own["ffn_up.weight"], normed)
            state = _add(state, _apply(own["ffn_down.weight"], list(map(mul, gate, up))))
    output = rows.get("output.weight", rows["token_embd.weight"])
    return _apply(output, _rms(state, rows["output_norm.weight"][0], shape.eps))


def nmse(found: Iterable[float], expected: Sequence[float]) -> float:
    """Mean square error over the mean square of `expected`."""
    wrong = math.fsum((a - b) ** 2 for a, b in zip(found, expected, strict=True))
    return wrong / math.fsum(b * b for b in expected)


def _attention(
    shape: Shape,
    own: dict[str, list[array[float]]],
    state: Vector,
    position: int,
    cache: tuple[list[Vector], list[Vector]],
) -> list[float]:
    head = shape.embed // shape.heads
    keys, values = cache
    query = _rotate(_apply(own["attn_q.weight"], state), head, position, shape.rope_base)
    keys.append(_rotate(_apply(own["attn_k.weight"], state), head, position, shape.rope_base))
    values.append(_apply(own["attn_v.weight"], state))
    mixed: list[float] = []
    for index in range(shape.heads):
        shared = index * shape.kv_heads // shape.heads * head
        own_query = query[index * head : (index + 1) * head]
        scores = [_dot(own_query, key[shared : shared + head]) / math.sqrt(head) for key in keys]
        top = max(scores)
        parts = [math.exp(score - top) for score in scores]
        total = math.fsum(parts)
        columns = range(shared, shared + head)
        mixed += [_dot(parts, [value[column] for value in values]) / total for column in columns]
    return _apply(own["attn_output.weight"], mixed)


def _rotate(vector: list[float], head: int, position: int, base: float) -> list[float]:
    out = list(vector)
    for start in range(0, len(vector), 2):
        angle = position * base ** (-(start % head) / head)
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = vector[start], vector[start + 1]
        out[start], out[start + 1] = a * cos - b * sin, a * sin + b * cos
    return out


def _apply(rows: Iterable[Vector], vector: Vector) -> list[float]:
    return [_dot(row, vector) for row in rows]


def _dot(a: Vector, b: Vector) -> float:
    return math.fsum(map(mul, a, b))


def _add(a: Vector, b: Vector) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _rms(vector: Vector, scale: Vector, eps: float) -> list[float]:
    inverse = 1 / math.sqrt(math.fsum(x * x for x in vector) / len(vector) + eps)
    return [x * inverse * s for x, s in zip(vector, scale, strict=True)]


def _silu(x: float) -> float:
    return x / (1 + math.exp(-x))
