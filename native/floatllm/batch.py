"""`floatllm batch`: many prompts through one pass over the weights.

Each pass reads every chunk once for all sequences that are at work; a place that is free is taken by the next
prompt. What a sequence gets does not depend on the others (Plan.uniform, schedule.py), so neither on memory.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floatllm.engine import Engine, check_fit
from floatllm.errors import EngineError, ModelError, UsageError
from floatllm.journal import Journal, check_place, recorded, sidecar
from floatllm.prompts import Prompts
from floatllm.schedule import PIECE, Schedule

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from floatllm.model import Model
    from floatllm.plan import Plan
    from floatllm.prompts import Prompt
    from floatllm.schedule import Finished
    from floatllm.tokenizer import Tokenizer

TOKENS = 128
SEQUENCES = 64
"""At work at once where nothing else is asked for: beyond this the processor binds, not the disk."""
_MOST_SEQUENCES = 512
# The cache of all sequences takes one part in so many of the memory. One more sequence is worth more than
# the weights that its cache keeps from being pinned: the bytes read for each token fall.
_CACHE_SHARE = 2
# Settings that decide the results; a batch that goes on keeps those it was begun with.
_KEPT = ("ctx", "threads", "width", "outputs")
_SAMPLES, _SAMPLE_BYTES = 64, 4096
_REPORT_SECONDS = {True: 1.0, False: 10.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that no other command has."""
    parser.add_argument("input", metavar="IN.jsonl", help='rows such as {"prompt": "...", "max_tokens": 64}')
    parser.add_argument(
        "output", metavar="OUT.jsonl", help="rows in the same order, written when all are done"
    )
    parser.add_argument(
        "--sequences", metavar="N", type=int, help=f"rows computed at the same time (default {SEQUENCES})"
    )
    parser.add_argument(
        "-n", "--tokens", metavar="N", type=int, help=f"maximum number of tokens per row (default {TOKENS})"
    )


def run(model: Model, arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Generates for every row of `arguments.input`, or for those that an earlier batch left.

    Raises UsageError for a row that is not right, before anything runs, and as Model.plan() and Engine do.
    """
    most = TOKENS if arguments.tokens is None else arguments.tokens
    if most < 1:
        msg = f"Cannot generate {most} tokens: ask for at least 1."
        raise UsageError(msg)
    check_place(arguments.output)
    tokenizer, encode = _tokenizer(model)
    with Prompts(arguments.input, encode, _vocab(model), most) as prompts:
        plan = make_plan(model, prompts, arguments, recorded(arguments.output) or {})
        begun = {"model": fingerprint(model.files), "input": prompts.sha256, "tokens": most}
        begun |= {"ctx": plan.ctx, "kv": plan.kv, "device": plan.device, **decisive(plan)}
        journal = Journal(arguments.output, begun, len(prompts))
        try:
            _work(plan, prompts, journal, tokenizer, say)
        except BaseException:
            journal.close()
            say(
                f"[FloatLLM] stopped: {journal.done} of {len(prompts)} rows are kept in "
                f"{sidecar(arguments.output)}; the same command goes on from there"
            )
            raise
        journal.finish()


def make_plan(
    model: Model, prompts: Prompts, arguments: argparse.Namespace, before: Mapping[str, Any]
) -> Plan:
    """A plan for as many sequences as half of the memory holds the cache of, at least one.

    The context is the longest row's unless given, and no longer than the default one. `before` is what an
    unfinished batch was begun with: where `arguments` do not say otherwise, what decides its results stays.
    """
    kept = {name: before[name] for name in _KEPT if isinstance(before.get(name), int) and before[name] > 0}
    ctx = kept.get("ctx") if arguments.ctx is None else arguments.ctx
    threads = kept.get("threads") if arguments.threads is None else arguments.threads
    width, outputs = kept.get("width"), kept.get("outputs")
    kv = arguments.kv or before.get("kv", "f16")
    asked = SEQUENCES if arguments.sequences is None else arguments.sequences
    if not 1 <= asked <= _MOST_SEQUENCES:
        msg = f"{asked} sequences at once are not possible: use 1 to {_MOST_SEQUENCES}."
        raise UsageError(msg)

    if width is not None and outputs is not None:
        asked = max(1, min(asked, outputs, width - PIECE))

    def plan(sequences: int, ctx: int | None, width: int | None, outputs: int | None = None) -> Plan:
        return model.plan(
            memory=arguments.memory,
            device=arguments.device,
            device_memory=arguments.device_memory,
            cpu_share=arguments.cpu_share,
            ctx=ctx,
            chunk=arguments.chunk,
            width=width,
            threads=threads,
            io=arguments.io,
            sequences=sequences,
            outputs=outputs,
            uniform=True,
            kv=kv,
        )

    one = plan(1, ctx, width)
    if ctx is None and prompts.longest < one.ctx:
        one = plan(1, prompts.longest, width)
    # By what was asked for, not by what the memory holds: on some devices these decide the last bits.
    if width is None:
        width = one.width if asked + PIECE <= one.width else -(-(asked + PIECE) // PIECE) * PIECE
    if outputs is None and by_width(one):
        outputs = min(asked, width)
    held = sum(device.limit for device in one.devices) // _CACHE_SHARE // one.memory.kv

    def most(sequences: int) -> Plan:
        try:
            return plan(sequences, one.ctx, width, outputs)
        except EngineError:
            # What else grows with the sequences was left out above.
            if sequences == 1:
                raise
            return most(sequences // 2)

    return most(max(1, min(asked, held, len(prompts))))


def by_width(plan: Plan) -> bool:
    """Whether the device's numbers depend on how wide its passes are, so that all are equally wide."""
    return plan.grain >= plan.width


def decisive(plan: Plan) -> dict[str, int]:
    """What of the plan, beside context and device, decides the last bits of what is computed."""
    # On the CPU the threads share out the positions that one token looks back at, and add up what each found.
    found = {"threads": plan.threads} if plan.device == "CPU" else {}
    return found | ({"width": plan.width, "outputs": plan.outputs} if by_width(plan) else {})


def generate(
    engine: Engine, rows: Iterator[tuple[int, Prompt]], ends: AbstractSet[int], on_pass: Callable[[int], None]
) -> Iterator[Finished]:
    """Yields each row's sequence when it is finished, in whatever order that happens.

    `rows` fit the context. `on_pass` is told after each pass how many tokens it gave.
    """
    plan = engine.plan
    schedule = Schedule(plan.sequences, plan.width)
    while True:
        while schedule.free and (entry := next(rows, None)) is not None:
            row, prompt = entry
            engine.truncate(0, schedule.admit(row, prompt.tokens, prompt.max_tokens))
        pieces = schedule.next_pass()
        if not pieces:
            return
        found = engine.likeliest([(p.place, p.tokens, int(p.wanted)) for p in pieces])
        for piece in pieces:
            schedule.computed(piece)
        on_pass(sum(piece.wanted for piece in pieces))
        for piece, tokens in zip(pieces, found, strict=True):
            for token in tokens:
                done = schedule.take(piece.place, token, ends=token in ends)
                if done is not None:
                    yield done


def fingerprint(paths: Sequence[str]) -> str:
    """Tells models apart by their files' sizes and some of their bytes; reading all would take minutes."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(f"{size}\n".encode())
            for sample in range(_SAMPLES):
                file.seek(size * sample // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _work(
    plan: Plan, prompts: Prompts, journal: Journal, tokenizer: Tokenizer | None, say: Callable[[str], None]
) -> None:
    progress = _Progress(len(prompts), journal, say)
    refused = 0
    at_work: dict[int, Prompt] = {}

    def waiting() -> Iterator[tuple[int, Prompt]]:
        nonlocal refused
        for row in range(len(prompts)):
            if row in journal:
                continue
            prompt = prompts[row]
            try:
                check_fit(len(prompt.tokens), prompt.max_tokens, plan.ctx)
            except UsageError as error:
                refused += 1
                journal.add(row, _result(prompt, (), "error", tokenizer) | {"error": str(error)})
            else:
                at_work[row] = prompt
                yield row, prompt

    if journal.done == len(prompts):
        return
    ends = frozenset() if tokenizer is None else tokenizer.end_ids
    with Engine(plan) as engine:
        for done in generate(engine, waiting(), ends, progress.passed):
            finish = "stop" if done.stopped else "length"
            journal.add(done.row, _result(at_work.pop(done.row), done.tokens, finish, tokenizer))
            progress.show()
    progress.end(plan, refused)


def _result(
    prompt: Prompt, tokens: tuple[int, ...], finish: str, tokenizer: Tokenizer | None
) -> dict[str, Any]:
    text = {} if tokenizer is None else {"text": tokenizer.decode(tokens)}
    return {
        "id": prompt.id,
        **text,
        "tokens": list(tokens),
        "prompt_tokens": len(prompt.tokens),
        "finish": finish,
    }


def _tokenizer(model: Model) -> tuple[Tokenizer | None, Callable[[str], list[int]]]:
    """The tokenizer; a file without one still takes rows of token ids."""
    try:
        tokenizer = model.tokenizer
    except ModelError as error:
        refusal = error

        def refuse(_text: str) -> list[int]:
            raise refusal

        return None, refuse
    return tokenizer, tokenizer.encode


def _vocab(model: Model) -> int:
    """Rows of the token embedding; a file without one is refused when it is planned."""
    return next((t.shape[1] for t in model.tensors if t.name == "token_embd.weight"), 1)


class _Progress:
    """Rows done and tokens per second on stderr, now and then."""

    def __init__(self, rows: int, journal: Journal, say: Callable[[str], None]) -> None:
        self._rows, self._journal, self._say = rows, journal, say
        self._tokens = 0
        self._began = self._shown = time.monotonic()
        self._seconds = _REPORT_SECONDS[sys.stderr.isatty()]

    def passed(self, tokens: int) -> None:
        self._tokens += tokens
        self.show()

    def show(self) -> None:
        if time.monotonic() - self._shown >= self._seconds:
            self._shown = time.monotonic()
            self._say(f"[FloatLLM] {self._journal.done}/{self._rows} done | {self._rate()}")

    def end(self, plan: Plan, refused: int) -> None:
        self._say(
            f"[FloatLLM] {self._journal.done}/{self._rows} done | {self._rate()} | {plan.sequences} at once"
            + (f" | {refused} did not fit" if refused else "")
            + f" | {plan.device}"
        )

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{self._tokens / seconds:.2f} tokens/s"
