"""Limits that the system sets for this process and its children, and which of them a refusal comes from."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
from pathlib import Path

if sys.platform != "win32":
    # Not later: where files are few, no module can be loaded any more when it is wanted.
    import resource

# Address space of a thread's stack, as threads usually get it.
_STACK = 8 << 20
# Each thread takes a stack and, in glibc, 64 MiB for what it allocates: address space, if no memory.
_ENOUGH_FOR_THREADS = 1 << 30
# Name -> value, of those that were met while this machine was asked.
_met: dict[str, int] = {}


def remember_refusal(error: BaseException) -> str:
    """The words of an error, with the limit that it comes from, if it comes from one.

    For OSError of a child that could not be started, and RuntimeError of a thread.
    """
    words = getattr(error, "strerror", None) or str(error)
    found = _which(error)
    if found is None:
        return words
    name, value = found
    _met[name] = value
    return f"{words} ({name} is {value})"


def allows_threads() -> bool:
    """Whether threads are worth their address space; without them all is asked one after the other."""
    limit = _value("RLIMIT_AS")
    return limit is None or limit >= _ENOUGH_FOR_THREADS


def limits_met() -> list[dict[str, str | int]]:
    return [{"name": name, "value": value} for name, value in sorted(_met.items())]


def _which(error: BaseException) -> tuple[str, int] | None:
    number = errno.EAGAIN if isinstance(error, RuntimeError) else getattr(error, "errno", 0)
    names = {
        errno.EMFILE: ("RLIMIT_NOFILE",),
        errno.ENOMEM: ("RLIMIT_AS", "RLIMIT_DATA"),
        # Of a process or a thread; for want of space for its stack too.
        errno.EAGAIN: ("pids.max", "RLIMIT_AS", "RLIMIT_NPROC"),
    }.get(number or 0, ())
    values = {name: value for name in names if (value := _value(name)) is not None}
    return next(((name, value) for name, value in values.items() if _is_full(name, value)), None)


def _value(name: str) -> int | None:
    """The limit's value, None if there is none."""
    if name == "pids.max":
        return min((most for most, _ in _pids()), default=None)
    if sys.platform == "win32":
        return None
    # OpenBSD has no RLIMIT_AS.
    number = getattr(resource, name, None)
    if number is None:
        return None
    soft, _ = resource.getrlimit(number)
    return None if soft == resource.RLIM_INFINITY else soft


def _is_full(name: str, value: int) -> bool:
    if name == "pids.max":
        return any(now >= most for most, now in _pids())
    if name == "RLIMIT_AS":
        return _address_space() + 2 * _STACK >= value or _address_space() == 0
    return True


def _address_space() -> int:
    """Bytes that this process has mapped, 0 unknown."""
    text = _read("/proc/self/status")
    found = re.search(r"^VmSize:\s+([0-9]{1,15}) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _pids() -> list[tuple[int, int]]:
    """(most, now) of the control groups above us that count processes, as far as they can be seen."""
    groups = re.findall(r"^[0-9]+:(?:[^:]*\bpids\b[^:]*)?:(/.*)$", _read("/proc/self/cgroup"), re.MULTILINE)
    folders = [base + group for base in ("/sys/fs/cgroup", "/sys/fs/cgroup/pids") for group in (*groups, "")]
    pairs = [[_read(f"{folder}/pids.{name}").strip() for name in ("max", "current")] for folder in folders]
    return [(int(most), int(now)) for most, now in pairs if most.isdecimal() and now.isdecimal()]


def _read(path: str) -> str:
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text(encoding="utf-8")
    return ""
