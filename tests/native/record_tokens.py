"""Writes data/tokens.json: what llama.cpp makes of texts.py. Needs llama-cpp-python; run by hand.

python tests/native/record_tokens.py SmolLM2-135M-Instruct.Q4_1.gguf
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import llama_cpp
from texts import texts

PRE = ("smollm", "gpt-2", "llama-bpe", "qwen2")
# Ordinary and control tokens that one variant declares user-defined.
USER_DEFINED = (3, 4, 20000)
# The rest are kept as digests.
SHOWN = 24


def digest(value: object) -> str:
    """Eight hex digits of a JSON value: enough to notice a difference, and short."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


@contextmanager
def variant(
    source: gguf.GGUFReader, pre: str, user_defined: tuple[int, ...] = ()
) -> Iterator[llama_cpp.Llama]:
    """The model's vocabulary with another pre-tokenizer and no word on bos."""
    field = {
        name: source.fields[f"tokenizer.ggml.{name}"].contents()
        for name in ("tokens", "token_type", "merges")
    }
    types = list(field["token_type"])
    for token in user_defined:
        types[token] = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_block_count(1)
        writer.add_feed_forward_length(64)
        writer.add_head_count(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(field["tokens"])
        writer.add_token_types(types)
        writer.add_token_merges(field["merges"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        yield llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


def piece(vocab: object, token: int) -> bytes:
    """A token as llama.cpp prints it, control tokens not shown."""
    buffer = ctypes.create_string_buffer(512)
    length = llama_cpp.llama_token_to_piece(vocab, token, buffer, 512, 0, False)
    return buffer.raw[:length]


def main(path: str) -> None:
    """Records every variant."""
    source = gguf.GGUFReader(path)
    all_texts = texts()
    marked = [text for text in all_texts if "<|" in text or "name>" in text]
    out: dict[str, object] = {
        "source": f"llama-cpp-python {llama_cpp.__version__}, vocabulary of {Path(path).name}",
        "texts": digest(all_texts),
        "user_defined": list(USER_DEFINED),
    }
    variants: dict[str, object] = {}
    for pre in PRE:
        with variant(source, pre) as model:
            vocab = model._model.vocab
            raw = [model.tokenize(t.encode(), add_bos=False, special=False) for t in all_texts]
            count = llama_cpp.llama_vocab_n_tokens(vocab)
            variants[pre] = {
                "tokens": "".join(map(digest, raw)),
                "first": raw[:SHOWN],
                "special": [model.tokenize(t.encode(), add_bos=False, special=True) for t in marked],
                "whole": model.tokenize(b"Hello", add_bos=True, special=False),
                "ends": [t for t in range(count) if llama_cpp.llama_vocab_is_eog(vocab, t)],
                "pieces": digest([piece(vocab, t).hex() for t in range(count)]),
            }
    with variant(source, PRE[0], USER_DEFINED) as model:
        variants["user-defined"] = {
            "raw": [model.tokenize(t.encode(), add_bos=False, special=False) for t in marked],
            "special": [model.tokenize(t.encode(), add_bos=False, special=True) for t in marked],
            "pieces": [piece(model._model.vocab, token).hex() for token in USER_DEFINED],
        }
    out["variants"] = variants
    target = Path(__file__).parent / "data" / "tokens.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(out, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
