"""A llama forward pass in numpy over the file itself: independent of the engine and of its self-test."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def weights(path: Path) -> dict[str, np.ndarray]:
    """Every tensor, dequantised to float64, with numpy's order of dimensions (the reverse of ne)."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        .reshape(tensor.shape[::-1].tolist())
        .astype(np.float64)
        for tensor in gguf.GGUFReader(path).tensors
    }


def logits(path: Path, tokens: list[int]) -> np.ndarray:
    """Logits after each of `tokens`: [len(tokens), vocab]."""
    fields = gguf.GGUFReader(path).fields
    number = {key.removeprefix("llama."): field.contents() for key, field in fields.items()}
    w = weights(path)
    heads, kv_heads = number["attention.head_count"], number["attention.head_count_kv"]
    eps = number["attention.layer_norm_rms_epsilon"]
    n = len(tokens)
    x = w["token_embd.weight"][tokens]
    head = x.shape[1] // heads
    factors = w.get("rope_freqs.weight", np.ones(head // 2))
    turns = number["rope.freq_base"] ** (-np.arange(0, head, 2) / head) / factors
    angles = np.exp(1j * np.outer(np.arange(n), turns))[:, None, :]
    hidden = np.triu(np.full((n, n), -np.inf), 1)
    for layer in range(number["block_count"]):
        own = {k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"blk.{layer}.")}
        y = _norm(x, own["attn_norm.weight"], eps)
        q = _rotate((y @ own["attn_q.weight"].T).reshape(n, heads, head), angles)
        k = _rotate((y @ own["attn_k.weight"].T).reshape(n, kv_heads, head), angles)
        v = (y @ own["attn_v.weight"].T).reshape(n, kv_heads, head)
        k, v = (np.repeat(side, heads // kv_heads, axis=1) for side in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(head) + hidden
        parts = np.exp(scores - scores.max(axis=-1, keepdims=True))
        parts /= parts.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", parts, v).reshape(n, -1) @ own["attn_output.weight"].T
        y = _norm(x, own["ffn_norm.weight"], eps)
        gate = y @ own["ffn_gate.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ own["ffn_up.weight"].T)) @ own["ffn_down.weight"].T
    return _norm(x, w["output_norm.weight"], eps) @ w.get("output.weight", w["token_embd.weight"]).T


def nmse(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean square error over the mean square of `expected`."""
    return float(np.square(found - expected).sum() / np.square(expected).sum())


def _norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps) * scale


def _rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * angles
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
