"""Guessed tokens: what is looked up, what is verified, and that the text is plain decoding's."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from floatllm import Engine, EngineError, Model, Plan, UsageError, speculate
from floatllm.sampler import likeliest
from gguf import GGMLQuantizationType as Type
from installed import Installed
from near_ties import assert_as_recorded


def _brute_force(tokens: list[int], count: int) -> list[int]:
    for length in (3, 2, 1):
        run = tokens[-length:]
        places = [i for i in range(length, len(tokens)) if tokens[i - length : i] == run]
        if len(run) == length and places:
            out = list(tokens)
            for i in range(count):
                out.append(out[places[-1] + i])
            return out[len(tokens) :]
    return []


@pytest.mark.parametrize("seed", range(20))
def test_a_draft_is_what_followed_the_longest_run(seed: int) -> None:
    rng = random.Random(seed)
    tokens: list[int] = []
    lookup = speculate.Lookup(tokens)
    for _ in range(60):
        count = rng.randrange(9)
        assert lookup.draft(count) == _brute_force(tokens, count)
        tokens.append(rng.randrange(2 + seed % 4))
        lookup.push(tokens[-1])


def test_what_repeats_itself_is_guessed_to_go_on() -> None:
    assert speculate.Lookup([9, 1, 2, 1, 2]).draft(5) == [1, 2, 1, 2, 1]
    assert speculate.Lookup([4, 4]).draft(3) == [4, 4, 4]
    assert speculate.Lookup([1, 2, 3]).draft(3) == []
    assert speculate.Lookup([]).draft(3) == []


@pytest.mark.parametrize(
    ("guesses", "rows", "taken"),
    [([], [5], [5]), ([5], [5, 6], [5, 6]), ([5, 7], [5, 6, 8], [5, 6]), ([4, 6], [5, 6, 8], [5])],
)
def test_verified_takes_one_token_more_than_were_right(
    guesses: list[int], rows: list[int], taken: list[int]
) -> None:
    asked: list[int] = []

    def pick(row: int) -> int:
        asked.append(row)
        return row

    assert speculate.verified(guesses, rows, pick) == taken
    assert asked == taken


def _four(row: memoryview[float]) -> int:
    """One of four tokens, another one wherever a single bit differs: guesses are often right by chance."""
    return 40 + zlib.crc32(row) % 4


def _passes(engine: Engine) -> list[int]:
    """Widths of the passes that the engine is asked for from now on."""
    widths: list[int] = []
    append = engine.append

    def counted(additions: Any) -> Any:
        widths.extend(len(tokens) for _, tokens, _ in additions)
        return append(additions)

    engine.append = counted  # type: ignore[method-assign]
    return widths


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q4_1])
@pytest.mark.parametrize("plan", [{}, {"chunk": "200K"}], ids=str)
def test_guesses_change_no_bit(
    engine: Installed, made: Callable[..., Path], kind: Type, plan: dict[str, Any]
) -> None:
    path = made(matrix=kind, embd=kind, embed=128, feed=384, vocab=512)
    with Model.open(path) as model:
        planned = model.plan(device="CPU", ctx=600, outputs=8, threads=1, **plan)
        for prompt in ([1, 2, 3], list(range(500))):
            texts, counts = [], []
            for guess in (True, False):
                with Engine(planned) as session:
                    widths = _passes(session)
                    texts.append(
                        list(speculate.generate(session, prompt, 60, pick=_four, draft=7, guess=guess))
                    )
                    counts.append(len(widths))
                    assert set(widths[1:]) == {8}
                    assert session.length == len(prompt) + 59
            assert texts[0] == texts[1]
            assert len(texts[0]) == 60
            assert counts[0] < counts[1] == 60


@pytest.mark.parametrize("free", [0, 1, 5, 30])
@pytest.mark.parametrize("prompt", [1, 3, 40])
def test_the_context_is_used_to_its_end(engine: Installed, tiny: Path, prompt: int, free: int) -> None:
    with Model.open(tiny) as model:
        made = max(1, 40 - free)
        plan = model.plan(device="CPU", ctx=prompt + 40, outputs=8, threads=1)
        texts = []
        for guess in (True, False):
            with Engine(plan) as session:
                tokens = range(prompt)
                texts.append(list(speculate.generate(session, tokens, made, pick=_four, guess=guess)))
                assert session.length == prompt + made - 1
        assert texts[0] == texts[1]
        assert len(texts[0]) == made


def test_a_context_too_small_for_a_wide_pass_is_decoded_plainly(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model:
        with Engine(model.plan(device="CPU", ctx=20, outputs=8, threads=1)) as session:
            session.forward([7] * 14)
            guessed = list(session.generate([1, 2], 4, ignore_end=True, draft=7))
        with Engine(model.plan(device="CPU", ctx=20, threads=1)) as session:
            session.forward([7] * 14)
            assert list(session.generate([1, 2], 4, ignore_end=True)) == guessed
            assert len(guessed) == 4


def test_generation_ends_inside_what_was_guessed(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model:
        plan = model.plan(device="CPU", ctx=200, outputs=8, threads=1)
        prompt = [5, 6, 7, 8] * 4
        loop = iter([5, 6, 7, 8, 5, 6, 7, 8, 5, 6])
        with Engine(plan) as session:
            widths = _passes(session)
            found = list(
                speculate.generate(session, prompt, 50, pick=lambda _row: next(loop), ends=frozenset({8}))
            )
            assert found == [5, 6, 7]
            assert len(widths) == 2
            assert session.length == len(prompt) + 3
            # What is held is what was said: it goes on as if said plainly.
            onward = session.append([(0, [9] * 8, 8)])[0][7].tobytes()
        with Engine(plan) as session:
            session.forward(prompt)
            session.append([(0, [5, 6, 7, 8, 8, 8, 8, 8], 8)])
            session.truncate(len(prompt) + 3)
            assert session.append([(0, [9] * 8, 8)])[0][7].tobytes() == onward


def test_smollm_says_the_same_with_fewer_passes(
    engine: Installed, smollm: Path, greedy: list[dict[str, Any]]
) -> None:
    with Model.open(smollm) as model:
        plan = model.plan(device="CPU", ctx=512, memory="64M", outputs=8, threads=1)
        repeating = model.tokenizer.encode("one two three four five, " * 6 + "one two")
        with Engine(plan) as session:
            said = []
            for recorded in greedy[:4]:
                session.truncate(0)
                prompt = model.tokenizer.encode(recorded["prompt"])
                said.append(list(speculate.generate(session, prompt, 16, pick=likeliest)))
            assert_as_recorded(said, [recorded["tokens"] for recorded in greedy[:4]])
            session.truncate(0)
            widths = _passes(session)
            text = list(speculate.generate(session, repeating, 30, pick=likeliest))
            assert model.tokenizer.decode(text).startswith(" three four five, one two three")
            assert len(widths) <= 6
            session.truncate(0)
            plain = speculate.generate(session, repeating, 30, pick=likeliest, guess=False)
            assert list(islice(plain, 10)) == text[:10]


def test_drafting_is_chosen_where_weights_stream(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:

        def make(outputs: int | None, **given: Any) -> Plan:
            return model.plan(device="CPU", ctx=256, outputs=outputs, **given)

        def streamed(outputs: int | None) -> Plan:
            return make(outputs, memory="64M", io="direct")

        def windows(outputs: int | None) -> Plan:
            return make(outputs, memory="64M", io="mmap")

        resident, draft = speculate.choose("auto", make)
        assert (len(resident.chunks), resident.outputs, draft) == (1, 1, 0)
        plan, draft = speculate.choose("auto", streamed)
        assert (plan.outputs, draft) == (8, 7)
        assert speculate.choose("off", streamed)[1] == 0
        assert speculate.choose("auto", windows)[1] == 0
        plan, draft = speculate.choose("3", make)
        assert (plan.outputs, draft) == (4, 3)
        for wrong in ("yes", "-1", "64", "", "1.5"):
            with pytest.raises(UsageError, match="--draft"):
                speculate.choose(wrong, make)

        def cramped(outputs: int | None) -> Plan:
            if outputs is not None:
                raise EngineError
            return streamed(outputs)

        assert speculate.choose("auto", cramped)[1] == 0
        with Engine(streamed(None)) as session, pytest.raises(UsageError, match="outputs=8"):
            next(session.generate([1], 4, draft=7))


def test_run_drafts_and_says_the_same(engine: Installed, smollm: Path, greedy: list[dict[str, Any]]) -> None:
    with Model.open(smollm) as model:
        expected = model.tokenizer.decode(greedy[0]["tokens"])
    for options in (("--draft", "5"), ("--draft", "off"), ("--memory", "64M")):
        done = engine.run("run", smollm, "-p", greedy[0]["prompt"], "-n", 16, "--device", "CPU", *options)
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
    refused = engine.run("run", smollm, "-p", "x", "--draft", "many")
    assert refused.returncode == 2
    assert "--draft" in refused.stderr


def test_who_stops_early_leaves_only_what_was_seen(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:
        prompt = model.tokenizer.encode("one two three four five, " * 3 + "one two")
        lengths = []
        for draft in (0, 7):
            plan = model.plan(device="CPU", ctx=256, outputs=draft + 1, threads=1)
            with Engine(plan) as session:
                tokens = speculate.generate(session, prompt, 30, pick=likeliest, draft=draft)
                assert len(list(islice(tokens, 3))) == 3
                tokens.close()
                lengths.append(session.length)
        assert lengths == [len(prompt) + 2] * 2
