"""Writes native/floatllm/_unicode.py from what llama.cpp takes for a letter, a number and white space.

Needs llama-cpp-python and tests/gguf on PYTHONPATH; run by hand. A vocabulary of bytes is given merges of
"a", "1" and a line feed with any byte: "a" merges with the first byte of a character only in one word.
"""

from __future__ import annotations

import tempfile
import textwrap
from itertools import groupby
from pathlib import Path

import gguf
import llama_cpp
from gguf_files import byte_symbols

_CLASSES = {"_LETTERS": "a", "_NUMBERS": "1", "_SPACES": "\n"}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TARGET = Path(__file__).resolve().parents[2] / "native" / "floatllm" / "_unicode.py"


def probe(path: Path) -> llama_cpp.Llama:
    """The vocabulary: 256 bytes, then the merges."""
    symbols = byte_symbols()
    pairs = [(symbols[ord(first)], symbol) for first in _CLASSES.values() for symbol in symbols]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(symbols + [first + second for first, second in pairs])
    writer.add_token_types([1] * (256 + len(pairs)))
    writer.add_token_merges([f"{first} {second}" for first, second in pairs])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


def runs(model: llama_cpp.Llama, first: str) -> str:
    """Lengths of the runs outside and inside the class, in base 36."""
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    inside = (
        (point, model.tokenize((first + chr(point)).encode(), add_bos=False, special=False)[0] >= 256)
        for point in points
    )
    edges = [next(group)[0] for _, group in groupby(inside, key=lambda item: item[1])]
    return " ".join(_base36(b - a) for a, b in zip([0, *edges[1:]], edges[1:], strict=False))


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if not number:
            return text


def literal(name: str, text: str) -> str:
    """An assignment of at most 110 columns a line."""
    lines = textwrap.wrap(text, 100)
    if len(lines) == 1:
        return f'{name} = "{text}"\n'
    return f"{name} = (\n" + "\n".join(f'    "{line} "' for line in lines[:-1]) + f'\n    "{lines[-1]}"\n)\n'


def main() -> None:
    """Replaces the three tables in the module and leaves its code."""
    source = _TARGET.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        model = probe(Path(folder) / "probe.gguf")
        tables = "".join(literal(name, runs(model, first)) for name, first in _CLASSES.items())
    start, end = source.index("_LETTERS ="), source.index("\n\ndef _edges")
    _TARGET.write_text(source[:start] + tables + source[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
