"""SentencePiece-style tokenizers against what llama.cpp was recorded to do (record_tokens.py)."""

from __future__ import annotations

import hashlib
import json
import random
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from floatllm import Model, ModelError, Tokenizer
from installed import DATA, Installed
from made_vocabularies import made
from texts import marked_texts, texts
from vocabularies import BYTE, CONTROL, NORMAL, USER_DEFINED, Pieces, trained, write

_RECORDED = json.loads((DATA / "pieces.json").read_text(encoding="utf-8"))
_TEXTS, _MARKED = texts(), marked_texts()
_NAMES = sorted(_RECORDED["variants"])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


def _digests(text: str) -> list[str]:
    return [text[i : i + 8] for i in range(0, len(text), 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module", params=_NAMES)
def named(request: pytest.FixtureRequest, engine: Installed, folder: Path) -> Iterator[tuple[str, Tokenizer]]:
    """Each vocabulary that was recorded."""
    name = request.param
    path = (
        write(folder / f"{name}.gguf", made()[name]) if name in made() else request.getfixturevalue("gemma")
    )
    with Model.open(path) as model:
        yield name, model.tokenizer


def _made(folder: Path, pieces: Pieces) -> Tokenizer:
    with Model.open(write(folder / "made.gguf", pieces)) as model:
        return model.tokenizer


def test_texts_and_vocabularies_are_those_that_were_recorded() -> None:
    assert _digest([_TEXTS, _MARKED]) == _RECORDED["texts"]
    assert (
        _digest([[name, list(pieces.tokens)] for name, pieces in made().items()]) == _RECORDED["vocabularies"]
    )


def test_a_thousand_texts_encode_as_in_llama_cpp(named: tuple[str, Tokenizer]) -> None:
    name, tokenizer = named
    expected = _RECORDED["variants"][name]
    found = [tokenizer.encode(text, add_special=False) for text in _TEXTS]
    assert found[: len(expected["first"])] == expected["first"]
    recorded = zip(_TEXTS, found, _digests(expected["tokens"]), strict=True)
    assert [text for text, tokens, digest in recorded if _digest(tokens) != digest] == []


@pytest.mark.parametrize("kind", ["raw marked", "special"])
def test_special_tokens_are_found_as_in_llama_cpp(named: tuple[str, Tokenizer], kind: str) -> None:
    name, tokenizer = named
    found = [tokenizer.encode(t, parse_special=kind == "special", add_special=False) for t in _MARKED]
    recorded = zip(_MARKED, found, _digests(_RECORDED["variants"][name][kind]), strict=True)
    assert [text for text, tokens, digest in recorded if _digest(tokens) != digest] == []


def test_beginning_ends_and_pieces_are_those_of_llama_cpp(named: tuple[str, Tokenizer]) -> None:
    name, tokenizer = named
    expected = _RECORDED["variants"][name]
    assert tokenizer.encode("Hello") == expected["whole"]
    assert sorted(tokenizer.end_ids) == expected["ends"]
    assert _digest([tokenizer.piece(token).hex() for token in range(len(tokenizer))]) == expected["pieces"]


def test_text_comes_back(named: tuple[str, Tokenizer]) -> None:
    name, tokenizer = named
    space = " " if made().get(name, Pieces(())).keys.get("add_space_prefix", name in made()) else ""
    for text in filter(None, _TEXTS):
        # A space of the vocabulary's own kind comes back as a plain one.
        assert tokenizer.decode(tokenizer.encode(text)) == (space + text).replace("\u2581", " ")


def test_a_long_word_is_merged_like_its_naive_definition(engine: Installed, folder: Path) -> None:
    tokens = trained(_TEXTS, seed=9)
    tokenizer = _made(folder, Pieces(tokens, keys={"add_space_prefix": False}))
    ids = {text: i for i, (text, _, _) in enumerate(tokens)}
    rng = random.Random(3)
    symbols = [rng.choice("aeinorst ") for _ in range(400)]
    word = "".join(symbols)
    symbols = ["\u2581" if symbol == " " else symbol for symbol in symbols]
    while True:
        joined = [(i, symbols[i] + symbols[i + 1]) for i in range(len(symbols) - 1)]
        pairs = [(-tokens[ids[text]][1], i) for i, text in joined if text in ids]
        if not pairs:
            break
        _, at = min(pairs)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    assert tokenizer.encode(word, add_special=False) == [ids[symbol] for symbol in symbols]


def test_a_character_without_piece_and_bytes_is_the_unknown_token(engine: Installed, folder: Path) -> None:
    tokens = (("<unk>", 0.0, 2), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("a", 0.0, NORMAL))
    tokenizer = _made(folder, Pieces((*tokens, ("<0x62>", 0.0, BYTE), ("<0xZZ>", 0.0, BYTE))))
    assert tokenizer.encode("abä", add_special=False) == [0, 3, 4, 0]
    assert tokenizer.piece(5) == b""


def test_what_is_ignored_breaks_special_tokens_and_nothing_else(engine: Installed, folder: Path) -> None:
    special = [("<|user|>", CONTROL), ("<|tool|>", USER_DEFINED)]
    tokenizer = _made(folder, Pieces(trained(_TEXTS, special)))
    plain = tokenizer.encode("Hello <|user|> world", add_special=False)
    assert tokenizer.encode("Hello <|user|> world", parse_special=True, add_special=False) != plain
    broken = "Hello <\ufdd0|user|> world\ufdd0"
    assert tokenizer.encode(broken, parse_special=True, add_special=False, ignore="\ufdd0") == plain
    assert tokenizer.control_texts() == ["<|user|>", "<unk>", "</s>", "<s>"]
    assert tokenizer.special_texts() == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    "scores", [array("f", [0.0]), array("Q", [0] * 3000), 5, "many"], ids=["few", "type", "number", "text"]
)
def test_scores_that_are_not_a_number_for_each_token_are_refused(
    engine: Installed, folder: Path, scores: Any
) -> None:
    with Model.open(write(folder / "scores.gguf", Pieces(trained(_TEXTS)))) as model:
        metadata = {**model.metadata, "tokenizer.ggml.scores": scores}
        with pytest.raises(ModelError, match=r"tokenizer\.ggml\.scores"):
            Tokenizer.from_metadata(metadata)
        del metadata["tokenizer.ggml.scores"]
        assert Tokenizer.from_metadata(metadata).encode("Hello")


def _ten_thousand_tokens(tokenizer: Tokenizer) -> str:
    rng = random.Random(1)
    words = [word for text in _TEXTS for word in text.split(" ") if word]
    prompt = ""
    while len(tokenizer.encode(prompt)) < 10_000:
        prompt += " ".join(rng.choice(words) for _ in range(500)) + "\n"
    return prompt


def test_ten_thousand_tokens_are_encoded_within_a_second(engine: Installed, gemma: Path) -> None:
    with Model.open(gemma) as model:
        prompt = _ten_thousand_tokens(model.tokenizer)
    # One word after another of many scripts, and one word without an end.
    for text in (prompt, prompt.replace(" ", "")):
        with Model.open(gemma) as model:
            tokenizer = model.tokenizer
            started = time.process_time()
            assert len(tokenizer.encode(text)) > 9_000
            # The processor's own time: this machine may have other work.
            assert time.process_time() - started < 1.0


_MEMORY = """
import json, sys
from floatllm import Model
with Model.open(sys.argv[1]) as model:
    tokens = model.tokenizer.encode("The quick brown fox, \U0001f98a and 1234 others." * 100)
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
print(json.dumps({"tokens": len(tokens), "peak": int(peak) * 1024}))
"""


def test_gemmas_vocabulary_costs_at_most_64_mib(engine: Installed, gemma: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system does not have")
    found = engine.script(_MEMORY, gemma)
    assert found["tokens"] > 1000
    # Interpreter and library included.
    assert found["peak"] <= 64 * 2**20
