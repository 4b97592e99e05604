"""The tokenizer against what llama.cpp was recorded to do (record_tokens.py)."""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf_files
import pytest
import vocabularies
from floatllm import Model, ModelError, Tokenizer
from floatllm.pretokenize import RULES, split
from installed import DATA, Installed
from texts import texts

_RECORDED = json.loads((DATA / "tokens.json").read_text(encoding="utf-8"))
_TEXTS = texts()
_MARKED = [text for text in _TEXTS if "<|" in text or "name>" in text]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


@pytest.fixture(scope="module")
def metadata(engine: Installed, smollm: Path) -> dict[str, Any]:
    with Model.open(smollm) as model:
        keys = ("model", "pre", "tokens", "merges", "token_type", "bos_token_id", "eos_token_id")
        return {f"tokenizer.ggml.{key}": model.metadata[f"tokenizer.ggml.{key}"] for key in keys}


def _expected(pre: str) -> dict[str, Any]:
    # Names that llama.cpp was seen to treat alike are recorded once.
    expected: dict[str, Any] = _RECORDED["variants"][_RECORDED["same"].get(pre, pre)]
    return expected


def _tokenizer(metadata: dict[str, Any], **changed: Any) -> Tokenizer:
    changes = {f"tokenizer.ggml.{key}": value for key, value in changed.items()}
    return Tokenizer.from_metadata({**metadata, **changes})


def test_texts_are_those_that_were_recorded() -> None:
    assert _digest(_TEXTS) == _RECORDED["texts"]


@pytest.mark.parametrize("pre", sorted(RULES))
def test_a_thousand_texts_encode_as_in_llama_cpp(metadata: dict[str, Any], pre: str) -> None:
    tokenizer = _tokenizer(metadata, pre=pre)
    expected = _expected(pre)
    found = [tokenizer.encode(text, add_special=False) for text in _TEXTS]
    assert found[: len(expected["first"])] == expected["first"]
    digests = [expected["tokens"][i : i + 8] for i in range(0, len(expected["tokens"]), 8)]
    wrong = [t for t, tokens, digest in zip(_TEXTS, found, digests, strict=True) if _digest(tokens) != digest]
    assert wrong == []


@pytest.fixture(scope="module")
def two_bytes(engine: Installed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A vocabulary in which each cut between words shows."""
    with Model.open(vocabularies.pairs(tmp_path_factory.mktemp("pairs") / "pairs.gguf", "gpt-2")) as model:
        return {key: model.metadata[key] for key in model.metadata if key.startswith("tokenizer.")}


@pytest.mark.parametrize("pre", sorted(_RECORDED["variants"].keys() - {"user-defined"}))
def test_texts_are_cut_into_words_as_in_llama_cpp(two_bytes: dict[str, Any], pre: str) -> None:
    tokenizer = _tokenizer(two_bytes, pre=pre)
    paired = _expected(pre)["paired"]
    digests = [paired[i : i + 4] for i in range(0, len(paired), 4)]
    found = [_digest(tokenizer.encode(text, add_special=False))[:4] for text in _TEXTS]
    assert [t for t, a, b in zip(_TEXTS, found, digests, strict=True) if a != b] == []


@pytest.mark.parametrize("pre", sorted(RULES))
def test_special_tokens_ends_and_pieces_are_those_of_llama_cpp(metadata: dict[str, Any], pre: str) -> None:
    tokenizer = _tokenizer(metadata, pre=pre)
    expected = _expected(pre)
    special = [tokenizer.encode(text, parse_special=True, add_special=False) for text in _MARKED]
    assert special == expected["special"]
    assert tokenizer.encode("Hello") == expected["whole"]
    assert sorted(tokenizer.end_ids) == expected["ends"]
    assert _digest([tokenizer.piece(token).hex() for token in range(len(tokenizer))]) == expected["pieces"]


def test_user_defined_tokens_are_found_in_raw_text(metadata: dict[str, Any]) -> None:
    types = array("i", metadata["tokenizer.ggml.token_type"])
    for token in _RECORDED["user_defined"]:
        types[token] = 4
    tokenizer = _tokenizer(metadata, token_type=types)
    expected = _RECORDED["variants"]["user-defined"]
    assert [tokenizer.encode(text, add_special=False) for text in _MARKED] == expected["raw"]
    special = [tokenizer.encode(text, parse_special=True, add_special=False) for text in _MARKED]
    assert special == expected["special"]
    assert [tokenizer.piece(t).hex() for t in _RECORDED["user_defined"]] == expected["pieces"]


def test_what_the_file_says_of_bos_and_eos_is_done(metadata: dict[str, Any]) -> None:
    tokenizer = _tokenizer(metadata, add_bos_token=True, add_eos_token=True)
    inner = tokenizer.encode("Hello", add_special=False)
    assert tokenizer.encode("Hello") == [1, *inner, 2]
    assert _tokenizer(metadata, pre="llama-bpe", add_bos_token=False).encode("Hello") == inner


def test_text_comes_back_and_characters_are_held_until_whole(metadata: dict[str, Any]) -> None:
    tokenizer = _tokenizer(metadata)
    text = "naïve 👩‍👩‍👧‍👦 日本語 Größe\n"
    tokens = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(tokens) == text
    decoder = tokenizer.decoder()
    pieces = [decoder.push(token) for token in tokens]
    assert "" in pieces
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + decoder.finish() == text
    cut = tokenizer.decoder()
    heart = tokenizer.encode("👩", add_special=False)
    assert [cut.push(token) for token in heart[:-1]] == [""] * (len(heart) - 1)
    assert cut.finish() == "\ufffd"


def test_bytes_of_a_command_line_that_are_not_utf8_read_as_replacement(metadata: dict[str, Any]) -> None:
    tokenizer = _tokenizer(metadata)
    assert tokenizer.encode("a\udcffb") == tokenizer.encode("a\ufffdb")


def test_a_token_outside_the_vocabulary_is_refused(metadata: dict[str, Any]) -> None:
    tokenizer = _tokenizer(metadata)
    for token in (-1, len(tokenizer)):
        with pytest.raises(ModelError, match="not in the vocabulary"):
            tokenizer.piece(token)


@pytest.mark.parametrize("pre", sorted(RULES))
def test_words_join_to_the_text(pre: str) -> None:
    for text in _TEXTS:
        assert "".join(split(text, RULES[pre])) == text


def test_a_long_word_is_merged_like_its_naive_definition(metadata: dict[str, Any]) -> None:
    tokenizer = _tokenizer(metadata)
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    ids = {text: i for i, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    rng = random.Random(3)
    word = "".join(rng.choice("aeinorstl") for _ in range(300))
    symbols = list(word)
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not pairs:
            break
        _, at = min(pairs)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    assert tokenizer.encode(word, add_special=False) == [ids[symbol] for symbol in symbols]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "bert"}, "'bert'"),
        ({"model": None}, "no tokenizer"),
        ({"pre": "no-such"}, "'no-such'"),
        ({"pre": None}, "not named"),
        ({"tokens": None}, "tokens"),
        ({"merges": 5}, "merges"),
        ({"token_type": array("i", [1])}, "token_type"),
    ],
)
def test_other_tokenizers_are_refused_by_name(
    metadata: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        _tokenizer(metadata, **changes)


_VOCABULARY_MEMORY = """
import json, sys
from floatllm import Model
with Model.open(sys.argv[1]) as model:
    tokens = model.tokenizer.encode("t1 t22 t333 hello" * 100)
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
print(json.dumps({"tokens": len(tokens), "peak": int(peak) * 1024}))
"""


def test_a_vocabulary_of_262_thousand_costs_at_most_64_mib(engine: Installed, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system does not have")
    symbols = gguf_files.byte_symbols()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words, merges = list(letters), []
    for left in words:
        if len(merges) >= 262144 - len(symbols):
            break
        merges += [f"{left} {last}" for last in letters]
        words += [left + last for last in letters]
    joined = [merge.replace(" ", "") for merge in merges]
    path = gguf_files.vocabulary(tmp_path / "v.gguf", [*symbols, *joined], merges)
    found = engine.script(_VOCABULARY_MEMORY, path)
    assert found["tokens"] > 0
    assert found["peak"] <= 64 * 2**20
