"""How fast a model runs here, and how much of what disk and memory allow that is."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from floatllm.engine import Engine, Event, check_fit
from floatllm.predict import Prediction, predict
from floatllm.render import SCHEMA_VERSION, chunks_text, prediction_json
from floatllm.sizes import format_size

if TYPE_CHECKING:
    import argparse

    from floatllm.plan import Plan

PROMPT, TOKENS = 128, 32


@dataclass(frozen=True)
class Result:
    """A measurement of a plan; times are in seconds.

    `prompt` tokens took `prompt_seconds` together, then `tokens` took `seconds` one by one; of these
    `waiting` went by until bytes were there, and `computing` on chunks that were. `before` and `after` are
    what the plan's reading and computing take alone, measured on both sides of the run.
    """

    prompt: int
    prompt_seconds: float
    tokens: int
    seconds: float
    waiting: float
    computing: float
    before: Prediction
    after: Prediction

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds

    @property
    def read_share(self) -> float:
        """Time that reading alone takes, as a share of the time that was taken; 1 is the disk's limit."""
        return (self.before.read_seconds + self.after.read_seconds) / 2 * self.rate

    @property
    def compute_share(self) -> float:
        """The same of computing with all weights in memory."""
        return (self.before.compute_seconds + self.after.compute_seconds) / 2 * self.rate


class _Clock:
    def __init__(self) -> None:
        self.waiting = self.computing = 0.0

    def __call__(self, event: Event) -> None:
        if event.kind == "chunk":
            self.waiting += event.waited
            self.computing += event.seconds - event.waited


def measure(plan: Plan, prompt: int = PROMPT, tokens: int = TOKENS) -> Result:
    """Reads `prompt` tokens and decodes `tokens` more; what they are does not matter to the speed.

    Raises UsageError where the plan's context does not hold them.
    """
    check_fit(prompt, tokens, plan.ctx)
    before = predict(plan)
    with Engine(plan) as engine:
        ids = [i % min(engine.vocab, 1000) for i in range(prompt)]
        # The first pass brings in what stays.
        engine.forward(ids[:1])
        engine.truncate(0)
        prompt_seconds = _timed(engine, ids)
        clock = _Clock()
        engine.on_event(clock)
        seconds = sum(_timed(engine, [ids[i % prompt]]) for i in range(tokens))
    return Result(
        prompt, prompt_seconds, tokens, seconds, clock.waiting, clock.computing, before, predict(plan)
    )


def _timed(engine: Engine, ids: list[int]) -> float:
    began = time.perf_counter()
    engine.forward(ids)
    return time.perf_counter() - began


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options beside those of every plan."""
    parser.add_argument("-n", "--tokens", metavar="N", type=int, default=TOKENS, help="tokens to decode")
    parser.add_argument("--prompt-tokens", metavar="N", type=int, default=PROMPT, help="tokens to read first")


def document(plan: Plan, found: Result) -> dict[str, Any]:
    """The result as JSON: the fields of Result, and what follows from them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "device": plan.device,
        "io": plan.io,
        "chunks": len(plan.chunks),
        "tokens_per_second": found.rate,
        "prompt_tokens_per_second": found.prompt / found.prompt_seconds,
        "streamed_bytes_per_token": found.before.streamed,
        "computed_bytes_per_token": found.before.computed,
        "share_of_read_limit": found.read_share,
        "share_of_compute_limit": found.compute_share,
        **asdict(found),
        "before": prediction_json(found.before),
        "after": prediction_json(found.after),
    }


def text(plan: Plan, found: Result) -> str:
    """The same for people."""
    last = found.after
    other = max(0.0, found.seconds - found.waiting - found.computing)
    way = "disk" if last.limit == "compute" else last.limit
    each = f"{found.seconds / found.tokens:.4f} s each; {found.before.seconds:.4f} s were predicted"
    lines = [
        f"{plan.device}, {chunks_text(plan)}, {plan.threads} threads, reads by {plan.io}",
        f"prompt  {found.prompt / found.prompt_seconds:8.2f} tokens/s ({found.prompt} tokens)",
        f"decode  {found.rate:8.2f} tokens/s ({found.tokens} tokens, {each})",
    ]
    if last.streamed:
        lines.append(
            f"read    {format_size(last.streamed)} a token: {found.read_share:.0%} of what the {way} allows "
            f"({format_size(int(last.read_rate))}/s)"
        )
    lines.append(
        f"compute {format_size(last.computed)} a token: {found.compute_share:.0%} of what the processor and "
        f"its memory allow ({format_size(int(last.compute_rate))}/s)"
    )
    if any(device.overlaps for device in plan.devices) and last.streamed:
        return "\n".join(lines)  # the host only starts what the device does, and waits for nothing
    shares = {"waiting for bytes": found.waiting, "computing": found.computing, "between": other}
    lines.append("time    " + ", ".join(f"{n} {s / found.seconds:.0%}" for n, s in shares.items()))
    return "\n".join(lines)
