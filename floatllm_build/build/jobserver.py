"""A GNU make jobserver whose number of tokens can change while the build runs.

Ninja is a client of it from 1.13 on, where no -j is given: it takes a token from the pipe for each job but
the first, and puts it back when the job ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOKEN = b"+"


@contextlib.contextmanager
def jobserver() -> Iterator[Jobserver | None]:
    """Opens one, in a folder of its own; at first one job is allowed. None where there cannot be one.

    Windows has no named pipes, some file systems take none, and MAKEFLAGS cannot hold a path with a space.
    """
    folder = Path(tempfile.mkdtemp(prefix="floatllm-jobs-"))
    pipe = folder / "tokens"
    try:
        if not _make(pipe):
            yield None
            return
        # Open for both, so that it neither waits for a client nor closes with the last one.
        handle = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield Jobserver(pipe, handle)
        finally:
            os.close(handle)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(pipe: Path) -> bool:
    if not hasattr(os, "mkfifo") or len(str(pipe).split()) != 1:
        return False
    try:
        os.mkfifo(pipe, 0o600)
    except OSError:
        return False
    return True


@dataclass
class Jobserver:
    """A pipe with a name."""

    pipe: Path
    _handle: int
    _tokens: int = 0
    _wanted: int = 0

    @property
    def makeflags(self) -> str:
        """What a client's MAKEFLAGS must hold."""
        return f"--jobserver-auth=fifo:{self.pipe}"

    def allow(self, jobs: int) -> None:
        """Lets `jobs` (at least 1) run at once. Fewer than now: as the running ones end, see `wait`."""
        self._wanted = max(jobs, 1) - 1
        with contextlib.suppress(BlockingIOError):
            while self._tokens < self._wanted:
                self._tokens += os.write(self._handle, _TOKEN)
        self._take_back()

    def wait(self, over: threading.Event, seconds: float) -> bool:
        """Waits for `over`, `seconds` at most, and takes back what is too many; returns whether it is over.

        A client puts a token back and takes it again in less than a millisecond: whoever wants it has to wait
        for just that.
        """
        end = time.monotonic() + seconds
        while self._tokens > self._wanted and not over.is_set() and (left := end - time.monotonic()) > 0:
            if select.select([self._handle], [], [], left)[0]:
                self._take_back()
        return over.wait(max(0.0, end - time.monotonic()))

    def _take_back(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._tokens > self._wanted and os.read(self._handle, 1):
                self._tokens -= 1
