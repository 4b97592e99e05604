"""Small random models of every architecture that the engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from k_blocks import K_TYPES, random_blocks

ARCHS = ("llama", "qwen2", "qwen3", "phi3", "gemma3")
VOCAB = 384
EMBED, HEADS, KV_HEADS, HEAD, FEED = 256, 4, 2, 64, 512


@dataclass(frozen=True)
class Small:
    """One model: `matrix` is the type of every matrix."""

    arch: str
    matrix: Type = Type.F32

    @property
    def layers(self) -> int:
        """Gemma 3 needs seven for one of its layers to see everything."""
        return 7 if self.arch == "gemma3" else 3

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the token embedding."""
        return self.arch in ("qwen3", "gemma3")


def write(path: Path, model: Small) -> Path:
    """Writes the model; the same bytes with every NumPy, whose legacy generator is frozen."""
    rng = np.random.RandomState(5)
    writer = gguf.GGUFWriter(path, model.arch)
    _keys(writer, model)
    for name, shape in _tensors(model):
        if len(shape) == 1:
            middle = 0.0 if name.endswith(".bias") else 2.0 if "rope" in name else 1.0
            writer.add_tensor(name, (middle + 0.1 * rng.standard_normal(shape)).astype(np.float32))
            continue
        spread = shape[1] ** -0.5
        if model.matrix in K_TYPES:
            blocks = random_blocks(rng, *shape, model.matrix, spread)
            writer.add_tensor(name, blocks, raw_dtype=model.matrix)
            continue
        values = (rng.standard_normal(shape) * spread).astype(np.float32)
        if model.matrix == Type.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, model.matrix), raw_dtype=model.matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def split(folder: Path, source: Path, tensors: int, *, bare_first: bool = False) -> Path:
    """The model of `source` in files of at most `tensors` tensors each; returns the first.

    With `bare_first` the first holds metadata alone.
    """
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(
        folder / "split.gguf", arch, split_max_tensors=tensors, small_first_shard=bare_first
    )
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], element)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(folder.glob("split-*.gguf"))


def _keys(writer: gguf.GGUFWriter, model: Small) -> None:
    writer.add_block_count(model.layers)
    writer.add_context_length(1024)
    writer.add_embedding_length(EMBED)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("no_vocab")
    if model.arch in ("qwen3", "gemma3"):
        writer.add_key_length(HEAD)
        writer.add_value_length(HEAD)
    if model.arch == "gemma3":
        writer.add_sliding_window(16)
    if model.arch == "phi3":
        writer.add_rope_scaling_orig_ctx_len(1024)


def _tensors(model: Small) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (VOCAB, EMBED)
    if model.arch == "llama":
        yield "rope_freqs.weight", (HEAD // 2,)
    for layer in range(model.layers):
        for name, shape in (*_attention(model.arch), *_feed_forward(model.arch)):
            yield f"blk.{layer}.{name}", shape
    yield "output_norm.weight", (EMBED,)
    if not model.tied:
        yield "output.weight", (VOCAB, EMBED)


def _attention(arch: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    query, key = HEADS * HEAD, KV_HEADS * HEAD
    yield "attn_norm.weight", (EMBED,)
    if arch == "phi3":
        yield "attn_qkv.weight", (query + 2 * key, EMBED)
    else:
        for part, rows in (("q", query), ("k", key), ("v", key)):
            yield f"attn_{part}.weight", (rows, EMBED)
            if arch == "qwen2":
                yield f"attn_{part}.bias", (rows,)
    if arch in ("qwen3", "gemma3"):
        yield "attn_q_norm.weight", (HEAD,)
        yield "attn_k_norm.weight", (HEAD,)
    yield "attn_output.weight", (EMBED, query)
    if arch == "gemma3":
        yield "post_attention_norm.weight", (EMBED,)


def _feed_forward(arch: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "ffn_norm.weight", (EMBED,)
    if arch == "phi3":
        yield "ffn_up.weight", (2 * FEED, EMBED)
    else:
        yield "ffn_gate.weight", (FEED, EMBED)
        yield "ffn_up.weight", (FEED, EMBED)
    yield "ffn_down.weight", (EMBED, FEED)
    if arch == "gemma3":
        yield "post_ffw_norm.weight", (EMBED,)
