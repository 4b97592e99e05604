"""A small llama model for the self-test: made in plain Python, the same on every machine."""

from __future__ import annotations

import random
import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

F32, F16, Q8_0 = 0, 1, 8
TYPE_NAMES = {F32: "f32", F16: "f16", Q8_0: "q8_0"}
_ALIGNMENT = 32
_BLOCK = 32
_U32, _F32_VALUE, _STRING = 4, 6, 8


@dataclass(frozen=True)
class Shape:
    """Dimensions of the model; head width is `embed // heads`: 64 is one that every backend attends over."""

    layers: int = 4
    embed: int = 128
    heads: int = 2
    kv_heads: int = 1
    feed: int = 256
    vocab: int = 320
    context: int = 128
    rope_base: float = 10000.0
    eps: float = 1e-5


@dataclass(frozen=True)
class Weight:
    """One tensor. `rows` are ne1 arrays of ne0 floats: what the stored, rounded values stand for."""

    name: str
    type: int
    rows: list[array[float]]
    data: bytes

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """ne0..ne3."""
        return (len(self.rows[0]), len(self.rows), 1, 1)


def make(shape: Shape, seed: int = 1) -> list[Weight]:
    """The model's tensors: norms in F32, matrices in F32, F16 and Q8_0 by turns.

    Each has a mean of its own, so that a sum that came from the wrong bytes does not look right.
    """
    rng = random.Random(seed)  # noqa: S311 (no secret: it must be the same everywhere)
    head = shape.embed // shape.heads
    out: list[Weight] = []

    def matrix(name: str, kind: int, width: int, height: int) -> None:
        spread = width**-0.5
        shift = spread * (0.02 + 0.01 * (len(out) % 7))
        values = [spread * 2 * (rng.random() - 0.5) + shift for _ in range(width * height)]
        out.append(_stored(name, kind, values, width))

    def norm(name: str) -> None:
        out.append(_stored(name, F32, [0.9 + 0.2 * rng.random() for _ in range(shape.embed)], shape.embed))

    kinds = (F32, F16, Q8_0)
    matrix("token_embd.weight", F16, shape.embed, shape.vocab)
    for layer in range(shape.layers):
        first, second = kinds[layer % 3], kinds[(layer + 1) % 3]
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm.weight")
        matrix(prefix + "attn_q.weight", first, shape.embed, shape.embed)
        matrix(prefix + "attn_k.weight", first, shape.embed, head * shape.kv_heads)
        matrix(prefix + "attn_v.weight", second, shape.embed, head * shape.kv_heads)
        matrix(prefix + "attn_output.weight", first, shape.embed, shape.embed)
        norm(prefix + "ffn_norm.weight")
        matrix(prefix + "ffn_gate.weight", second, shape.embed, shape.feed)
        matrix(prefix + "ffn_up.weight", second, shape.embed, shape.feed)
        matrix(prefix + "ffn_down.weight", first, shape.feed, shape.embed)
    norm("output_norm.weight")
    matrix("output.weight", Q8_0, shape.embed, shape.vocab)
    return out


def write(path: Path, shape: Shape, weights: Iterable[Weight]) -> None:
    """Writes a GGUF file, version 3."""
    weights = list(weights)
    fields = _fields(shape)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(fields)) + b"".join(fields)
    offset = 0
    for weight in weights:
        width, height = weight.shape[:2]
        dims = (width,) if height == 1 else (width, height)
        header += _text(weight.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, weight.type, offset)
        offset += _padded(len(weight.data))
    with path.open("wb") as file:
        file.write(header.ljust(_padded(len(header)), b"\0"))
        for weight in weights:
            file.write(weight.data.ljust(_padded(len(weight.data)), b"\0"))


def _fields(shape: Shape) -> list[bytes]:
    numbers = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.embed,
        "feed_forward_length": shape.feed,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "rope.dimension_count": shape.embed // shape.heads,
        "vocab_size": shape.vocab,
    }
    reals = {"rope.freq_base": shape.rope_base, "attention.layer_norm_rms_epsilon": shape.eps}
    return [
        _text("general.architecture") + struct.pack("<I", _STRING) + _text("llama"),
        _text("general.name") + struct.pack("<I", _STRING) + _text("floatllm self-test"),
        *(_text(f"llama.{key}") + struct.pack("<II", _U32, value) for key, value in numbers.items()),
        *(_text(f"llama.{key}") + struct.pack("<If", _F32_VALUE, value) for key, value in reals.items()),
    ]


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _stored(name: str, kind: int, values: list[float], width: int) -> Weight:
    if kind == Q8_0:
        data, rounded = _q8_0(values)
    else:
        code = f"<{len(values)}{'e' if kind == F16 else 'f'}"
        data = struct.pack(code, *values)
        rounded = array("f", struct.unpack(code, data))
    rows = [rounded[start : start + width] for start in range(0, len(rounded), width)]
    return Weight(name, kind, rows, data)


def _q8_0(values: list[float]) -> tuple[bytes, array[float]]:
    """Blocks of 32: a half-precision scale, then 32 signed bytes."""
    data = bytearray()
    rounded = array("f")
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        exact = max(map(abs, block)) / 127
        packed = struct.pack("<e", exact)
        (scale,) = struct.unpack("<e", packed)
        steps = [max(-127, min(127, round(value / exact))) if exact else 0 for value in block]
        data += packed + struct.pack(f"{_BLOCK}b", *steps)
        rounded.extend(scale * step for step in steps)
    return bytes(data), rounded
