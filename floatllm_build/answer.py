"""Runs programs that are asked something: with a limit on their time and on what they may say."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import IO

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
        return 127, "", getattr(error, "strerror", None) or str(error)
    _asked.add(child)
    said: list[bytearray] = [bytearray(), bytearray()]
    readers = [
        threading.Thread(target=_collect, args=(pipe, into, longest), daemon=True)
        for pipe, into in zip((child.stdout, child.stderr), said, strict=True)
    ]
    late = False
    try:
        for reader in readers:
            reader.start()
        if _unwanted:
            _kill(child)
        child.wait(timeout)
    except TooLateError:
        late = True
        _kill(child)
        with contextlib.suppress(TooLateError):
            child.wait(_GRACE)
    except RuntimeError as error:
        _kill(child)
        return 127, "", str(error)  # no thread is to be had
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
