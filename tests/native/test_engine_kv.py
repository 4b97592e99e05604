"""The KV cache in Q8_0: half the bytes, all but the same text, and as exact in itself as F16."""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from floatllm import Engine, EngineError, Model, ModelError, UsageError, _lib
from floatllm.journal import sidecar
from installed import Installed

# Bytes of a block of 32 elements.
_BLOCK = {"f16": 64, "q8_0": 34}
_TOKENS = [(37 * i * i + 11 * i + 5) % 300 for i in range(40)]

_STORY = """\
The lighthouse at the end of the bay had been dark for eleven years when the council decided to open it \
again. Nobody could say who had the keys. The old keeper had left them with his sister, his sister had \
given them to the school, and the school had put them into a drawer that was sold with the desk. So on the \
first morning of spring three people walked along the beach with a ladder, a lamp and a thermos of coffee: \
a carpenter, a teacher, and a boy of nine who had been told that he could carry the coffee.

The door was made of oak and swollen with salt. The carpenter looked at it for a while, took two tools out \
of his bag, put one of them back, and opened it in less than a minute. Inside there was a smell of rope \
and cold stone. The stairs went up in a spiral, and the boy counted them aloud until he ran out of breath. \
At the top the glass was so dirty that the sea looked brown, but when the teacher had wiped one pane with \
her sleeve they could see the islands, the ferry, and far away the grey line where the weather came from.

"Will it still work?" the boy asked.

"The lamp is new," said the carpenter. "The lens is a hundred and forty years old, and it has nothing in \
it that could break. Somebody knew what he was doing." He turned the great glass with one finger, and it \
moved without a sound.

They worked until the afternoon. The teacher cleaned the windows one after the other, the carpenter laid \
the cable, and the boy held whatever had to be held. When the sun went down they switched on the lamp. At \
first there was only a yellow spot on the wall. Then the lens came round, and the light went out over the \
water as far as they could see, and came back, and went out again."""


def _plan(model: Model, kv: str, **given: Any) -> Any:
    return model.plan(device="CPU", kv=kv, **given)


def _perplexity(model: Model, tokens: list[int], kv: str) -> float:
    with Engine(_plan(model, kv, ctx=512, outputs=64)) as engine:
        rows = engine.append([(0, tokens[:-1], len(tokens) - 1)])[0]
        lost = 0.0
        for row, token in zip(rows, tokens[1:], strict=True):
            logits = np.frombuffer(row, np.float32).astype(np.float64)
            highest = logits.max()
            lost += highest + math.log(np.exp(logits - highest).sum()) - logits[token]
    return math.exp(lost / len(rows))


def test_perplexity_is_that_of_f16_within_one_per_cent(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:
        tokens = model.tokenizer.encode(_STORY)
        assert 300 < len(tokens) < 512
        full, small = (_perplexity(model, tokens, kv) for kv in ("f16", "q8_0"))
    # A model that reads English, and a cache that is another one.
    assert 5 < full < 40
    assert small != full
    assert abs(small / full - 1) < 0.01


def test_a_plan_counts_its_bytes(engine: Installed, smollm: Path) -> None:
    layers, width = 30, 2 * 192
    with Model.open(smollm) as model:
        for kv, block in _BLOCK.items():
            plan = _plan(model, kv, memory="64M", ctx=512)
            assert plan.kv == kv == json.loads(plan.json)["kv"]
            assert plan.memory.kv == 512 * layers * width // 32 * block
            assert plan.memory.total <= plan.memory.limit
        three = _plan(model, "q8_0", ctx=500, sequences=3)
        assert three.memory.kv == 3 * 512 * layers * width // 32 * _BLOCK["q8_0"]
        # What the cache does not take holds weights, or more context where none was asked for.
        pinned = {kv: _plan(model, kv, memory="64M", ctx=512).memory.pinned for kv in _BLOCK}
        context = {kv: _plan(model, kv, memory="64M").ctx for kv in _BLOCK}
        refused = {}
        for kv in _BLOCK:
            with pytest.raises(EngineError, match="too small") as said:
                _plan(model, kv, memory="20M", ctx=512)
            refused[kv] = str(said.value)
    assert pinned["q8_0"] > pinned["f16"]
    assert context["q8_0"] > context["f16"]
    assert "6.0 MiB of KV cache" in refused["q8_0"]
    assert "11.2 MiB of KV cache" in refused["f16"]


@pytest.mark.parametrize("arch", ["llama", "phi3", "gemma3"])
def test_tokens_may_come_in_any_pieces(engine: Installed, small: Callable[..., Path], arch: str) -> None:
    with Model.open(small(arch)) as model:
        with Engine(_plan(model, "q8_0", ctx=256)) as session:
            whole = np.array(session.forward(_TOKENS), np.float64)
        with Engine(_plan(model, "q8_0", ctx=256)) as session:
            for token in _TOKENS:
                row = session.forward([token])
        with Engine(_plan(model, "f16", ctx=256)) as session:
            full = np.array(session.forward(_TOKENS), np.float64)
    # Other widths are other kernels, whose last bits now and then round to another of the cache's numbers.
    assert _nmse(np.array(row, np.float64), whole) < 1e-4
    assert 0 < _nmse(whole, full) < 1e-3


def _nmse(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


@pytest.mark.parametrize("arch", ["qwen3", "gemma3"])
def test_company_changes_no_bit(engine: Installed, small: Callable[..., Path], arch: str) -> None:
    prompts = [_TOKENS[:7], _TOKENS[3:30], _TOKENS[10:11]]
    given: dict[str, Any] = {"ctx": 300, "uniform": True, "threads": 1}
    alone = []
    with Model.open(small(arch)) as model:
        for prompt in prompts:
            with Engine(_plan(model, "q8_0", sequences=1, **given)) as session:
                session.forward(prompt)
                alone.append(bytes(session.forward([9]).cast("B")))
        with Engine(_plan(model, "q8_0", sequences=3, chunk="400K", **given)) as session:
            session.append([(i, prompt, 0) for i, prompt in enumerate(prompts)])
            together = session.append([(i, [9], 1) for i in range(3)])
    assert [bytes(rows[0].cast("B")) for rows in together] == alone


def test_drafting_says_what_plain_decoding_says(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:
        prompt = model.tokenizer.encode("one two three four five, " * 6 + "one two")
        found = []
        for given in ({}, {"memory": "64M"}):
            plan = _plan(model, "q8_0", ctx=256, outputs=8, **given)
            with Engine(plan) as session:
                found.append(list(session.generate(prompt, 24, draft=7)))
                session.truncate(0)
                token, plain = _best(session.forward(prompt)), []
                while len(plain) < 24:
                    plain.append(token)
                    kept = session.length
                    token = _best(session.append([(0, [token] * 8, 8)])[0][0])
                    session.truncate(kept + 1)
                found.append(plain)
    assert model.tokenizer.decode(found[0]).startswith(" three four five, one two")
    assert found == [found[0]] * 4


def _best(row: memoryview) -> int:
    return int(np.frombuffer(row, np.float32).argmax())


def test_heads_that_are_no_blocks_are_refused(
    engine: Installed, made: Callable[..., Path], image_like: Path
) -> None:
    path = made(embed=64, heads=4, tokenizer=True)
    with Model.open(path) as model:
        with pytest.raises(UsageError, match=r"q8_0 holds blocks of 32 .* 16 and 16 wide.* f16"):
            _plan(model, "q8_0")
        _plan(model, "f16")
        # Where nothing is kept, no type of it matters.
        assert _plan(model, "q8_0", mode="map").memory.kv == 0
        with pytest.raises(UsageError, match="'q4_0' is not a type of KV cache"):
            _plan(model, "q4_0")
        params = _lib.PlanParams(struct_size=ctypes.sizeof(_lib.PlanParams), kv=2)
        with pytest.raises(UsageError, match="neither of F16 nor of Q8_0"):
            _lib.call(
                _lib.library(), "floatllm_plan_create", model._handle, ctypes.byref(params), ctypes.c_void_p()
            )
    with Model.open(image_like) as model, pytest.raises(ModelError):
        _plan(model, "q8_0")
    refused = engine.run("run", path, "-p", "x", "--kv", "q8_0")
    assert (refused.returncode, "blocks of 32" in refused.stderr) == (2, True)
    assert engine.run("plan", path, "--kv", "q4_0").returncode == 2


def test_the_command_line_takes_it(engine: Installed, smollm: Path, tmp_path: Path) -> None:
    for kv in _BLOCK:
        shown = engine.run("plan", smollm, "--ctx", 512, "--device", "CPU", "--kv", kv)
        assert f"context 512, KV cache in {kv.upper()}, at most" in shown.stdout
        planned = json.loads(engine.run("plan", smollm, "--json", "--ctx", 512, "--kv", kv).stdout)
        assert planned["kv"] == kv
    assert json.loads(engine.run("plan", smollm, "--json").stdout)["kv"] == "f16"
    done = engine.run("run", smollm, "-p", "The capital of France is", "-n", 8, "--kv", "q8_0")
    assert done.stdout.startswith(" Paris.")

    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "The capital of France is", "max_tokens": 8}\n')
    done = engine.run("batch", smollm, prompts, out, "--device", "CPU", "--kv", "q8_0")
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["text"].startswith(" Paris.")


def test_a_batch_goes_on_with_the_cache_it_was_begun_with(
    engine: Installed, smollm: Path, tmp_path: Path
) -> None:
    prompts, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('{"prompt": "The capital of France is", "max_tokens": 4}\n')
    common = ("batch", smollm, prompts, out, "--device", "CPU", "--threads", 1)
    killed = engine.script(
        """
import json, sys
from floatllm import cli, journal
def fail(self):
    raise SystemExit(9)
journal.Journal.finish = fail
print(json.dumps(cli.main(sys.argv[1:])))
""",
        *common,
        "--kv",
        "q8_0",
    )
    assert killed == 9
    header = json.loads(sidecar(str(out)).read_text().splitlines()[0])
    assert header["kv"] == "q8_0"
    refused = engine.run(*common, "--kv", "f16")
    assert (refused.returncode, "another kv (q8_0, now f16)" in refused.stderr) == (2, True), refused.stderr
    resumed = engine.run(*common)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(out.read_text())["text"].startswith(" Paris.")
