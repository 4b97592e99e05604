"""The samplers against a plain definition of each, and at their edges."""

from __future__ import annotations

import math
import random
import time
from array import array
from collections import Counter
from typing import Any

import pytest
from floatllm import EngineError, Sampling, UsageError
from floatllm.sampler import Sampler, candidates, likeliest
from hypothesis import example, given, settings
from hypothesis import strategies as st

# The library finds the largest logits.
pytestmark = pytest.mark.usefixtures("engine")

_OFF: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


def _view(values: list[float]) -> memoryview:
    return memoryview(array("f", values))


def _softmax(values: dict[int, float]) -> dict[int, float]:
    best = max(values.values())
    weights = {token: math.exp(value - best) for token, value in values.items()}
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}


def _reference(logits: list[float], sampling: Sampling, history: list[int]) -> dict[int, float]:
    """Token to chance, each step as its definition reads."""
    left = dict(enumerate(logits))
    for token in set(history[-sampling.repeat_window :] if sampling.repeat_window else []):
        penalty = sampling.repeat_penalty
        left[token] = left[token] / penalty if left[token] > 0 else left[token] * penalty
    ranked = sorted(left, key=lambda token: (-left[token], token))
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    chances = _softmax({token: left[token] for token in ranked})
    mass, kept = 0.0, []
    for token in ranked:
        kept.append(token)
        mass += chances[token]
        if sampling.top_p < 1 and mass >= sampling.top_p:
            break
    kept = [token for token in kept if chances[token] >= sampling.min_p * chances[ranked[0]]]
    return _softmax({token: left[token] / sampling.temperature for token in kept})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        _OFF,
        {**_OFF, "temperature": 2.0},
        {**_OFF, "temperature": 0.3},
        {**_OFF, "top_k": 5},
        {**_OFF, "top_p": 0.6},
        {**_OFF, "min_p": 0.2},
        {"top_k": 12, "top_p": 0.8, "min_p": 0.1, "temperature": 1.5},
        {**_OFF, "repeat_penalty": 1.8},
        {**_OFF, "repeat_penalty": 1.8, "repeat_window": 2},
        {**_OFF, "repeat_penalty": 0.5},
    ],
    ids=str,
)
def test_tokens_are_drawn_as_often_as_defined(settings: dict[str, Any]) -> None:
    rng = random.Random(11)
    # Multiples of 1/8, so that float32 keeps them and some are equal.
    logits = [rng.randint(-24, 24) / 8 for _ in range(30)]
    history = [3, 5, 5, 8, 13]
    sampling = Sampling(**{"temperature": 1.0, "seed": 7, **settings})
    expected = _reference(logits, sampling, history)
    sampler = Sampler(sampling)
    draws = 20_000
    found = Counter(sampler.choose(_view(logits), history) for _ in range(draws))
    assert found.keys() <= expected.keys()
    squares = sum(
        (found[token] - draws * chance) ** 2 / (draws * chance) for token, chance in expected.items()
    )
    # Chi square's mean is its degrees of freedom, n - 1, and its variance twice that: four deviations.
    freedom = len(expected) - 1
    assert squares <= freedom + 4 * math.sqrt(2 * freedom) + 1e-9


_LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)


@settings(deadline=None)
@given(
    _LOGITS,
    st.integers(0, 45),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99, 1.0]),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
@example([1.0] * 7, 3, 1.0, 0.0)
@example([1.0] * 7, 0, 0.0, 0.0)
@example([-math.inf, 0.0, -math.inf], 2, 0.99, 0.0)
def test_what_is_left_is_what_the_definition_leaves(
    logits: list[float], top_k: int, top_p: float, min_p: float
) -> None:
    sampling = Sampling(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p)
    found = list(candidates(logits, sampling))
    expected = _reference(logits, sampling, [])
    assert found == sorted(found)
    assert max(logits) in {logits[token] for token in found}
    # At the rim, where sums of rounded numbers decide, one more or one less is as good.
    rim = 1e-9
    wider = _reference(logits, _shifted(sampling, rim), [])
    narrower = _reference(logits, _shifted(sampling, -rim), [])
    assert narrower.keys() <= set(found) <= wider.keys() or set(found) == expected.keys()


def _shifted(sampling: Sampling, by: float) -> Sampling:
    top_p = min(1.0, max(0.0, sampling.top_p + by))
    min_p = min(1.0, max(0.0, sampling.min_p * (1 - by)))
    return Sampling(temperature=1.0, top_k=sampling.top_k, top_p=top_p, min_p=min_p)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 0.0},
     {"temperature": 1.0, "min_p": 1.0}, {"temperature": 1e-320}, {"temperature": 1e-3, **_OFF}],
    ids=str,
)  # fmt: skip
def test_settings_that_leave_one_token_are_greedy(settings: dict[str, Any]) -> None:
    rng = random.Random(2)
    sampler = Sampler(Sampling(**settings))
    for _ in range(50):
        values = [float(value) for value in rng.sample(range(-500, 500), 100)]
        assert sampler.choose(_view(values)) == values.index(max(values)) == likeliest(_view(values))


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 1.0, "top_k": 1}], ids=str)
def test_of_equals_the_first_is_taken(settings: dict[str, Any]) -> None:
    assert Sampler(Sampling(**settings)).choose(_view([1.0, 2.0, 2.0, 2.0])) == 1


def test_equal_logits_are_equally_likely() -> None:
    sampler = Sampler(Sampling(temperature=0.7, seed=3, **_OFF))
    found = Counter(sampler.choose(_view([0.5] * 8)) for _ in range(8000))
    assert sorted(found) == list(range(8))
    assert max(found.values()) - min(found.values()) < 250


def test_the_same_seed_draws_the_same_tokens() -> None:
    rng = random.Random(5)
    steps = [_view([rng.uniform(-3, 3) for _ in range(1000)]) for _ in range(40)]

    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed, **_OFF))
        return [sampler.choose(step) for step in steps]

    # Python's generator is the same on every machine and in every version.
    assert drawn(1)[:5] == [109, 863, 772, 232, 489]
    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(None) != drawn(None)


def test_impossible_tokens_are_never_drawn() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=1, **_OFF))
    logits = _view([-math.inf, 0.0, -math.inf, 0.0, -math.inf])
    assert {sampler.choose(logits) for _ in range(200)} == {1, 3}
    # The largest number that the generator can give.
    sampler._random.random = lambda: 1 - 2**-53  # type: ignore[method-assign]
    assert sampler.choose(logits) == 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_refused(temperature: float, bad: float) -> None:
    sampler = Sampler(Sampling(temperature=temperature))
    for place in range(3):
        values = [0.0, 1.0, 2.0]
        values[place] = bad
        with pytest.raises(EngineError, match="not numbers"):
            sampler.choose(_view(values))
    with pytest.raises(EngineError, match="not numbers"):
        likeliest(_view([-math.inf, -math.inf]))


def test_a_penalty_turns_greedy_choice_to_the_next_best() -> None:
    sampler = Sampler(Sampling(repeat_penalty=2.0))
    assert sampler.choose(_view([3.0, 4.0, -1.0]), [1]) == 0
    assert sampler.choose(_view([-3.0, -2.0, -9.0]), [1]) == 0
    assert Sampler(Sampling(repeat_penalty=2.0, repeat_window=1)).choose(_view([3.0, 4.0]), [1, 0]) == 1
    # Ids of another vocabulary penalise nothing.
    assert sampler.choose(_view([3.0, 4.0]), [-1, 99]) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"min_p": -1}, "min_p is -1"),
        ({"repeat_penalty": 0}, "repeat_penalty is 0"),
        ({"repeat_window": -1}, "repeat_window is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Sampling(**settings)


@pytest.mark.parametrize("spread", [3.0, 0.01, 0.0])
@pytest.mark.parametrize("settings", [{}, _OFF, {**_OFF, "top_p": 0.95}, {"repeat_penalty": 1.1}], ids=str)
def test_a_vocabulary_of_262_thousand_takes_no_second(settings: dict[str, Any], spread: float) -> None:
    rng = random.Random(4)
    logits = _view([rng.gauss(0, spread) for _ in range(262_144)])
    sampler = Sampler(Sampling(temperature=0.8, seed=1, **settings))
    started = time.process_time()
    sampler.choose(logits, [1, 2, 3])
    # 10 to 160 ms here; a limit this wide still finds a full sort with a key at each step.
    assert time.process_time() - started < 1.0
