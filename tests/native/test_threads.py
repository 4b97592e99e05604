"""Threads that wait for each other: as many as there are free CPUs, and the same numbers with any number."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from installed import Installed

# Past 512 cells of context, where ggml's attention of a single position is divided.
NUMBERS = """
import hashlib, json, sys
import floatllm
numbers = []
with floatllm.Model.open(sys.argv[1]) as model:
    for threads in (1, 2):
        with floatllm.Engine(model.plan(device="CPU", ctx=1024, threads=threads)) as engine:
            digest = hashlib.sha256(bytes(engine.forward([(7919 * i + 5) % 4000 for i in range(600)])))
            for token in range(5):
                digest.update(bytes(engine.forward([token])))
            numbers.append(digest.hexdigest())
print(json.dumps(numbers))
"""
# Computes until it is said that fewer threads do, or a minute long: beside others a token may take seconds.
# On all CPUs: beside other workers a test has one of them.
WATCH = """
import json, os, sys, time
os.sched_setaffinity(0, range(os.cpu_count()))
import floatllm
said = []
floatllm.set_log(lambda level, text: said.append(text))
with floatllm.Model.open(sys.argv[1]) as model:
    with floatllm.Engine(model.plan(device="CPU", ctx=256, threads=2)) as engine:
        until = time.monotonic() + 60
        while time.monotonic() < until and not any("threads compute" in text for text in said):
            engine.truncate(0)
            engine.forward([1])
print(json.dumps([text for text in said if "threads compute" in text]))
"""

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
CPUS = os.cpu_count() or 1
BUSY = "import os; os.sched_setaffinity(0, range(os.cpu_count()))\nwhile True: pass"


def test_the_numbers_do_not_depend_on_how_many_threads_there_are(engine: Installed, smollm: Path) -> None:
    first, second = engine.script(NUMBERS, smollm)
    assert first == second


@contextmanager
def _busy(count: int) -> Iterator[None]:
    children = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


@LINUX
@pytest.mark.skipif(CPUS < 2, reason="one CPU has one thread")
def test_fewer_threads_compute_beside_a_program_that_keeps_the_cpus_busy(
    engine: Installed, smollm: Path
) -> None:
    with _busy(CPUS):
        said = engine.script(WATCH, smollm)
    assert [text.strip() for text in said] == [
        "[FloatLLM] 1 of 2 threads compute: other programs keep CPUs busy."
    ]
