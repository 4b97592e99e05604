"""Makers of good and bad GGUF files, on top of the `gguf` package. Each returns the path it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type


@dataclass(frozen=True)
class Llama:
    """Dimensions of a tiny llama model. `matrix` is the type of every matrix, `embd` of the embeddings."""

    layers: int = 3
    embed: int = 64
    heads: int = 4
    kv_heads: int = 2
    feed: int = 160
    vocab: int = 256
    context: int = 256
    rope_base: float = 10000.0
    eps: float = 1e-5
    matrix: Type = Type.F32
    embd: Type = Type.F32
    tied: bool = False
    rope_freqs: bool = False
    tokenizer: bool = False
    seed: int = 7


def byte_symbols() -> list[str]:
    """GPT-2's character for each byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def llama(path: Path, model: Llama) -> Path:
    """A llama model with random weights; `tokenizer` gives it one token for each byte (vocab 256)."""
    rng = np.random.default_rng(model.seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny llama")
    writer.add_block_count(model.layers)
    writer.add_context_length(model.context)
    writer.add_embedding_length(model.embed)
    writer.add_feed_forward_length(model.feed)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_layer_norm_rms_eps(model.eps)
    writer.add_rope_freq_base(model.rope_base)
    head = model.embed // model.heads
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(model.vocab)
    if model.tokenizer:
        add_tokenizer(writer, byte_symbols(), [])

    def matrix(name: str, rows: int, columns: int, kind: Type) -> None:
        values = (rng.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)
        _add(writer, name, values, kind)

    def norm(name: str) -> None:
        _add(writer, name, (1 + 0.1 * rng.standard_normal(model.embed)).astype(np.float32), Type.F32)

    matrix("token_embd.weight", model.vocab, model.embed, model.embd)
    if model.rope_freqs:
        _add(writer, "rope_freqs.weight", np.linspace(1, 8, head // 2, dtype=np.float32), Type.F32)
    for layer in range(model.layers):
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm.weight")
        matrix(prefix + "attn_q.weight", model.embed, model.embed, model.matrix)
        matrix(prefix + "attn_k.weight", head * model.kv_heads, model.embed, model.matrix)
        matrix(prefix + "attn_v.weight", head * model.kv_heads, model.embed, model.matrix)
        matrix(prefix + "attn_output.weight", model.embed, model.embed, model.matrix)
        norm(prefix + "ffn_norm.weight")
        matrix(prefix + "ffn_gate.weight", model.feed, model.embed, model.matrix)
        matrix(prefix + "ffn_up.weight", model.feed, model.embed, model.matrix)
        matrix(prefix + "ffn_down.weight", model.embed, model.feed, model.matrix)
    norm("output_norm.weight")
    if not model.tied:
        matrix("output.weight", model.vocab, model.embed, model.matrix)
    return _finish(writer, path)


def image_like(path: Path) -> Path:
    """An architecture that the engine does not compute, with tensors of one to four dimensions."""
    rng = np.random.default_rng(11)
    writer = gguf.GGUFWriter(path, "tinyvision")
    writer.add_uint32("tinyvision.block_count", 2)
    writer.add_array("tinyvision.sizes", [224, 112, 56])
    writer.add_array("tinyvision.flags", [True, False, True])
    writer.add_float32("tinyvision.scale", 0.5)
    writer.add_int64("tinyvision.negative", -5)
    writer.add_string("tinyvision.note", "é ñ\tü")
    shapes = {
        "patch_embd.weight": ((48, 3, 4, 4), Type.F16),
        "conv.0.weight": ((96, 64, 3, 3), Type.F32),
        "stack.weight": ((5, 400, 64), Type.Q8_0),
        "proj.weight": ((96, 64), Type.Q4_0),
        "proj.bias": ((96,), Type.F32),
        "scale": ((1,), Type.F32),
    }
    for name, (shape, kind) in shapes.items():
        # A mean other than zero, so that a sum over the wrong bytes does not look right.
        _add(writer, name, (rng.standard_normal(shape) + 0.5).astype(np.float32), kind)
    return _finish(writer, path)


def vocabulary(path: Path, tokens: list[str], merges: list[str], pre: str = "gpt-2") -> Path:
    """A file with a tokenizer and one small tensor."""
    writer = gguf.GGUFWriter(path, "llama")
    add_tokenizer(writer, tokens, merges, pre)
    _add(writer, "token_embd.weight", np.zeros((1, 32), np.float32), Type.F32)
    return _finish(writer, path)


def add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str], pre: str = "gpt-2") -> None:
    """A byte-level BPE tokenizer whose token 0 is said to begin and end text."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    if merges:
        writer.add_token_merges(merges)
    else:
        # GGUF's writer refuses an empty array, and a vocabulary of bytes alone merges nothing.
        writer.add_token_merges([f"{tokens[0]} {tokens[0]}"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def truncated(path: Path, good: Path, size: int) -> Path:
    """The first `size` bytes of `good`."""
    path.write_bytes(good.read_bytes()[:size])
    return path


def data_start(path: Path) -> int:
    """Where the tensors' data begins in a good file."""
    return min(tensor.data_offset for tensor in gguf.GGUFReader(path).tensors)


def not_gguf(path: Path) -> Path:
    """A text file under a model's name."""
    path.write_text("This is a letter, not a model.\n" * 40, encoding="utf-8")
    return path


def _add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: Type) -> None:
    if kind == Type.F32:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
