"""How near the disk's limit a model larger than memory runs, and whether `plan` foretold it.

    python benchmarks/limit.py [--limit 700] [--read-ahead 128] [--rounds 3] [--tokens 32]

Needs what benchmarks/batch.py needs. Runs `floatllm bench` inside the limit with the page cache dropped
before; it measures the disk before and after the tokens, in the same process, by the reads of the plan alone.
Prints JSON for each round: tokens per second, the time that reading alone takes as a share of the time taken
(1 is the limit), and the seconds predicted for a token divided by those taken.
"""

from __future__ import annotations

import json
import statistics
import sys

import stream


def main() -> None:
    """Runs the rounds and prints the result."""
    asked = stream.parser(__doc__)
    asked.add_argument("--tokens", type=int, default=32)
    given = asked.parse_args()
    if not given.model.is_file():
        stream.make_model(given.model)
    command = [sys.executable, "-m", "floatllm", "bench", str(given.model), "--json", "--ctx", "256"]
    command += ["--device", "CPU", "-n", str(given.tokens)]
    rounds = []
    with stream.limited(given.limit, given.read_ahead) as members:
        for _ in range(given.rounds):
            done = stream.inside(command, members)
            if done.returncode != 0:
                sys.exit(done.stderr)
            found = json.loads(done.stdout)
            rounds.append(
                {
                    "tokens_per_second": found["tokens_per_second"],
                    "share_of_read_limit": found["share_of_read_limit"],
                    "predicted": found["before"]["seconds"] * found["tokens_per_second"],
                    "read_rate": [found[side]["read_rate"] for side in ("before", "after")],
                    "limit": found["before"]["limit"],
                }
            )
            sys.stderr.write(f"{rounds[-1]}\n")
    document = {
        "model_bytes": given.model.stat().st_size,
        "limit_mib": given.limit,
        "read_ahead_kib": given.read_ahead or "as the system has it",
        "rounds": rounds,
        "median": {
            key: round(statistics.median(each[key] for each in rounds), 3)
            for key in ("tokens_per_second", "share_of_read_limit", "predicted")
        },
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
