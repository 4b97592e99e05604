"""Standard streams as they may be: a terminal, which obeys what it is sent, or closed, full, or unread.

What cannot be told on stderr stops nothing. What cannot be written to stdout ends the command.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

from floatllm._early import INTERRUPTED, hand_over
from floatllm.errors import EngineError, FloatLLMError
from floatllm.render import harmless, printable

if TYPE_CHECKING:
    from collections.abc import Callable

READER_LEFT = 141
"""The exit code that a shell gives a program that SIGPIPE ended."""
_STDOUT, _STDERR = 1, 2


def write(text: str) -> None:
    """Writes to stdout at once: raw to a file or pipe, and so that a terminal obeys nothing in it.

    Raises OSError, which guarded() explains, if nothing can be written.
    """
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def say(text: str) -> None:
    """Writes a line to stderr, if it can be written there."""
    try:
        sys.stderr.write(harmless(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(_STDERR)


def guarded(work: Callable[[], int]) -> int:
    """Runs the work of a command, says its error, and returns its exit code.

    Afterwards nothing is held for streams that do not take it, or Python would complain when it exits.
    """
    _settle()
    try:
        hand_over()
        code = _run(work)
        with suppress(ValueError):  # closed by the work itself
            sys.stdout.flush()
    except FloatLLMError as error:
        say(printable(f"floatllm: {error}"))
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        code = READER_LEFT
    except OSError as error:
        place = f"{error.filename} cannot be used" if error.filename else "The output cannot be written"
        why = error.strerror or str(error)
        say(printable(f"floatllm: {place}: {why}. Free space or choose another place."))
        code = EngineError.exit_code
    _flush(_STDOUT, sys.stdout)
    _flush(_STDERR, sys.stderr)
    return code


def _flush(number: int, stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        _discard(number)


def _run(work: Callable[[], int]) -> int:
    try:
        return work()
    except SystemExit as leaving:
        # So argparse ends.
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)


class _Closed(io.TextIOBase):
    """A stdout that was closed before Python began, which then has none at all."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, "stdout is closed")


def _settle() -> None:
    """Fills the places of closed streams, or the next file that is opened gets what is meant for stderr."""
    # The system gives the lowest number that is free.
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    # Python has None instead, which typeshed does not tell.
    if cast("TextIO | None", sys.stdout) is None:
        sys.stdout = cast("TextIO", _Closed())
    if cast("TextIO | None", sys.stderr) is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (as long as the process)


def _discard(number: int) -> None:
    """Sends what is still held for a stream, and all that follows, nowhere."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
