"""Runs the long children: in a process group of their own, read as they speak, and never left behind."""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from floatllm_build.start import NEW_GROUP, NOWHERE, TO_OUTPUT, Child, TooLateError, start

if sys.platform != "win32":
    import fcntl
    import struct
    import termios

# Ninja ends its jobs itself when it is asked to, in a few milliseconds.
_GRACE = 0.6
# What every child gets as well: see `inherited`.
_inherited: set[int] = set()


@contextlib.contextmanager
def inherited(handle: int) -> Iterator[None]:
    """While the block runs, children get this file handle too: a lock on it ends with the last of them.

    A tool that is killed cannot stop its children, and nobody else may work where they still do.
    """
    _inherited.add(handle)
    try:
        yield
    finally:
        _inherited.discard(handle)


def run_child(
    argv: tuple[str, ...],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    on_text: Callable[[str], None],
    terminal: bool = False,
    timeout: float | None = None,
    on_start: Callable[[int], None] = lambda _pid: None,
) -> int:
    """Runs argv until it ends and returns its exit status (negative: the signal, as subprocess has it).

    It runs in `cwd`, or in an empty folder. Both of its outputs come to `on_text` in pieces as they arrive;
    `on_start` gets its process id. With `terminal` the outputs pass through a pseudo-terminal, if the system
    has one: ninja names a unit when it starts only there. If we are killed, that terminal is gone, and the
    hang-up ends ninja and its jobs; without one, ninja ends when it next writes.
    Whatever ends this call, an interrupt included, ends the whole session of the child; so does a signal
    that kills the child.

    Raises OSError where argv cannot be started and TooLateError after `timeout` seconds.
    """
    pair = _new_terminal() if terminal else None
    ours, theirs = pair or os.pipe()
    try:
        child = _start(argv, cwd, env, theirs, terminal=pair is not None)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        on_start(child.pid)
        _pump(ours, on_text, child, timeout)
        status = child.wait()
        if status < 0:
            # It was killed and could not stop its own: nobody else may write what they are writing.
            _kill_session(child.pid)
    except BaseException:
        _end(child)
        raise
    finally:
        os.close(ours)
    return status


def _new_terminal() -> tuple[int, int] | None:
    """Both ends of a pseudo-terminal; None if the system has none, as in a chroot without /dev/pts."""
    if sys.platform == "win32":
        return None
    import pty  # noqa: PLC0415  POSIX only
    import tty  # noqa: PLC0415

    try:
        ours, theirs = pty.openpty()
    except OSError:
        return None
    tty.setraw(theirs)
    _set_width(theirs)
    return ours, theirs


def run_to_its_end(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[int, str]:
    """Runs argv without a time limit, whatever happens to us; returns its exit status and all that it said.

    For a child that must not be stopped half-way. It has a session of its own, so that neither Ctrl-C nor a
    closed terminal reaches it, and it writes into a file, so that it can outlive us. An interrupt that
    comes meanwhile is raised as KeyboardInterrupt once it has ended.

    Raises OSError where argv cannot be started.
    """
    with tempfile.TemporaryFile() as said:
        with _interrupts_held():
            child = _start(argv, None, env, said.fileno())
            status = child.wait()
        said.seek(0)
        return status, said.read().decode(errors="replace")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Keeps Ctrl-C, SIGTERM and a hang-up back while the block runs; then raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    held: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What is ignored, as nohup has it with a hang-up, stays ignored.
    minded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda came, _: held.append(came)) for number in minded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if held:
        raise KeyboardInterrupt


def _start(
    argv: tuple[str, ...], cwd: Path | None, env: Mapping[str, str], output: int, *, terminal: bool = False
) -> Child:
    windows = sys.platform == "win32"
    return start(
        argv,
        cwd=cwd,
        env=env,
        stdout=output,
        stderr=TO_OUTPUT,
        start_new_session=not windows,
        creationflags=NEW_GROUP,
        pass_fds=handed_on(),
        # It takes no lock, so that it may run in a child of a process with threads.
        preexec_fn=_take_terminal if terminal and not windows else None,
    )


def _take_terminal() -> None:
    """Makes the output the terminal of the new session, so that its end is a hang-up for the leader."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)


def handed_on() -> tuple[int, ...]:
    """Handles that every child gets, see `inherited`; Windows has no such thing."""
    return () if sys.platform == "win32" else tuple(_inherited)


def _pump(source: int, on_text: Callable[[str], None], child: Child, timeout: float | None) -> None:
    late = threading.Event()

    def stop() -> None:
        late.set()
        _end(child)

    timer = threading.Timer(timeout, stop) if timeout else None
    if timer:
        timer.daemon = True
        timer.start()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    try:
        while True:
            try:
                piece = os.read(source, 65536)
            except OSError:
                break  # Linux says EIO when the last writer of a pseudo-terminal is gone
            if not piece:
                break
            on_text(decoder.decode(piece))
    finally:
        if timer:
            timer.cancel()
    if late.is_set():
        raise TooLateError(child.args, timeout or 0.0)


def _end(child: Child) -> None:
    """Asks the whole group to stop, and makes it stop."""
    if sys.platform == "win32":
        ask_to_end(child.pid)
        child.wait()
        return
    ask_to_end(child.pid)
    with contextlib.suppress(TooLateError):
        child.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    _kill_session(child.pid)
    with contextlib.suppress(TooLateError):
        child.wait(_GRACE)


def ask_to_end(pid: int) -> None:
    """Asks a child's whole group to stop; on Windows, where nothing can be asked, it is made to."""
    if sys.platform == "win32":
        words = ("taskkill", "/F", "/T", "/PID", str(pid))
        start(words, env=os.environ, stdout=NOWHERE, stderr=NOWHERE).wait()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGTERM)


def _kill_session(leader: int) -> None:
    """Kills all that is left of the session of a process that was started with one.

    Ninja puts each of its jobs into a process group of its own: a signal to ninja's group does not reach
    them. Where there is no /proc, ninja has to have ended them itself, as it does unless it was killed.
    """
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (name, which may hold anything) state parent group session ...
            words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(words[3]) == leader and words[0] != "Z":
                os.kill(int(folder.name), signal.SIGKILL)


def _set_width(terminal: int) -> None:
    """Ninja cuts its lines to the width of the terminal; give it more than any line has."""
    if sys.platform != "win32":
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
