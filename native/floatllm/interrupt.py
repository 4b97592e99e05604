"""Ctrl-C and SIGTERM while C code runs.

Python raises KeyboardInterrupt at the next bytecode, and in a callback from C that can be its very first: no
`try` has begun, so the exception is printed and lost. Here the signal only leaves a note; the pass reads it
and stops, and what the signal means is done when Python has control again.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# SIGTERM joins where it is to leave things in order; a host's own handler of it may mean something else.
_noted = {signal.SIGINT}


class Note:
    """Whether a signal came."""

    def __init__(self) -> None:
        self.came = False


@contextmanager
def noted() -> Iterator[Note]:
    """Notes SIGINT inside the block and leaves it to its own handler; in terminated_in_order() SIGTERM too.

    Does nothing off the main thread, which alone gets signals, or where no Python handler is set.
    """
    note = Note()
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: had for number in _noted if callable(had := signal.getsignal(number))}
    came: list[signal.Signals] = []

    def leave_note(number: int, _frame: object) -> None:
        note.came = True
        came.append(signal.Signals(number))

    for number in handlers:
        signal.signal(number, leave_note)
        if sys.platform != "win32":
            # What C waits for goes on: ggml takes an interrupted answer of an RPC server for a lost one.
            signal.siginterrupt(number, False)
    try:
        yield note
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(came):
            handlers[number](number, None)


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def terminated_in_order() -> Iterator[None]:
    """SIGTERM first leaves the block, so that what is open is closed, and then ends the process as ever.

    Does nothing off the main thread, or where somebody else handles the signal.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(_number: int, _frame: object) -> None:
        # A second one must not disturb what the first began.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    signal.signal(signal.SIGTERM, leave)
    _noted.add(signal.SIGTERM)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    finally:
        _noted.discard(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
