"""Chooses the next token from logits: pure apart from its own random numbers, fast for 262,144 of them.

The library finds the largest (floatllm_top), so that Python sees candidates alone; only where every token may
be drawn (top_k 0) does a list hold them all.
"""

from __future__ import annotations

import ctypes
import math
import random
from bisect import bisect_right
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import accumulate
from typing import TYPE_CHECKING, cast

from floatllm import _lib
from floatllm.errors import EngineError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_MOST_SEED = 2**64
_NO_NUMBERS = (
    "There are logits that are not numbers: what computed them overflowed, or its weights are damaged."
)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    `temperature` 0 takes the likeliest, the first of equals; above 0 a token is drawn with the chance
    softmax(logits / temperature), from those that are left by, in this order: `top_k`, the likeliest k
    (0: all); `top_p`, the fewest whose chances before the temperature add up to p (1: all); `min_p`, those
    whose chance is at least min_p of the likeliest's (0: all). One token is always left.
    `repeat_penalty` above 1 makes the last `repeat_window` tokens less likely before all this: positive
    logits are divided by it, negative ones multiplied (Keskar et al. 2019, https://arxiv.org/abs/1909.05858).
    The same `seed` draws the same tokens from the same logits; None draws others each time.
    Order and defaults are llama.cpp's, but for the temperature.
    """

    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    repeat_window: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        _check("temperature", self.temperature, 0 <= self.temperature < math.inf, "0 or more")
        _check("top_k", self.top_k, _whole(self.top_k), "a whole number, 0 (for all) or more")
        _check("top_p", self.top_p, 0 <= self.top_p <= 1, "from 0 to 1")
        _check("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1")
        _check("repeat_penalty", self.repeat_penalty, 0 < self.repeat_penalty < math.inf, "above 0")
        _check("repeat_window", self.repeat_window, _whole(self.repeat_window), "a whole number, 0 or more")
        if self.seed is not None:
            seeded = _whole(self.seed) and self.seed < _MOST_SEED
            _check("seed", self.seed, seeded, f"a whole number from 0 to {_MOST_SEED - 1}")

    @property
    def likeliest(self) -> bool:
        """Whether it is always the token of the largest logit, the first of equals."""
        return self.temperature == 0 and (self.repeat_penalty == 1 or self.repeat_window == 0)


class Sampler:
    """Chooses tokens for one text, one after another."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        seed = fresh_seed() if sampling.seed is None else sampling.seed
        self._random = random.Random(seed)  # noqa: S311 (no secret: it must be repeatable)

    def choose(self, logits: memoryview[float], history: Sequence[int] = ()) -> int:
        """The next token, an index into `logits`; `history` holds the tokens before it, oldest first.

        Raises EngineError where the logits are not numbers.
        """
        sampling = self.sampling
        recent: set[int] = set()
        if sampling.repeat_penalty != 1 and sampling.repeat_window:
            recent = {token for token in history[-sampling.repeat_window :] if 0 <= token < len(logits)}
        tokens = _in_question(logits, 1 if sampling.temperature == 0 else sampling.top_k, recent)
        # Item by item for a few, but all at once for all, which is some times as fast.
        every = len(tokens) == len(logits)
        values = cast("list[float]", logits.tolist()) if every else [logits[token] for token in tokens]
        for place, token in enumerate(tokens) if recent else ():
            if token in recent:
                values[place] = _penalised(values[place], sampling.repeat_penalty)
        best = _highest(values)
        if sampling.temperature == 0:
            return tokens[values.index(best)]
        left = candidates(values, sampling)
        heat = sampling.temperature
        # A temperature near 0 takes the quotient to minus infinity, whose weight is the 0 that it should be.
        sums = list(accumulate(math.exp((values[place] - best) / heat) for place in left))
        # random() is below 1, so the product stays below the last sum, however it is rounded.
        return tokens[left[bisect_right(sums, self._random.random() * sums[-1])]]


def fresh_seed() -> int:
    """A seed that nobody asked for, short enough to be typed."""
    return random.SystemRandom().getrandbits(32)


def likeliest(logits: memoryview[float]) -> int:
    """Index of the largest logit, the first of equals. Raises EngineError where one is not a number."""
    return top(logits, 1)[0]


def top(logits: memoryview[float], count: int) -> list[int]:
    """The tokens of the `count` largest logits (float32), largest first, and of equals the first first.

    Raises EngineError where a logit is NaN or the largest is infinite.
    """
    kind = ctypes.c_float * len(logits)
    values = kind.from_buffer_copy(logits) if logits.readonly else kind.from_buffer(logits)
    room = (ctypes.c_uint32 * min(count, len(logits)))()
    if _lib.library().floatllm_top(values, len(logits), len(room), room) != len(room):
        raise EngineError(_NO_NUMBERS)
    return list(room)


def candidates(values: Sequence[float], sampling: Sampling) -> Sequence[int]:
    """The tokens that `sampling` leaves of logits that are numbers, in their own order, at least one."""
    best = max(values)
    tokens: Sequence[int] = range(len(values))
    if 0 < sampling.top_k < len(values):
        # Without a key, nlargest compares plain numbers, which is several times as fast.
        tokens = _best(values, tokens, sampling.top_k, nlargest(sampling.top_k, values)[-1])
    if sampling.top_p < 1:
        tokens = _top_p(values, tokens, sampling.top_p, best)
    if sampling.min_p > 0:
        floor = best + math.log(sampling.min_p)
        tokens = [token for token in tokens if values[token] >= floor]
    return tokens


def _top_p(values: Sequence[float], tokens: Sequence[int], share: float, best: float) -> list[int]:
    total = math.fsum(math.exp(values[token] - best) for token in tokens)
    # Tokens rarer than this add up to less than what may be left out, so most are never sorted.
    rare = best + math.log((1 - share) * total / len(tokens))
    likely = sorted((values[token] for token in tokens if values[token] >= rare), reverse=True)
    sums = accumulate(math.exp(value - best) for value in likely)
    count = next((i + 1 for i, sum_ in enumerate(sums) if sum_ >= share * total), len(likely))
    return _best(values, tokens, count, likely[count - 1])


def _best(values: Sequence[float], tokens: Sequence[int], count: int, least: float) -> list[int]:
    """The best `count` of `tokens`, whose last has the logit `least`; of its equals the first are taken."""
    found = [token for token in tokens if values[token] >= least]
    if len(found) == count:
        return found
    equal = [token for token in found if values[token] == least]
    left_out = set(equal[len(equal) - (len(found) - count) :])
    return [token for token in found if token not in left_out]


def _in_question(logits: memoryview[float], count: int, recent: set[int]) -> Sequence[int]:
    """In their own order, tokens that hold the best `count` (0: all) whatever a penalty does to `recent`."""
    if count == 0 or count + len(recent) >= len(logits):
        return range(len(logits))
    # Each of `recent` may leave the best, and then lets in at most one more.
    return sorted(recent.union(top(logits, count + len(recent))))


def _penalised(value: float, penalty: float) -> float:
    return value / penalty if value > 0 else value * penalty


def _highest(values: Sequence[float]) -> float:
    best = max(values)
    # The sum finds a NaN wherever it stands; the largest alone does not.
    if math.isnan(sum(values)) or not math.isfinite(best):
        raise EngineError(_NO_NUMBERS)
    return best


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check(name: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        msg = f"{name} is {value}, but it must be {wanted}."
        raise UsageError(msg)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line, read by from_arguments()."""
    group = parser.add_argument_group("sampling", "Without --temp the likeliest token is taken each time.")
    default = Sampling()
    for name, kind, metavar, text in (
        (
            "--temp",
            float,
            "T",
            "temperature, such as 0.8; higher is more random (default 0: always the likeliest token)",
        ),
        ("--top-k", int, "K", f"draw from the K likeliest tokens; 0 for all (default {default.top_k})"),
        (
            "--top-p",
            float,
            "P",
            f"draw from the smallest set whose probabilities reach P; 1 for all (default {default.top_p})",
        ),
        (
            "--min-p",
            float,
            "P",
            f"draw from tokens at least P times as likely as the likeliest (default {default.min_p})",
        ),
        (
            "--repeat-penalty",
            float,
            "X",
            "above 1 makes recent tokens less likely, such as 1.1 (default 1: off)",
        ),
        ("--seed", int, "N", "repeat the random draws of another run (default: a new seed)"),
    ):
        group.add_argument(name, type=kind, metavar=metavar, help=text)


def from_arguments(arguments: argparse.Namespace) -> Sampling:
    """The sampling that was asked for, with a seed where it draws. Raises UsageError."""
    names = {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "repeat_penalty": "repeat_penalty",
        "seed": "seed",
    }
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    drawing = sorted(given.keys() - {"temp", "repeat_penalty"})
    if drawing and "temp" not in given:
        options = ", ".join("--" + name.replace("_", "-") for name in drawing)
        matter = "matters" if len(drawing) == 1 else "matter"
        msg = f"{options} only {matter} where tokens are drawn: add --temp, such as --temp 0.8."
        raise UsageError(msg)
    sampling = Sampling(**{names[name]: value for name, value in given.items()})
    if sampling.temperature > 0 and sampling.seed is None:
        sampling = replace(sampling, seed=fresh_seed())
    return sampling
