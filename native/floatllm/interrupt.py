"""Ctrl-C while C code runs.

Python raises KeyboardInterrupt at the next bytecode, and in a callback from C that can be its very first: no
`try` has begun, so the exception is printed and lost. Here the signal only leaves a note; the pass reads it
and stops, and what the signal means is done when Python has control again.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Note:
    """Whether a signal came."""

    def __init__(self) -> None:
        self.came = False


@contextmanager
def noted() -> Iterator[Note]:
    """Notes SIGINT inside the block and hands it to its own handler behind it.

    Does nothing off the main thread, which alone gets signals, or where no Python handler is set.
    """
    note = Note()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield note
        return

    def leave_note(_number: int, _frame: object) -> None:
        note.came = True

    signal.signal(signal.SIGINT, leave_note)
    try:
        yield note
    finally:
        signal.signal(signal.SIGINT, handler)
        if note.came:
            handler(signal.SIGINT, None)
