"""Ctrl-C while a command of this package is loaded: nothing has begun yet, so it ends without a word.

The package comes before its commands: their own guard stands when most of the time has passed.
"""

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code that a shell gives a program that SIGINT ended."""


def hand_over() -> None:
    """From now on an interrupt is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command() -> bool:
    """`python -m floatllm.selftest`, or the console script."""
    words = sys.orig_argv
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1].partition(".")[0] == __package__
    return os.path.basename(sys.argv[0]) in {"floatllm", "floatllm.exe"}  # noqa: PTH119 (nothing else is loaded)


def _end(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)


# Whoever imports the package for other ends gets KeyboardInterrupt as ever.
if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
