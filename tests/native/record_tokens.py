"""Writes data/tokens.json and data/pieces.json: what llama.cpp makes of texts.py. Run by hand.

    python tests/native/record_tokens.py SmolLM2-135M-Instruct.Q4_1.gguf gemma-3-270m-q4_k_m.gguf

Needs llama-cpp-python, and tests/gguf on PYTHONPATH.
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
from made_vocabularies import made
from texts import marked_texts, texts
from vocabularies import pairs, write

# Pre-tokenizers; of those in one row, the later ones are only noted where they do the same as the first.
PRE = (
    ("smollm", "starcoder", "refact", "command-r", "minerva-7b"),
    ("gpt-2", "phi-2", "mellum", "gigachat", "a.x-4.0", "trillion"),
    ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0"),
    ("dbrx", "smaug-bpe"),
    ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"),
    ("tekken",),
    ("gpt-4o", "llama4", "kanana2"),
)
# Ordinary and control tokens that one variant declares user-defined.
USER_DEFINED = (3, 4, 20000)
# The rest are kept as digests.
SHOWN = 24
_DATA = Path(__file__).parent / "data"


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
        yield load(path)


def load(path: Path) -> llama_cpp.Llama:
    """The vocabulary of a file."""
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


def piece(vocab: object, token: int) -> bytes:
    """A token as llama.cpp prints it, control tokens not shown."""
    buffer = ctypes.create_string_buffer(512)
    length = llama_cpp.llama_token_to_piece(vocab, token, buffer, 512, 0, False)
    return buffer.raw[:length]


def encoded(model: llama_cpp.Llama, some: list[str], *, special: bool) -> list[list[int]]:
    """Token ids of each text, nothing added."""
    return [model.tokenize(t.encode(), add_bos=False, special=special) for t in some]


def described(model: llama_cpp.Llama, marked: list[str]) -> dict[str, object]:
    """What a vocabulary does with every text, and what it says of its tokens."""
    vocab = model._model.vocab
    raw = encoded(model, texts(), special=False)
    count = llama_cpp.llama_vocab_n_tokens(vocab)
    return {
        "tokens": "".join(map(digest, raw)),
        "first": raw[:SHOWN],
        "special": encoded(model, marked, special=True),
        "whole": model.tokenize(b"Hello", add_bos=True, special=False),
        "ends": [t for t in range(count) if llama_cpp.llama_vocab_is_eog(vocab, t)],
        "pieces": digest([piece(vocab, t).hex() for t in range(count)]),
    }


def marked_of(some: list[str]) -> list[str]:
    """Texts that hold a special token of SmolLM2."""
    return [text for text in some if "<|" in text or "name>" in text]


def paired(pre: str) -> str:
    """Short digests of what becomes of each text where every two bytes of a word may merge."""
    with tempfile.TemporaryDirectory() as folder:
        model = load(pairs(Path(folder) / "pairs.gguf", pre))
        return "".join(digest(tokens)[:4] for tokens in encoded(model, texts(), special=False))


def byte_level(path: str) -> dict[str, object]:
    """Every pre-tokenizer on the vocabulary of SmolLM2."""
    source = gguf.GGUFReader(path)
    marked = marked_of(texts())
    variants: dict[str, object] = {}
    same: dict[str, str] = {}
    for names in PRE:
        for name in names:
            with variant(source, name) as model:
                found = {**described(model, marked), "paired": paired(name)}
            if found == variants.get(names[0]):
                same[name] = names[0]
            else:
                variants[name] = found
    with variant(source, PRE[0][0], USER_DEFINED) as model:
        variants["user-defined"] = {
            "raw": encoded(model, marked, special=False),
            "special": encoded(model, marked, special=True),
            "pieces": [piece(model._model.vocab, token).hex() for token in USER_DEFINED],
        }
    return {
        "source": f"llama-cpp-python {llama_cpp.__version__}, vocabulary of {Path(path).name}",
        "texts": digest(texts()),
        "user_defined": list(USER_DEFINED),
        "variants": variants,
        "same": same,
    }


def pieces(path: str) -> dict[str, object]:
    """SentencePiece's kind: the vocabularies that the tests make, and Gemma's."""
    marked = marked_texts()
    out: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: write(Path(folder) / f"{name}.gguf", made) for name, made in made().items()}
        for name, file in {**files, "gemma-3-270m": Path(path)}.items():
            model = load(file)
            out[name] = {
                **described(model, []),
                "raw marked": "".join(map(digest, encoded(model, marked, special=False))),
                "special": "".join(map(digest, encoded(model, marked, special=True))),
            }
            del model
    return {
        "source": f"llama-cpp-python {llama_cpp.__version__}, {Path(path).name}",
        "texts": digest([texts(), marked]),
        "vocabularies": digest([[name, list(made.tokens)] for name, made in made().items()]),
        "variants": out,
    }


def main(smollm: str, gemma: str) -> None:
    """Records every variant."""
    for name, document in {"tokens": byte_level(smollm), "pieces": pieces(gemma)}.items():
        text = json.dumps(document, separators=(",", ":")) + "\n"
        (_DATA / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
