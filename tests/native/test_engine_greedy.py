"""Greedy text of real models against llama.cpp's, where it agrees with itself (record_greedy.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from floatllm import Engine, Model
from installed import DATA, Installed

_WINDOW = 512
"""Positions that most of Gemma's layers see."""


def _recorded(name: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads((DATA / name).read_text(encoding="utf-8"))
    assert len(found["texts"]) >= 5
    assert len(found["long"]) >= 2
    return found


def _same(engine: Engine, texts: list[dict[str, Any]]) -> None:
    for recorded in texts:
        engine.truncate(0)
        found = list(engine.generate(recorded["prompt"], len(recorded["tokens"])))
        assert found == recorded["tokens"], recorded["prompt"][-40:]


@pytest.mark.parametrize(
    "budget", [{}, {"memory": "160M", "io": "direct"}, {"chunk": "4M", "io": "mmap"}], ids=str
)
def test_gemma_says_what_llama_cpp_says(engine: Installed, gemma: Path, budget: dict[str, str]) -> None:
    with Model.open(gemma) as model:
        plan = model.plan(device="CPU", ctx=512, **budget)
        assert (len(plan.chunks) == 1) == (not budget)
        with Engine(plan) as session:
            _same(session, _recorded("greedy-gemma.json")["texts"])


def test_gemma_beyond_its_sliding_window(engine: Installed, gemma: Path) -> None:
    with Model.open(gemma) as model, Engine(model.plan(device="CPU", ctx=1024)) as session:
        assert model.metadata["gemma3.attention.sliding_window"] == _WINDOW
        for recorded in _recorded("greedy-gemma.json")["long"]:
            _same(session, [recorded])
            assert session.length > _WINDOW + 50


def test_smollm_beyond_one_pass(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model, Engine(model.plan(device="CPU", ctx=1024)) as session:
        for recorded in _recorded("greedy.json")["long"]:
            _same(session, [recorded])
            assert session.length > session.plan.width
