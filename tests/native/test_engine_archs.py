"""Every architecture: against llama.cpp's recorded logits, in several files, with several sequences."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arch_files
import numpy as np
import pytest
from floatllm import Engine, Model, ModelError, UsageError
from gguf import GGMLQuantizationType as Type
from installed import DATA, Installed

_RECORDED: dict[str, Any] = json.loads((DATA / "logits.json").read_text(encoding="utf-8"))
_TOKENS: list[int] = _RECORDED["tokens"]
_EXACT = 1e-5


def _decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float64)


def _nmse(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def _logits(path: Path, tokens: list[int] = _TOKENS, **plan: Any) -> bytes:
    with Model.open(path) as model, Engine(model.plan(device="CPU", ctx=256, **plan)) as engine:
        return bytes(engine.forward(tokens).cast("B"))


@pytest.mark.parametrize("recorded", _RECORDED["models"], ids=lambda each: f"{each['arch']}-{each['matrix']}")
def test_logits_are_those_of_llama_cpp(
    engine: Installed, small: Callable[..., Path], recorded: dict[str, str]
) -> None:
    found = np.frombuffer(_logits(small(recorded["arch"], Type[recorded["matrix"]])), "<f4").astype(
        np.float64
    )
    flash, plain = _decoded(recorded["flash"]), _decoded(recorded["plain"])
    # Quantised products round activations, so llama.cpp itself moves when one setting changes.
    allowed = _EXACT if recorded["matrix"] in ("F32", "F16") else 2 * _nmse(flash, plain)
    assert _nmse(found, flash) <= allowed
    assert _nmse(found, plain) <= allowed


@pytest.mark.parametrize("io", ["mmap", "direct"])
def test_pinned_and_streamed_chunks_side_by_side(
    engine: Installed, small: Callable[..., Path], io: str
) -> None:
    path = small("qwen3")
    whole = _logits(path, width=16)
    with Model.open(path) as model:
        plans = [
            model.plan(device="CPU", ctx=256, width=16, io=io, memory=m) for m in ("6M", "7M", "8M", "9M")
        ]
    mixed = [plan for plan in plans if 0 < sum(chunk.pinned for chunk in plan.chunks) < len(plan.chunks)]
    assert mixed
    for plan in mixed:
        with Engine(plan) as session:
            for _ in range(3):
                session.truncate(0)
                assert bytes(session.forward(_TOKENS).cast("B")) == whole


def test_a_model_in_several_files_is_one_model(
    engine: Installed, small: Callable[..., Path], tmp_path: Path
) -> None:
    path = small("llama")
    first = arch_files.split(tmp_path, path, 8)
    assert len(list(tmp_path.glob("*.gguf"))) > 2
    assert _logits(first) == _logits(path)
    assert _logits(first, chunk="400K", io="direct") == _logits(path)
    with Model.open(path) as one, Model.open(first) as many:
        assert {t.name for t in one.tensors} == {t.name for t in many.tensors}
        sums = [
            dict(
                zip((t.name for t in m.tensors), Engine(m.plan(device="CPU", mode="map")).map(), strict=True)
            )
            for m in (one, many)
        ]
    assert sums[0] == sums[1]
    last = max(tmp_path.glob("*.gguf"))
    with pytest.raises(ModelError, match="not the first"):
        Model.open(last)
    last.unlink()
    with pytest.raises(ModelError, match="no file"):
        Model.open(first)


@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_sequences_side_by_side_are_those_alone(
    engine: Installed, small: Callable[..., Path], arch: str
) -> None:
    prompts = [_TOKENS[:7], _TOKENS[3:30], _TOKENS[10:11]]
    path = small(arch)
    alone = []
    with Model.open(path) as model:
        for prompt in prompts:
            with Engine(model.plan(device="CPU", ctx=256)) as session:
                session.forward(prompt)
                alone.append(np.array(session.forward([9]), np.float64))
        # A width that one pass exceeds, so that a prompt is cut between passes too.
        with Engine(model.plan(device="CPU", ctx=256, sequences=3, width=16)) as session:
            session.append([(i, prompt, 0) for i, prompt in enumerate(prompts)])
            assert [session.length_of(i) for i in range(3)] == [7, 27, 1]
            together = [rows[0] for rows in session.append([(i, [9], 1) for i in range(3)])]
    for one, other in zip(together, alone, strict=True):
        # Other widths are other kernels; llama.cpp moves as far from itself.
        assert _nmse(np.array(one, np.float64), other) < _EXACT


def test_logits_of_several_positions(engine: Installed, small: Callable[..., Path]) -> None:
    path = small("llama")
    with Model.open(path) as model:
        with Engine(model.plan(device="CPU", ctx=256)) as session:
            singly = [np.array(session.forward([token]), np.float64) for token in _TOKENS[:12]]
        with Engine(model.plan(device="CPU", ctx=256, outputs=4, width=8)) as session:
            # More outputs than one pass gives: passes are made as they are needed.
            rows = session.append([(0, _TOKENS[:12], 9)])[0]
    assert len(rows) == 9
    for row, wanted in zip(rows, singly[3:], strict=True):
        assert _nmse(np.array(row, np.float64), wanted) < _EXACT


def test_additions_that_cannot_be_are_refused(engine: Installed, small: Callable[..., Path]) -> None:
    with (
        Model.open(small("llama")) as model,
        Engine(model.plan(device="CPU", ctx=256, sequences=2)) as session,
    ):
        session.append([(1, [1, 2], 0)])
        for additions in (
            [(2, [1], 1)],
            [(0, [1], 2)],
            [(0, [], 0)],
            [(0, [1], 1), (0, [2], 1)],
            [(0, [1], 1), (1, [arch_files.VOCAB], 1)],
            [(1, [1] * 255, 1)],
        ):
            with pytest.raises(UsageError):
                session.append(additions)
            assert [session.length_of(i) for i in range(2)] == [0, 2]
        session.truncate(1, sequence=1)
        assert session.length_of(1) == 1
