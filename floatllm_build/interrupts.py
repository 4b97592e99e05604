"""Ctrl-C, a polite kill, a terminal that was closed: each stops our children once, and no second time."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

from floatllm_build.answer import stop_asking

INTERRUPTED = 130
"""The exit status."""

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_INTERRUPTS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def say_interrupted() -> None:
    # There may be no stderr: what cannot be told stops nothing.
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write("floatllm-build: interrupted. Run it again to go on where it stopped.\n")


def mind_interrupts() -> None:
    """From now on each of them is a KeyboardInterrupt in the main thread, which has to be the caller."""
    for number in _INTERRUPTS:
        # What is ignored, as nohup has it with a hang-up, stays ignored.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    """Once: another Ctrl-C must not keep us from stopping our children."""
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    stop_asking()
    raise KeyboardInterrupt
