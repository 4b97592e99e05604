"""Runs programs that are asked something: with a limit on their time and on what they may say."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import IO

from floatllm_build.limits import allows_threads, remember_refusal
from floatllm_build.process import handed_on
from floatllm_build.start import PIPE, Child, TooLateError, start

# Seconds that a killed program may take to die, and its last words to arrive.
_GRACE = 0.3
# Those that have not answered yet; and, once it holds something, no answer is wanted any more.
_asked: set[Child] = set()
_unwanted: list[bool] = []


def hear(argv: tuple[str, ...], timeout: float, env: Mapping[str, str], longest: int) -> tuple[int, str, str]:
    """Exit status and both outputs, each cut to `longest` bytes; never raises, but for an interrupt.

    127: it could not be started; 124: it took too long. A program that waits for a broken driver may not die
    even when killed: then it is left behind.
    """
    if _unwanted:
        return 127, "", "interrupted"
    try:
        child = start(argv, env=env, stdout=PIPE, stderr=PIPE, start_new_session=True, pass_fds=handed_on())
    except (OSError, ValueError) as error:
        return 127, "", remember_refusal(error)
    _asked.add(child)
    said: list[bytearray] = [bytearray(), bytearray()]
    readers: list[threading.Thread] = []
    end = time.monotonic() + timeout
    late = False
    try:
        readers, unread = _start_readers(child, said, longest)
        if _unwanted:
            _kill(child)
        _collect_here(unread, longest, end)
        child.wait(max(0.0, end - time.monotonic()))
    except TooLateError:
        late = True
        _kill(child)
        with contextlib.suppress(TooLateError):
            child.wait(_GRACE)
    except BaseException:
        _kill(child)
        raise
    finally:
        _asked.discard(child)
    for reader in readers:
        # What the program left running may hold the pipes open; what was said until now is enough.
        reader.join(_GRACE)
    if late:
        return 124, "", f"no answer within {timeout:.2g} s"
    out, err = (bytes(text).decode(errors="replace") for text in said)
    return child.returncode, out, err


def stop_asking() -> None:
    """Kills every program that has not answered, whichever thread waits for it, and starts no other.

    For an interrupt: each has a session of its own, which Ctrl-C does not reach. Takes no lock, not even an
    event's: the next signal may come while it is held.
    """
    _unwanted.append(True)
    for child in tuple(_asked):
        _kill(child)


_Unread = list[tuple[IO[bytes], bytearray]]


def _start_readers(
    child: Child, said: list[bytearray], longest: int
) -> tuple[list[threading.Thread], _Unread]:
    """A thread for each output; and the outputs for which no thread is to be had, as under a tight limit."""
    readers: list[threading.Thread] = []
    unread: _Unread = []
    for pipe, into in zip((child.stdout, child.stderr), said, strict=True):
        reader = threading.Thread(target=_collect, args=(pipe, into, longest), daemon=True)
        try:
            if allows_threads():
                reader.start()
                readers.append(reader)
                continue
        except RuntimeError as error:
            remember_refusal(error)
        if pipe:
            unread.append((pipe, into))
    return readers, unread


def _collect_here(unread: _Unread, longest: int, end: float) -> None:
    """Reads in this thread until both outputs end or it is `end`, by time.monotonic()."""
    if not unread or sys.platform == "win32":
        return  # a pipe of Windows cannot be waited for like this
    with selectors.DefaultSelector() as waiting:
        for pipe, into in unread:
            waiting.register(pipe, selectors.EVENT_READ, into)
        while waiting.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                piece = os.read(key.fd, 65536)
                if not piece:
                    waiting.unregister(key.fileobj)
                key.data.extend(piece[: max(0, longest - len(key.data))])
    for pipe, _ in unread:
        pipe.close()


def _collect(pipe: IO[bytes], into: bytearray, longest: int) -> None:
    with pipe, contextlib.suppress(OSError, ValueError):
        while piece := os.read(pipe.fileno(), 65536):
            into += piece[: max(0, longest - len(into))]


def _kill(child: Child) -> None:
    if sys.platform == "win32":
        child.kill()
    else:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
