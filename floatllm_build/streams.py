"""Standard streams that may be closed, full, or without a reader.

What cannot be told on stderr stops nothing. What stdout does not take is remembered for the exit status.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from floatllm_build.plain import printable

if TYPE_CHECKING:
    from typing_extensions import Buffer

READER_LEFT = 141
"""The exit status that a shell gives a program that SIGPIPE ended."""
_STDOUT, _STDERR = 1, 2


class _Stream(io.FileIO):
    """A standard stream that remembers its first failure; one that is `quiet` lets the bytes go instead."""

    def __init__(self, number: int, *, quiet: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self.quiet = quiet
        self.failure: OSError | None = None

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            if not self.quiet:
                raise
            return memoryview(data).nbytes


class Streams:
    """stdout and stderr of a command, from its start to its end."""

    def __init__(self) -> None:
        """Takes the place of Python's own streams. What somebody else has put there stays."""
        _fill()
        self._out = self._err = None
        if sys.stdout is sys.__stdout__ and not _is_windows_console(sys.stdout):
            self._out = _Stream(_STDOUT, quiet=False)
            sys.stdout = _text(self._out, sys.stdout)
        if sys.stderr is sys.__stderr__ and not _is_windows_console(sys.stderr):
            self._err = _Stream(_STDERR, quiet=True)
            sys.stderr = _text(self._err, sys.stderr)

    def close(self) -> OSError | None:
        """Writes what is held; returns why stdout did not take all of it. Nothing is written afterwards."""
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        if self._out is None:
            return None
        # Or Python would complain when it exits.
        self._out.quiet = True
        return self._out.failure


def write_paths(paths: Iterable[str]) -> None:
    """A line for each on stdout: as it is for a program, and nothing that a terminal would obey on one."""
    shown = map(printable, paths) if sys.stdout.isatty() else paths
    sys.stdout.write("".join(f"{path}\n" for path in shown))


def reader_left(failure: OSError) -> bool:
    return failure.errno == errno.EPIPE


def _text(raw: _Stream, before: TextIO | None) -> TextIO:
    encoding, errors = (before.encoding, before.errors) if before else ("utf-8", "backslashreplace")
    if errors == "strict":
        # Names of files may be bytes that are no text: they come out as they are, or else as escapes.
        errors = "surrogateescape" if codecs.lookup(encoding).name == "utf-8" else "backslashreplace"
    by_line = raw.quiet or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=by_line)


def _fill() -> None:
    """Fills the places of closed streams, or the next file that is opened gets what is meant for stderr."""
    # The system gives the lowest number that is free. What can only be read fails as a closed stdout does.
    while (number := os.open(os.devnull, os.O_RDONLY)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)


def _is_windows_console(stream: TextIO | None) -> bool:
    # Python writes to it in a way of its own. A closed stream is None.
    return sys.platform == "win32" and stream is not None and stream.isatty()
