"""A model larger than this machine: the header of Llama 3.1 405B is real, its weights are holes in the file.

Dimensions and names: https://github.com/meta-llama/llama-models (models/llama3_1) and llama.cpp's converter;
types as llama.cpp's Q4_K_M gives them to this model.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile import F32, I32, STRING, U32, array, pair, tensor, text

LAYERS, EMBED, FEED, HEADS, KV_HEADS, VOCAB, MERGES = 126, 16384, 53248, 128, 8, 128256, 280147
HEAD = EMBED // HEADS
# ggml's numbers of the types -> elements and bytes of a block.
_F32, _Q4_K, _Q6_K = 0, 12, 14
_BLOCK = {_F32: (1, 4), _Q4_K: (256, 144), _Q6_K: (256, 210)}
_ONE = struct.pack("<e", 1.0)
# The last block of every tensor, so that whoever did not read up to there can be told, and the sum of its
# elements: a one; 256 times 1 * 1; 256 times 1 * (0 - 32), by ggml's layout of these types.
_MARK = {
    _F32: (struct.pack("<f", 1.0), 1.0),
    _Q4_K: (_ONE + bytes(2) + bytes([1] * 4 + [0] * 4 + [1] * 4) + b"\x11" * 128, 256.0),
    _Q6_K: (bytes(192) + b"\x01" * 16 + _ONE, -8192.0),
}


@dataclass(frozen=True)
class Large:
    """What was written: bytes of all tensors together, and the sum over the elements of each, in order."""

    path: Path
    size: int
    sums: tuple[float, ...]


def llama_405b(path: Path, layers: int = LAYERS) -> Large:
    """Llama 3.1 405B with `layers` of its 126 layers (244 GB with all), as a sparse file of a dozen MB."""
    entries, ends, sums, offset = [], [], [], 0
    for name, shape, kind in _tensors(layers):
        entries.append(tensor(name, shape, kind, offset))
        elements, size = _BLOCK[kind]
        offset += math.prod(shape) // elements * size
        ends.append((offset, _MARK[kind][0]))
        sums.append(_MARK[kind][1])
        offset += -offset % 32
    pairs = _pairs(layers)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(entries), len(pairs)) + b"".join(pairs + entries)
    head += bytes(-len(head) % 32)
    with path.open("wb") as file:
        file.write(head)
        for end, mark in ends:
            file.seek(len(head) + end - len(mark))
            file.write(mark)
        file.truncate(len(head) + offset)
    return Large(path, offset, tuple(sums))


def _pairs(layers: int) -> list[bytes]:
    # A vocabulary of the true number of tokens and merges, and about their length.
    tokens = b"".join(text(f"token{i}") for i in range(VOCAB))
    merges = b"".join(text(f"tok {i}") for i in range(MERGES))
    types = struct.pack(f"<{VOCAB}i", *([1] * VOCAB))
    numbers = {
        "block_count": (U32, layers),
        "context_length": (U32, 131072),
        "embedding_length": (U32, EMBED),
        "feed_forward_length": (U32, FEED),
        "attention.head_count": (U32, HEADS),
        "attention.head_count_kv": (U32, KV_HEADS),
        "attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "rope.freq_base": (F32, 500000.0),
        "rope.dimension_count": (U32, HEAD),
        "vocab_size": (U32, VOCAB),
    }
    return [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "Llama 3.1 405B, weights left out"),
        *(pair(f"llama.{key}", kind, value) for key, (kind, value) in numbers.items()),
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, "llama-bpe"),
        array("tokenizer.ggml.tokens", STRING, VOCAB, tokens),
        array("tokenizer.ggml.token_type", I32, VOCAB, types),
        array("tokenizer.ggml.merges", STRING, MERGES, merges),
        pair("tokenizer.ggml.bos_token_id", U32, 128000),
        pair("tokenizer.ggml.eos_token_id", U32, 128009),
    ]


def _tensors(layers: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
    yield "token_embd.weight", (EMBED, VOCAB), _Q4_K
    yield "rope_freqs.weight", (HEAD // 2,), _F32
    for layer in range(layers):
        prefix = f"blk.{layer}."
        # Q4_K_M keeps more bits of the values and of the way down in about half of the layers.
        eighth = LAYERS // 8
        more = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        better = _Q6_K if more else _Q4_K
        yield prefix + "attn_norm.weight", (EMBED,), _F32
        yield prefix + "attn_q.weight", (EMBED, EMBED), _Q4_K
        yield prefix + "attn_k.weight", (EMBED, KV_HEADS * HEAD), _Q4_K
        yield prefix + "attn_v.weight", (EMBED, KV_HEADS * HEAD), better
        yield prefix + "attn_output.weight", (EMBED, EMBED), _Q4_K
        yield prefix + "ffn_norm.weight", (EMBED,), _F32
        yield prefix + "ffn_gate.weight", (EMBED, FEED), _Q4_K
        yield prefix + "ffn_up.weight", (EMBED, FEED), _Q4_K
        yield prefix + "ffn_down.weight", (FEED, EMBED), better
    yield "output_norm.weight", (EMBED,), _F32
    yield "output.weight", (EMBED, VOCAB), _Q6_K
