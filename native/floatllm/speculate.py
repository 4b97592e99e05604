"""Several tokens from one pass over the weights: guesses from the text so far, verified together.

A pass that waits for the disk computes a few more positions in the time it waits. What followed the text's
last tokens where they stood before is a cheap and often right guess of what follows now (prompt lookup
decoding, Saxena 2023). The pass tells which guesses plain decoding makes too; the others are forgotten.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from floatllm.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from floatllm.engine import Engine
    from floatllm.plan import Plan

DRAFT = 7
"""Tokens guessed at a time by default: with the token before them, 8 positions, which every kernel likes."""
MOST_DRAFT = 63
_LONGEST = 3
_Row = TypeVar("_Row")


class Lookup:
    """The text so far, and where each run of up to three tokens stood last."""

    def __init__(self, tokens: Sequence[int]) -> None:
        """Begins with `tokens`."""
        self._tokens: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}
        for token in tokens:
            self.push(token)

    def push(self, token: int) -> None:
        """Adds a token. Only now is it known what follows the runs that ended before it."""
        end = len(self._tokens)
        for length in range(1, min(_LONGEST, end) + 1):
            self._follows[tuple(self._tokens[end - length :])] = end
        self._tokens.append(token)

    def draft(self, count: int) -> list[int]:
        """Guesses the next `count` tokens; none where the last token is new to the text.

        The longest run that stood there before decides. What repeats itself is guessed to go on.
        """
        end = len(self._tokens)
        for length in range(min(_LONGEST, end), 0, -1):
            place = self._follows.get(tuple(self._tokens[end - length :]))
            if place is not None:
                return [self._tokens[place + i % (end - place)] for i in range(count)]
        return []


def verified(guesses: Sequence[int], rows: Sequence[_Row], pick: Callable[[_Row], int]) -> list[int]:
    """The tokens that plain decoding gives, as far as `guesses` let one pass tell: one more than were right.

    `rows` are the logits behind the token before all guesses, then behind each guess; `pick` chooses a token
    from one. It is called in order, once for each token returned.
    """
    taken: list[int] = []
    for guess, row in zip(guesses, rows):  # noqa: B905 (there is one row more)
        taken.append(pick(row))
        if taken[-1] != guess:
            return taken
    return [*taken, pick(rows[len(guesses)])]


def generate(
    engine: Engine,
    prompt: Sequence[int],
    max_tokens: int,
    *,
    pick: Callable[[memoryview[float]], int] | None = None,
    ends: AbstractSet[int] = frozenset(),
    draft: int = DRAFT,
    guess: bool = True,
) -> Iterator[int]:
    """Appends `prompt`, then yields at most `max_tokens` tokens, ending before one of `ends`.

    `pick` chooses a token from `vocab` logits; it is called once for each token, in their order. Without it
    the likeliest is taken, by the engine, and no logits are handed out. Each pass
    behind the prompt's is `draft` + 1 positions wide, however much was guessed or right: kernels depend on
    the width, so the tokens are those of `guess=False`, plain decoding at that width. `draft=0` is plain
    decoding at width 1. Raises UsageError where the plan holds too little for `draft`.
    """
    check_draft(engine.plan, draft)
    known = list(prompt)
    base = engine.length
    try:
        yield from _passes(engine, known, base, max_tokens, pick, ends, draft, guess)
    finally:
        # Who stops early has not seen the tokens behind; they are not to be followed by others.
        with suppress(UsageError):
            engine.truncate(min(engine.length, base + len(known)))


def _passes(
    engine: Engine,
    known: list[int],
    base: int,
    max_tokens: int,
    pick: Callable[[memoryview[float]], int] | None,
    ends: AbstractSet[int],
    draft: int,
    guess: bool,
) -> Iterator[int]:
    # Where earlier positions leave no room to step back (below), there is none for a wide pass.
    width = draft + 1 if engine.context - base > draft else 1
    lookup = Lookup(known)
    choose: Callable[[Any], int] = int if pick is None else pick

    def compute(tokens: list[int], outputs: int) -> Sequence[Any]:
        addition = (0, tokens, outputs)
        return (engine.likeliest([addition]) if pick is None else engine.append([addition]))[0]

    taken = [choose(compute(known, 1)[0])]
    left = max_tokens
    while True:
        for token in taken:
            if token in ends:
                return
            left -= 1
            yield token
            if left == 0:
                return
            known.append(token)
            lookup.push(token)
        # At the context's end a pass begins earlier and computes some positions again, to the same numbers.
        begin = min(base + len(known) - 1, engine.context - width)
        fed = known[begin - base :]
        guesses = lookup.draft(width - len(fed)) if guess else []
        padding = fed[-1:] * (width - len(fed) - len(guesses))
        engine.truncate(begin)
        rows = compute([*fed, *guesses, *padding], width)[len(fed) - 1 :]
        taken = _until(verified(guesses, rows, choose), ends)[:left]
        engine.truncate(begin + len(fed) + len(taken) - 1)


def check_draft(plan: Plan, draft: int) -> None:
    """Raises UsageError unless a pass of the plan holds `draft` guesses and their logits."""
    if not 0 <= draft <= MOST_DRAFT:
        msg = f"Cannot draft {draft} tokens at a time: use 0 (off) to {MOST_DRAFT}."
        raise UsageError(msg)
    if draft >= min(plan.width, plan.outputs) and draft > 0:
        msg = (
            f"Drafting {draft} tokens takes passes of {draft + 1} positions with logits, and this plan has "
            f"{min(plan.width, plan.outputs)}: plan with outputs={draft + 1}."
        )
        raise UsageError(msg)


def pays(plan: Plan) -> bool:
    """Whether a pass waits for weights so long that a few more positions are free.

    Eight positions take about twice the time of one to compute (benchmarks/speculate.py), and reading is
    several times slower than computing; so a quarter of the weights must come from the disk at each pass.
    Where the plan maps windows of the file, they may as well come from the page cache: nothing is free then.
    """
    streamed = sum(chunk.bytes for chunk in plan.chunks if not chunk.pinned)
    return plan.io == "direct" and 4 * streamed >= sum(chunk.bytes for chunk in plan.chunks) > 0


def choose(option: str, make: Callable[[int | None], Plan]) -> tuple[Plan, int]:
    """The plan to run by, and how many tokens to draft.

    `option` is "auto", "off" or a number; `make(outputs)` plans. "auto" drafts where that pays and the memory
    holds the logits. Raises UsageError for another option, and what `make` raises.
    """
    if option == "off":
        return make(None), 0
    if option != "auto":
        if not option.isdecimal() or not 0 <= int(option) <= MOST_DRAFT:
            msg = f"--draft is {option!r}, but it must be auto, off, or a number from 0 to {MOST_DRAFT}."
            raise UsageError(msg)
        plan = make(int(option) + 1)
        check_draft(plan, int(option))
        return plan, int(option)
    plain = make(None)
    if not pays(plain) or plain.width <= DRAFT or plain.ctx <= DRAFT:
        return plain, 0
    try:
        return make(DRAFT + 1), DRAFT
    except EngineError:
        return plain, 0


def _until(tokens: list[int], ends: AbstractSet[int]) -> list[int]:
    """`tokens` up to the first of `ends`, which stays."""
    for index, token in enumerate(tokens):
        if token in ends:
            return tokens[: index + 1]
    return tokens
