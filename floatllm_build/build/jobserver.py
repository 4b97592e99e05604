"""A GNU make jobserver whose number of tokens can change while the build runs.

Ninja is a client of it from 1.13 on, where no -j is given: it takes a token from the pipe for each job but
the first, and puts it back when the job ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
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
        handle = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        try:
            server = Jobserver(pipe, handle)
            try:
                yield server
            finally:
                server.close()
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


class Jobserver:
    """A pipe with a name.

    A client puts a token back and takes it again in less than a millisecond. So a thread of our own waits in
    the read itself for those that are too many: the kernel hands one over without Python having a part in it.
    """

    def __init__(self, pipe: Path, handle: int) -> None:
        self.pipe = pipe
        self._handle = handle
        self._tokens = self._wanted = 0
        self._over = False
        self._changed = threading.Condition()
        self._taker = threading.Thread(target=self._take_back, daemon=True)
        self._taker.start()

    @property
    def makeflags(self) -> str:
        """What a client's MAKEFLAGS must hold."""
        return f"--jobserver-auth=fifo:{self.pipe}"

    def allow(self, jobs: int) -> None:
        """Lets `jobs` (at least 1) run at once; fewer than now, as the running ones end."""
        with self._changed:
            self._wanted = max(jobs, 1) - 1
            self._give()
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread."""
        with self._changed:
            self._over = True
            os.write(self._handle, _TOKEN)
            self._changed.notify()
        self._taker.join()

    def _give(self) -> None:
        while self._tokens < self._wanted:
            self._tokens += os.write(self._handle, _TOKEN)

    def _take_back(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._tokens > self._wanted)
                if self._over:
                    return
            taken = len(os.read(self._handle, 1))
            with self._changed:
                self._tokens -= taken
                # It may be wanted again by now.
                self._give()
