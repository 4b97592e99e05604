"""The likeliest tokens, found by the library: the same as by sorting, and as choosing from a list of all."""

from __future__ import annotations

import ctypes
import math
import random
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import arch_files
import pytest
from floatllm import Engine, EngineError, Model, Sampling, UsageError, _lib
from floatllm.sampler import Sampler, candidates, top
from hypothesis import example, given, settings
from hypothesis import strategies as st
from installed import Installed

pytestmark = pytest.mark.usefixtures("engine")

# Few values, so that many are equal, and zeros of both signs.
_LOGITS = st.lists(
    st.one_of(st.floats(-30, 30, width=32), st.sampled_from([0.0, -0.0, 1.5, 1.5, -math.inf])),
    min_size=1,
    max_size=50,
)


def _view(values: Sequence[float]) -> memoryview:
    return memoryview(array("f", values))


@settings(deadline=None)
@given(_LOGITS, st.integers(1, 60))
@example([1.0] * 9, 4)
@example([-math.inf, 3.0], 2)
def test_top_is_what_sorting_gives(values: list[float], count: int) -> None:
    if max(values) == -math.inf:
        with pytest.raises(EngineError, match="not numbers"):
            top(_view(values), count)
        return
    expected = sorted(range(len(values)), key=lambda token: (-values[token], token))[:count]
    assert top(_view(values), count) == expected
    assert top(_view(values).toreadonly(), count) == expected


def test_top_refuses_what_is_no_number() -> None:
    function = _lib.library().floatllm_top
    for size in (1, 3, 500):
        for place in {0, size // 2, size - 1}:
            for bad in (math.nan, -math.nan, math.inf):
                values = [float(i % 7) for i in range(size)]
                values[place] = bad
                for count in {1, min(3, size), size}:
                    with pytest.raises(EngineError, match="not numbers"):
                        top(_view(values), count)
    floats, ids = (ctypes.c_float * 3)(1, 2, 3), (ctypes.c_uint32 * 4)(9, 9, 9, 9)
    assert function(floats, 3, 9, ids) == 3
    assert list(ids) == [2, 1, 0, 9]
    assert function(floats, 3, 0, ids) == function(floats, 0, 3, ids) == 0
    assert function(None, 3, 3, ids) == function(floats, 3, 3, None) == 0


def _from_a_list(logits: list[float], sampling: Sampling, history: list[int], share: float) -> int:
    """The choice as it reads, with every logit in a list."""
    values = list(logits)
    for token in set(history[-sampling.repeat_window :] if sampling.repeat_window else []):
        if 0 <= token < len(values):
            penalty = sampling.repeat_penalty
            values[token] = values[token] / penalty if values[token] > 0 else values[token] * penalty
    best = max(values)
    if sampling.temperature == 0:
        return values.index(best)
    tokens = candidates(values, sampling)
    sums = list(accumulate(math.exp((values[token] - best) / sampling.temperature) for token in tokens))
    return next(token for token, end in zip(tokens, sums, strict=True) if share * sums[-1] < end)


@settings(deadline=None, max_examples=400)
@given(
    _LOGITS.filter(lambda values: max(values) > -math.inf),
    st.sampled_from([0.0, 0.7, 1.3]),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([1.0, 1.7, 0.5]),
    st.lists(st.integers(-1, 55), max_size=12),
    st.integers(0, 10),
    st.floats(0, 1, exclude_max=True),
)
# The penalty takes the best three away, and one comes back.
@example([9.0, 8.0, 7.0, 6.0, 5.0, 4.0], 0.7, 2, 1.0, 0.0, 100.0, [0, 1, 2], 9, 0.999)
# One far behind comes to the front.
@example([9.0, 8.0, 7.0, 6.0, 5.0, 4.0], 0.0, 2, 1.0, 0.0, 0.001, [5], 9, 0.5)
def test_choosing_from_candidates_is_choosing_from_all(
    logits: list[float],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
    history: list[int],
    window: int,
    share: float,
) -> None:
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty, window, seed=1)
    sampler = Sampler(sampling)
    sampler._random.random = lambda: share  # type: ignore[method-assign]
    assert sampler.choose(_view(logits), history) == _from_a_list(logits, sampling, history, share)


def test_greedy_is_told_from_what_needs_logits() -> None:
    assert Sampling().likeliest
    assert Sampling(repeat_penalty=1.1, repeat_window=0).likeliest
    assert not Sampling(repeat_penalty=1.1).likeliest
    assert not Sampling(temperature=0.1).likeliest


@pytest.mark.parametrize("chunk", [None, "160K"])
def test_the_engine_hands_out_the_ids_of_its_logits(
    engine: Installed, tmp_path: Path, chunk: str | None
) -> None:
    path = arch_files.write(tmp_path / "model.gguf", arch_files.Small("llama"))
    rng = random.Random(8)
    with Model.open(path) as model:
        # Passes of two outputs at most, so that one call takes several.
        plan = model.plan(device="CPU", sequences=3, outputs=2, width=8, ctx=256, chunk=chunk, threads=1)
        with Engine(plan) as given, Engine(plan) as chosen:
            for _ in range(6):
                additions = []
                for sequence in rng.sample(range(3), rng.randrange(1, 4)):
                    tokens = [rng.randrange(arch_files.VOCAB) for _ in range(rng.randrange(1, 12))]
                    additions.append((sequence, tokens, rng.randrange(len(tokens) + 1)))
                rows = given.append(additions)
                ids = chosen.likeliest(additions)
                assert ids == [[row.tolist().index(max(row)) for row in each] for each in rows]
                assert [len(each) for each in ids] == [outputs for _, _, outputs in additions]
                # Several at once, beside the logits.
                native, room, logits = _with_top(additions[0], given.vocab, 5)
                given.truncate(given.length_of(additions[0][0]) - len(additions[0][1]), additions[0][0])
                _lib.call(_lib.library(), "floatllm_session_append", given._handle, native, 1)
                view = memoryview(logits).cast("B").cast("f")
                found = [view[i : i + given.vocab] for i in range(0, len(view), given.vocab)]
                assert list(room) == [token for row in found for token in top(row, 5)]
                assert len(found) == additions[0][2]


def _with_top(addition: tuple[int, list[int], int], vocab: int, count: int) -> tuple[Any, Any, Any]:
    sequence, tokens, outputs = addition
    room = (ctypes.c_uint32 * (count * outputs))()
    logits = (ctypes.c_float * (vocab * outputs))()
    native = (_lib.Addition * 1)()
    native[0].sequence, native[0].outputs, native[0].count = sequence, outputs, len(tokens)
    native[0].tokens = ctypes.cast((ctypes.c_int32 * len(tokens))(*tokens), ctypes.POINTER(ctypes.c_int32))
    native[0].logits = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
    native[0].top, native[0].ids = count, ctypes.cast(room, ctypes.POINTER(ctypes.c_uint32))
    return native, room, logits


def test_more_ids_than_tokens_are_refused(engine: Installed, made: Callable[..., Path]) -> None:
    with Model.open(made()) as model, Engine(model.plan(device="CPU")) as session:
        native, *_rooms = _with_top((0, [1], 1), session.vocab, session.vocab + 1)
        with pytest.raises(UsageError, match="`top`"):
            _lib.call(_lib.library(), "floatllm_session_append", session._handle, native, 1)
        native, *_rooms = _with_top((0, [1], 1), session.vocab, 3)
        native[0].ids = None
        with pytest.raises(UsageError, match="NULL"):
            _lib.call(_lib.library(), "floatllm_session_append", session._handle, native, 1)
        native[0].logits, native[0].top = None, 0
        with pytest.raises(UsageError, match="NULL"):
            _lib.call(_lib.library(), "floatllm_session_append", session._handle, native, 1)
        assert session.length == 0
