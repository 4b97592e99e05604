"""Makers of files that hold a vocabulary and next to nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
from gguf_files import byte_symbols

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_SPACE = "\u2581"
_LONGEST = 6


@dataclass(frozen=True)
class Pieces:
    """A vocabulary: (text, score, type) of each token, and what else the file says of its tokenizer."""

    tokens: tuple[tuple[str, float, int], ...]
    name: str = "made"
    integer_scores: bool = False
    keys: dict[str, int | bool] = field(default_factory=dict)
    template: str | None = None


def trained(
    texts: Iterable[str],
    special: Sequence[tuple[str, int]] = (),
    *,
    count: int = 3000,
    seed: int = 1,
) -> tuple[tuple[str, float, int], ...]:
    """The unknown token, <s> and </s>, the bytes, `special` and then pieces that are frequent in `texts`.

    Scores are drawn at random with many ties, so that the order of merges matters. Rare characters have no
    piece and are spelt in bytes.
    """
    rng = random.Random(seed)
    characters: Counter[str] = Counter()
    frequent: Counter[str] = Counter()
    for text in texts:
        for word in text.replace(" ", " " + _SPACE).split(" "):
            characters.update(word)
            for length in range(2, _LONGEST + 1):
                frequent.update(word[i : i + length] for i in range(len(word) - length + 1))
    by_count = sorted(frequent.items(), key=lambda item: (-item[1], item[0]))
    single = sorted(character for character, times in characters.items() if times > 2)
    tokens = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    tokens += [(text, 0.0, kind) for text, kind in special]
    known = {text for text, _, _ in tokens}
    for text in [*single, *(text for text, _ in by_count)]:
        if len(tokens) >= count:
            break
        # llama.cpp ends a token's text at a NUL.
        if text not in known and "\0" not in text:
            known.add(text)
            score = -1000.0 if len(text) == 1 else -float(rng.randint(0, 300))
            tokens.append((text, score, NORMAL))
    return tuple(tokens)


def pairs(path: Path, pre: str) -> Path:
    """A byte-level vocabulary of every two bytes, merged in no order: each cut between words moves a pair."""
    symbols = byte_symbols()
    merges = [f"{left} {right}" for left in symbols for right in symbols]
    random.Random(2).shuffle(merges)
    writer = _writer(path, "pairs")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*symbols, *(merge.replace(" ", "") for merge in merges)])
    writer.add_token_types([NORMAL] * (len(symbols) + len(merges)))
    writer.add_token_merges(merges)
    return _finish(writer, path)


def write(path: Path, pieces: Pieces) -> Path:
    """A SentencePiece-style vocabulary."""
    writer = _writer(path, pieces.name)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _, _ in pieces.tokens])
    values = [score for _, score, _ in pieces.tokens]
    writer.add_token_scores([int(value) for value in values] if pieces.integer_scores else values)
    writer.add_token_types([kind for _, _, kind in pieces.tokens])
    for key, value in pieces.keys.items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add(f"tokenizer.ggml.{key}", value)
    if pieces.template is not None:
        writer.add_chat_template(pieces.template)
    return _finish(writer, path)


def _writer(path: Path, name: str) -> gguf.GGUFWriter:
    """The keys that llama.cpp wants beside a vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    return writer


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.add_tensor("token_embd.weight", np.zeros((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
