"""Guessed tokens beside plain decoding: the same text, and how much sooner.

    python benchmarks/speculate.py same MODEL.gguf [--prompts 100] [--tokens 48] [--memory 64M]
    python benchmarks/speculate.py speed [--limit 700] [--tokens 48] [--rounds 3] [--read-ahead 128]

`same` takes a model with a tokenizer that is larger than --memory and generates from 100 prompts with guesses
and without, both in passes of 8 positions. Prints JSON: prompts whose token ids are equal, and passes taken.
Exits 1 where one differs.

`speed` needs what benchmarks/batch.py needs and runs under the same limit. The weights of its model are
random, so it says what it is told to: lines that repeat themselves but for one token in 16, and tokens that
never do. Speed depends on which guesses are right, not on who wrote the text. Prints JSON: tokens per second
of decoding plainly at width 1, of guessing in the text that repeats itself, and of guessing in vain.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

OPENINGS = (
    "Once upon a time there was",
    "def sort_numbers(values):\n    ",
    "Here is a list of facts about",
    "Repeat after me:",
    "Question: What do you know about",
    "Dear Sir or Madam, I am writing to you about",
    "<ul>\n<li>",
    "The history of",
    "Step 1: Take",
    "name,colour,size\n",
)
SUBJECTS = (
    "a fox",
    "the moon",
    "prime numbers",
    "bread",
    "the sea, the sea, the sea, the",
    "2, 4, 6, 8, 10,",
    "winter",
    "the railway",
    "music and",
    "Monday, Tuesday, Wednesday,",
)

SPEED = """
plan = model.plan(ctx=512, device="CPU", threads=2, outputs=8)
count, repeats = int(sys.argv[2]), {repeats}
text = iter([100 + (i if not repeats or i % 16 == 0 else i % 16) for i in range(64 + count)])
prompt = [next(text) for _ in range(64)]
with floatllm.Engine(plan) as engine:
    tokens = speculate.generate(engine, prompt, count, pick=lambda row: next(text, 0), draft={draft})
    next(tokens)
    began = time.perf_counter()
    taken = sum(1 for _ in tokens)
    done(taken / (time.perf_counter() - began))
"""


def same(given: argparse.Namespace) -> int:
    """Generates everything twice and compares."""
    from floatllm import Engine, Model, speculate  # noqa: PLC0415
    from floatllm.sampler import likeliest  # noqa: PLC0415

    prompts = [f"{opening} {subject}" for subject, opening in product(SUBJECTS, OPENINGS)][: given.prompts]

    class Counting(Engine):
        passes = 0

        def append(
            self, additions: Sequence[tuple[int, Sequence[int], int]]
        ) -> list[list[memoryview[float]]]:
            self.passes += 1
            return super().append(additions)

    passes = {True: 0, False: 0}
    tokens = equal = 0
    with Model.open(given.model) as model:
        plan = model.plan(given.memory, ctx=512, outputs=speculate.DRAFT + 1, threads=given.threads)
        with Counting(plan) as engine:
            for prompt in prompts:
                texts = []
                for guess in (True, False):
                    engine.truncate(0)
                    engine.passes = 0
                    text = speculate.generate(
                        engine,
                        model.tokenizer.encode(prompt),
                        given.tokens,
                        pick=likeliest,
                        ends=model.tokenizer.end_ids,
                        guess=guess,
                    )
                    texts.append(list(text))
                    passes[guess] += engine.passes
                tokens += len(texts[0])
                equal += texts[0] == texts[1]
                if texts[0] != texts[1]:
                    sys.stderr.write(f"differs: {prompt!r}\n")
    document = {
        "model": Path(given.model).name,
        "streams": any(not chunk.pinned for chunk in plan.chunks),
        "prompts": len(prompts),
        "equal": equal,
        "tokens": tokens,
        "passes_guessing": passes[True],
        "passes_plain": passes[False],
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")
    return 0 if equal == len(prompts) else 1


def speed(given: argparse.Namespace) -> int:
    """Times plain decoding and guessing, in turn."""
    import batch  # noqa: PLC0415

    head = batch.HEAD.replace("passes, sequences =", "_, _ =") + "from floatllm import speculate"
    codes = {
        name: head + SPEED.format(repeats=repeats, draft=draft)
        for name, repeats, draft in (("plain", True, 0), ("repeating", True, 7), ("in vain", False, 7))
    }
    found = batch.rounds(codes, [given.tokens, 1], given)
    plain, repeating, vain = found["median"].values()
    found |= {
        "ratio": round(repeating / plain, 2) if plain else None,
        "ratio_in_vain": round(vain / plain, 2) if plain else None,
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def main() -> int:
    """Parses and runs one of the two."""
    import stream  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    text = commands.add_parser("same")
    text.set_defaults(run=same)
    text.add_argument("model")
    text.add_argument("--prompts", type=int, default=len(OPENINGS) * len(SUBJECTS))
    text.add_argument("--tokens", type=int, default=48)
    text.add_argument("--memory", default="64M")
    text.add_argument("--threads", type=int)
    timed = commands.add_parser("speed", parents=[stream.parser(None)], add_help=False)
    timed.set_defaults(run=speed)
    timed.add_argument("--tokens", type=int, default=48)
    given = parser.parse_args()
    code: int = given.run(given)
    return code


if __name__ == "__main__":
    sys.exit(main())
