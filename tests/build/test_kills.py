"""Killed is not lost: a random process of an install is killed at a random moment, and then one more install.

Before that install the former engine is untouched, or the new one is there whole; after it there is a working
engine of the present sources. Five kills; `FLOATLLM_KILLS=50 pytest tests/build/test_kills.py` for the long
run (a quarter of an hour), FLOATLLM_SEED for other moments.
"""

from __future__ import annotations

import os
import random
import signal
import sys

import pytest
from running import Place, Running

pytestmark = [
    pytest.mark.ci,
    pytest.mark.build,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc"),
]

KILLS = int(os.environ.get("FLOATLLM_KILLS", "5"))
SEED = int(os.environ.get("FLOATLLM_SEED", "4"))

# Phase -> (what is deleted so that it comes again, the line after which it runs, seconds that it may take).
PHASES = {
    "compile": (("build", "wheels"), "ggml ", (2.5, 9.0)),
    "install": (("installed",), "reusing", (0.0, 1.2)),
    "fetch": (("ggml", "tools", "wheels"), "plan ", (0.0, 3.5)),
    "configure": (("build", "wheels"), "ggml ", (0.0, 2.5)),
    "package": ((), "units in", (0.0, 1.2)),
    "verify": ((), "package ", (0.0, 1.2)),
    "replace": ((), "verify ", (0.0, 1.2)),
    "probe": ((), "", (0.0, 0.8)),
}


def kill_one(run: Running, phase: str, chance: random.Random) -> str:
    """Kills a random process in that phase; returns what it was, empty where all had ended before."""
    _, mark, (least, most) = PHASES[phase]
    if not run.wait_for(mark) or not run.sleep(chance.uniform(least, most)):
        return ""
    tree = run.tree()
    # By name: else compilers, of which there are always many, would be chosen each time.
    name = chance.choice(sorted(set(tree.values())))
    victim = chance.choice(sorted(pid for pid, its in tree.items() if its == name))
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return f"{name}, one of {', '.join(sorted(tree.values()))}"


@pytest.mark.parametrize("number", range(1, KILLS + 1))
def test_killed_is_not_lost(place: Place, number: int) -> None:
    chance = random.Random(f"{SEED} {number}")
    phase = [*PHASES][(number - 1) % len(PHASES)]
    killed = ""
    for attempt in range(10):
        if phase != "install":
            place.change(f"{number}.{attempt}")
        for what in PHASES[phase][0]:
            place.delete(what)
        former = place.engine()
        with place.started() as run:
            killed = kill_one(run, phase, chance)
            status = run.wait()
            run.wait_for_all()
            said = run.said
        if killed:
            break
        assert status == 0, said
    assert killed, f"{phase} ended before it could be killed, ten times"
    sys.stdout.write(f"kill {number}, in {phase}: {killed}; exit {status}\n")
    assert "Traceback" not in said
    assert status in {0, -signal.SIGKILL, 3, 4, 5, 6}, said
    if place.engine() != former:
        # Either the install came to its end all the same, or what was killed no longer mattered for it.
        assert status == 0 or phase in {"install", "replace", "verify", "package"}, said
        assert place.is_whole(), said
    assert place.works()

    done = place.install()
    assert done.returncode == 0, done.stderr
    assert place.is_whole()
    assert place.works()
    if phase != "install":
        assert place.round_of_engine() == f"round {number}.{attempt}"
    assert list(place.site.glob("~*")) == []
    assert list(place.cache.glob("*/.*-*")) == []
    proven = place.tool("verify", "--python", place.target)
    assert proven.returncode == 0, proven.stderr
