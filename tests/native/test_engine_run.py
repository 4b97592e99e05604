"""The forward pass and generation: exact across budgets, right against numpy and llama.cpp."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from floatllm import Engine, Model, Sampling, UsageError
from gguf import GGMLQuantizationType as Type
from installed import Installed
from llama_numpy import logits, nmse
from near_ties import assert_as_recorded

_TOKENS = [1, 5, 250, 17, 17, 0, 99, 254, 3, 42, 42, 8]
# Quantised weights are multiplied by activations that ggml rounds to 8 bits, in blocks.
_EXACT, _ROUNDED = 1e-5, 1e-3


def _forward(model: Model, tokens: list[int], **plan: Any) -> np.ndarray:
    with Engine(model.plan(device="CPU", **plan)) as session:
        return np.array(session.forward(tokens))


@pytest.mark.parametrize(
    ("dimensions", "limit"),
    [
        ({}, _EXACT),
        ({"tied": True}, _EXACT),
        ({"rope_freqs": True}, _EXACT),
        ({"kv_heads": 4}, _EXACT),
        ({"kv_heads": 1, "layers": 1}, _EXACT),
        ({"rope_base": 500000.0, "eps": 1e-3}, _EXACT),
        ({"matrix": Type.F16, "embd": Type.F16}, _EXACT),
        ({"matrix": Type.BF16, "embd": Type.BF16}, 1e-4),
        ({"matrix": Type.Q8_0, "embd": Type.Q8_0, "tied": True}, _ROUNDED),
        ({"matrix": Type.Q4_0, "embd": Type.F16}, _ROUNDED),
        ({"matrix": Type.Q4_1, "embd": Type.Q8_0}, _ROUNDED),
        ({"matrix": Type.Q5_0}, _ROUNDED),
        ({"vocab": 1000}, _EXACT),
    ],
    ids=str,
)
def test_logits_match_numpy(
    engine: Installed, made: Callable[..., Path], dimensions: dict[str, Any], limit: float
) -> None:
    path = made(**dimensions)
    expected = logits(path, _TOKENS)
    with Model.open(path) as model:
        assert nmse(_forward(model, _TOKENS), expected[-1]) <= limit
        # Token by token, through the KV cache.
        with Engine(model.plan(device="CPU")) as session:
            for token, row in zip(_TOKENS, expected, strict=True):
                assert nmse(np.array(session.forward([token])), row) <= limit


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q4_0, Type.Q4_1])
def test_chunks_change_no_bit(engine: Installed, made: Callable[..., Path], kind: Type) -> None:
    path = made(matrix=kind, embd=kind, embed=128, feed=384, vocab=512)
    with Model.open(path) as model:
        counts = set()
        found = set()
        for plan in ({}, {"chunk": "600K"}, {"chunk": "200K"}, {"chunk": "120K"}, {"memory": "12M"}):
            chunked = model.plan(device="CPU", ctx=256, **plan)
            counts.add(len(chunked.chunks))
            with Engine(chunked) as session:
                first = session.forward(_TOKENS[:5])
                second = session.forward(_TOKENS[5:])
                third = session.forward([7])
                found.add(first.tobytes() + second.tobytes() + third.tobytes())
        assert len(counts) > 2
        assert len(found) == 1


def test_smollm_gives_the_same_tokens_at_every_budget_and_as_llama_cpp(
    engine: Installed, smollm: Path, greedy: list[dict[str, Any]]
) -> None:
    with Model.open(smollm) as model:
        counts, said = [], []
        budgets: tuple[dict[str, Any], ...] = (
            {},
            {"memory": "48M"},
            {"memory": "64M", "chunk": "3M"},
            {"chunk": "30M", "ctx": 512},
        )
        for budget in budgets:
            plan = model.plan(device="CPU", **budget)
            counts.append(len(plan.chunks))
            with Engine(plan) as session:
                found = []
                for recorded in greedy:
                    session.truncate(0)
                    found.append(list(session.generate(recorded["prompt"], len(recorded["tokens"]))))
                said.append(found)
    assert all(found == said[0] for found in said)
    assert_as_recorded(said[0], [recorded["tokens"] for recorded in greedy])
    assert counts[0] == 1
    assert min(counts[1:]) > 1
    assert len(set(counts)) == len(budgets)


def test_truncate_goes_back(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model, Engine(model.plan(device="CPU", ctx=64)) as session:
        whole = session.forward(_TOKENS).tobytes()
        assert session.length == len(_TOKENS)
        session.truncate(4)
        session.forward([9, 9])
        session.truncate(4)
        assert session.forward(_TOKENS[4:]).tobytes() == whole
        assert (session.context, session.vocab) == (64, 256)
        with pytest.raises(UsageError):
            session.truncate(session.length + 1)


def test_logits_outlive_the_engine(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model, Engine(model.plan(device="CPU")) as session:
        view = session.forward([1])
        kept = view.tolist()
        session.forward([2])
    assert view.format == "f"
    assert view.tolist() == kept


def test_closing_order_does_not_matter(engine: Installed, tiny: Path) -> None:
    model = Model.open(tiny)
    plan = model.plan(device="CPU")
    session = Engine(plan)
    model.close()
    expected = session.forward([1, 2]).tolist()
    del plan
    session.truncate(0)
    assert session.forward([1, 2]).tolist() == expected
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.forward([1])


@pytest.mark.parametrize("tokens", [[], [-1], [256], [2**31], [1] * 65])
def test_tokens_that_cannot_be_appended_are_refused(engine: Installed, tiny: Path, tokens: list[int]) -> None:
    with Model.open(tiny) as model, Engine(model.plan(device="CPU", ctx=64)) as session:
        with pytest.raises(UsageError):
            session.forward(tokens)
        assert session.length == 0
        session.forward([1] * 64)
        with pytest.raises(UsageError):
            session.forward([1])


def test_generation_stops_at_the_end_token_unless_told_not_to(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model:
        plan = model.plan(device="CPU")
        with Engine(plan) as session:
            tokens = list(session.generate([65], 12, ignore_end=True))
        assert len(tokens) == 12
        model.tokenizer.end_ids = frozenset({tokens[5]})
        with Engine(plan) as session:
            assert list(session.generate([65], 12)) == tokens[: tokens.index(tokens[5])]


def test_run_prints_the_text_alone(engine: Installed, smollm: Path, greedy: list[dict[str, Any]]) -> None:
    with Model.open(smollm) as model:
        expected = model.tokenizer.decode(greedy[0]["tokens"])
    assert expected.startswith(" Paris.")
    outputs = set()
    for memory in ((), ("--memory", "48M")):
        done = engine.run("run", smollm, "-p", greedy[0]["prompt"], "-n", 16, "--device", "CPU", *memory)
        assert done.returncode == 0, done.stderr
        speeds = r"prompt of 5 tokens in [\d.]+ s, [\d.]+ tokens/s \| 16 tokens at [\d.]+ tokens/s"
        assert re.fullmatch(rf"\[FloatLLM\] {speeds} \| \d+ chunks? \| CPU\n", done.stderr)
        outputs.add(done.stdout)
    assert outputs == {expected}
    loud = engine.run("run", smollm, "-p", greedy[0]["prompt"], "-n", 16, "--memory", "48M", "-v")
    assert loud.stdout == expected
    assert "[FloatLLM] Mapped output_norm.weight | Shape: [576, 1, 1, 1]" in loud.stderr
    assert loud.stderr.count("Engine successfully mapped.") == 1


def test_a_seed_draws_the_same_text_again(engine: Installed, tiny: Path) -> None:
    def run(*options: object) -> subprocess.CompletedProcess[str]:
        done = engine.run("run", tiny, "-p", "Once upon a time", "-n", 12, "--threads", 1, *options)
        assert done.returncode == 0, done.stderr
        return done

    greedy = run().stdout
    drawn = run("--temp", 1.5, "--top-p", 1, "--seed", 7)
    assert drawn.stdout != greedy
    assert drawn.stderr.endswith("| seed 7\n")
    assert run("--temp", 1.5, "--top-p", 1, "--seed", 7).stdout == drawn.stdout
    # A seed that nobody gave is said, so that the text can be had again.
    other = run("--temp", 1.5)
    seed = other.stderr.rpartition("seed ")[2].strip()
    assert run("--temp", 1.5, "--seed", seed).stdout == other.stdout
    assert run("--temp", 0.7, "--top-k", 1).stdout == run("--temp", 0, "--seed", 5).stdout == greedy
    # A penalty this high lets no token come twice.
    with Model.open(tiny) as model, Engine(model.plan(device="CPU", threads=1)) as session:
        tokens = list(session.generate("1 1 1 1", 20, sampling=Sampling(repeat_penalty=1e6)))
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--top-k", 5), "--top-k only matters where"),
        (("--seed", 5, "--min-p", 0.1), "--min-p, --seed only matter where"),
        (("--temp", -1), "temperature is -1"),
        (("--temp", 1, "--top-p", 2), "top_p is 2"),
        (("--temp", "warm"), "invalid float value"),
        (("--system", "Be kind."), "--system is a message of a chat"),
    ],
    ids=str,
)
def test_sampling_that_cannot_be_is_refused(
    engine: Installed, tiny: Path, options: tuple[object, ...], said: str
) -> None:
    done = engine.run("run", tiny, "-p", "hello", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_generation_has_the_defaults_that_a_person_expects(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model, Engine(model.plan("1GiB", "CPU", 200, threads=1)) as session:
        first = list(session.generate("Hello", ignore_end=True))
        assert len(first) == 128
        # What is left of the context.
        assert session.length == len("Hello") + 127
        assert len(list(session.generate([5], ignore_end=True))) == 200 - 132 - 1
        session.truncate(0)
        drawn = list(session.generate("Hello", 20, sampling=Sampling(temperature=2.0, top_p=1.0, seed=1)))
        session.truncate(0)
        text = "".join(session.stream("Hello", 20, sampling=Sampling(temperature=2.0, top_p=1.0, seed=1)))
        assert text == model.tokenizer.decode(drawn)
        assert drawn != first[: len(drawn)]
        # Refused at once, and not when the first token is asked for.
        with pytest.raises(UsageError, match="do not fit"):
            session.generate("Hello", 1000)
        with pytest.raises(UsageError, match="ask for at least 1"):
            session.generate("Hello", 0)


def test_what_does_not_fit_the_context_names_the_one_that_does(engine: Installed, tiny: Path) -> None:
    refused = engine.run("run", tiny, "-p", "hello", "-n", 60, "--ctx", 64)
    assert refused.returncode == 2
    assert "--ctx 65" in refused.stderr
    assert "ask for fewer tokens" in refused.stderr
    assert "shorten the prompt" in engine.run("run", tiny, "-p", "hello" * 20, "--ctx", 64).stderr
    assert engine.run("run", tiny, "-p", "hello", "-n", 60, "--ctx", 65).returncode == 0
    # Without -n, what is left of the context is what there is to write.
    assert engine.run("run", tiny, "-p", "hello", "--ctx", 32).returncode == 0
    empty = engine.run("run", tiny, "-p", "", "-n", 4)
    assert empty.returncode == 2
    assert "prompt is empty" in empty.stderr


def test_a_prompt_comes_from_stdin(engine: Installed, tiny: Path) -> None:
    options = ("-n", 8, "--ctx", 64, "--device", "CPU", "--threads", 1)
    expected = engine.run("run", tiny, "-p", "two\nlines", *options)
    # A shell's echo ends what it writes with a line break, which is not of the prompt.
    for text in ("two\nlines", "two\nlines\n", "two\nlines\r\n"):
        done = engine.run("run", tiny, "-p", "-", *options, stdin=text)
        assert (done.returncode, done.stdout) == (0, expected.stdout)
    assert "prompt of 9 tokens" in done.stderr
    assert "prompt of 9 tokens" in expected.stderr
    done = engine.run("run", tiny, "-p", "-", *options, stdin="\n")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_context_beyond_the_trained_one_is_warned_of(engine: Installed, tiny: Path) -> None:
    with Model.open(tiny) as model:
        trained = model.trained_context
    assert trained is not None
    for command in (("plan", tiny), ("run", tiny, "-p", "hi", "-n", 2), ("bench", tiny, "-n", 1)):
        for ctx, warned in ((trained, False), (trained + 1, True)):
            done = engine.run(*command, "--ctx", ctx, "--device", "CPU")
            assert done.returncode == 0, done.stderr
            assert (f"--ctx {ctx} goes beyond the {trained} positions" in done.stderr) is warned


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_stops_quietly(engine: Installed, smollm: Path) -> None:
    command = engine.command(
        "run", smollm, "-p", "Once upon a time", "-n", 3000, "--ctx", 4096, "--threads", 1
    )
    with subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        text = child.stdout.read(8)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
        text += child.stdout.read()
        said = child.stderr.read().decode()
    # What was written stays written, and how fast it came is said.
    assert re.fullmatch(r"\[FloatLLM\] prompt of 4 tokens in .* \| \d+ tokens.*\n", said)
    count = int(re.search(r"\| (\d+) tokens", said)[1])
    assert 0 < count < 3000
    whole = engine.run("run", smollm, "-p", "Once upon a time", "-n", count, "--ctx", 4096, "--threads", 1)
    assert whole.stdout.encode() == text


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_leaves_stops_the_run_quietly(engine: Installed, smollm: Path) -> None:
    command = engine.command("run", smollm, "-p", "Once upon a time", "-n", 3000, "--ctx", 4096)
    with subprocess.Popen(command, env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        os.read(child.stdout.fileno(), 4)
        child.stdout.close()
        assert child.wait(timeout=60) == 141
        assert child.stderr.read() == b""


def test_a_signal_whose_handler_raises_nothing_is_no_success(engine: Installed, smollm: Path) -> None:
    said = engine.script(
        """
import json, os, signal, sys
from floatllm import Engine, EngineError, Model
signal.signal(signal.SIGINT, lambda *_: None)
said = []
with Model.open(sys.argv[1]) as model, Engine(model.plan(device="CPU", ctx=256, chunk="8M")) as session:
    once = []
    def interrupt(event):
        if not once:
            once.append(os.kill(os.getpid(), signal.SIGINT))
    session.on_event(interrupt)
    try:
        session.forward([1, 2, 3])
        said.append("computed")
    except EngineError:
        said.append("stopped")
    said.append(session.length)
    session.forward([1, 2, 3])
    said.append(session.length)
print(json.dumps(said))
""",
        smollm,
    )
    assert said == ["stopped", 0, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds on Linux alone")
def test_a_limit_on_address_space_is_an_error_and_never_an_abort(engine: Installed, smollm: Path) -> None:
    command = engine.command("run", smollm, "-p", "The capital of France is", "-n", "4")
    codes = []
    for kib in (80_000, 120_000, 160_000, 200_000, 240_000, 300_000, 600_000):
        done = subprocess.run(
            ["sh", "-c", f'ulimit -v {kib}; exec "$@"', "sh", *command],
            env=engine.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        codes.append(done.returncode)
        assert done.returncode in (0, 1, 3, 8), done.stderr
        assert "terminate" not in done.stderr
        if done.returncode == 0:
            assert done.stdout.startswith(" Paris")
    # The least holds not even Python and the library; the most holds everything.
    assert codes[-1] == 0
