"""The engine's budget under a hard limit of the kernel: what exceeds it is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installed import Installed
from memory_group import Group

MIB = 1 << 20
# DESIGN's share for interpreter and tokenizer, on top of --memory.
_PYTHON = 64 * MIB


@pytest.mark.parametrize("io", ["mmap", "direct"])
@pytest.mark.parametrize("size", [36, 48, 80])
def test_the_budget_holds_under_a_hard_limit(
    engine: Installed, group: Group, smollm: Path, size: int, io: str
) -> None:
    group.limit(size * MIB + _PYTHON)
    bound = ("--memory", f"{size}M", "--io", io)
    mapped = group.run(engine.command("map", smollm, *bound), engine.env)
    assert mapped.returncode == 0, mapped.stderr
    # A prompt that fills a pass, so that every activation is really touched.
    prompt = "word " * 120
    ran = group.run(engine.command("run", smollm, "-p", prompt, "-n", "3", *bound), engine.env)
    assert ran.returncode == 0, ran.stderr


def test_the_limit_is_a_real_one(engine: Installed, group: Group) -> None:
    group.limit(64 * MIB)
    greedy = [engine.python, "-c", "data = bytearray(200 << 20); data[::4096] = bytes(len(data[::4096]))"]
    assert group.run(greedy, engine.env).returncode != 0


def test_without_a_bound_the_group_sets_it(engine: Installed, group: Group, smollm: Path) -> None:
    group.limit(128 * MIB)
    plan = group.run(engine.command("plan", smollm), engine.env)
    assert plan.returncode == 0, plan.stderr
    assert group.folder.name in plan.stdout
    ran = group.run(engine.command("run", smollm, "-p", "The capital of France is", "-n", "2"), engine.env)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(" Paris")


_BESIDE = """
import json, subprocess, sys
import floatllm
from floatllm import Engine, Model

said = []
floatllm.set_log(lambda level, text: said.append(text))

def anonymous():
    return next(int(l.split()[1]) >> 10 for l in open("/proc/self/status") if l.startswith("RssAnon"))

def logits(engine):
    engine.truncate(0)
    return bytes(engine.forward([1, 2, 3]).cast("B"))

grow = "import time; held = []"
grow += "\\nfor _ in range(40): held.append(bytearray(b'x') * (1 << 20)); time.sleep(0.05)\\ntime.sleep(1)"
with Model.open(sys.argv[1]) as model:
    plan = model.plan(device="CPU", ctx=64, io="direct")
    with Engine(plan) as engine:
        first, before, least, same = logits(engine), anonymous(), 1 << 30, True
        child = subprocess.Popen([sys.executable, "-c", grow])
        while child.poll() is None:
            same = logits(engine) == first and same
            least = min(least, anonymous())
        chunks = [chunk.pinned for chunk in plan.chunks]
        print(json.dumps({"status": child.wait(), "same": same, "before": before, "least": least,
            "pinned": sum(chunks), "chunks": len(chunks), "said": said}))
"""


def test_memory_that_others_take_is_given_back(engine: Installed, group: Group, smollm: Path) -> None:
    """Beside a neighbour that grows, kept chunks are read again instead of both being killed."""
    group.limit(150 * MIB)
    done = group.run([engine.python, "-c", _BESIDE, str(smollm)], engine.env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["pinned"] < found["chunks"]
    assert found["status"] == 0
    assert found["same"]
    assert found["least"] < found["before"] - 10
    assert any("Memory is short" in line for line in found["said"])
