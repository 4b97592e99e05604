"""The one door to the outside for everything that asks questions about this machine.

A probe takes a `System`. `LiveSystem` answers from the machine; `Recorder` writes down what it answered,
refusals included; `Replay` answers from such a record, so that a plan can be made for a machine that is
not here.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import platform
import re
import shlex
import struct
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from floatllm_build import disk
from floatllm_build.answer import hear
from floatllm_build.limits import limits_met
from floatllm_build.record import RECORD_KINDS, RECORD_VERSION, load_record
from floatllm_build.recording import renumbered, united
from floatllm_build.start import changed, which

_T = TypeVar("_T")
Variables = Mapping[str, str | None]
"""What is added to the environment of a child, and (None) what is taken from it."""

_LONGEST_TEXT = 1 << 20
_QUESTIONS = Path(__file__).resolve().parent / "host" / "ask"


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a command ended. rc is 127 where it could not be started and 124 where it took too long."""

    rc: int
    out: str
    err: str


class System(Protocol):
    def read(self, path: str, only: str = "") -> str:
        """The text of a file, or its distinct lines in which the pattern `only` is found.

        Raises OSError as the system says. A pattern keeps what nobody needs out of recorded hosts.
        """

    def opens(self, path: str) -> str | None:
        """How opening a file ends: empty if it opens, else the error's name (EACCES, ENOENT).

        For devices, which cannot be read, and for what only has to be there. None if a record does not say.
        """

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Variables | None = None
    ) -> Completed:
        """Runs a command without input, with `variables` changed in the environment; never raises."""

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        """Runs `host/ask/QUESTION.py SUBJECT` in a child, which answers with one line of JSON in `out`.

        For what may crash, hang or talk: drivers' libraries, and other Pythons (the question `target` is
        run by the Python that is its subject). Never raises; rc is the child's exit status, negative for
        a signal.
        """

    def getenv(self, name: str) -> str | None: ...

    def which(self, name: str) -> str | None: ...

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Sorted paths that match."""

    def native(self, question: str) -> Any:
        """Answers that only the running Python can give: see `_native`. JSON values."""


def _affinity() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _address_space_limit() -> int | None:
    try:
        import resource  # noqa: PLC0415  not on Windows
    except ImportError:
        return None
    if not hasattr(resource, "RLIMIT_AS"):  # OpenBSD
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _effective_user() -> int | None:
    return os.geteuid() if hasattr(os, "geteuid") else None


def _usr_flags() -> int | None:
    """How the file system of /usr is mounted, as statvfs says it: 1 is read-only."""
    try:
        return os.statvfs("/usr").f_flag
    except (AttributeError, OSError):
        return None


def _windows_memory() -> dict[str, int] | None:
    if sys.platform != "win32":
        return None
    names = ("length", "load", "total", "available", "commit_limit", "commit_room", "v", "va", "vx")

    class Status(ctypes.Structure):
        _fields_ = [(n, ctypes.c_uint32 if n in {"length", "load"} else ctypes.c_uint64) for n in names]

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return {n: getattr(status, n) for n in ("total", "available", "commit_limit", "commit_room")}


def _hwcaps() -> dict[str, int] | None:
    """AT_HWCAP and AT_HWCAP2: what the kernel lets programs use, whatever the CPU's name promises."""
    if not sys.platform.startswith(("linux", "android")):
        return None
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):
        return None
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    return {"hwcap": getauxval(16), "hwcap2": getauxval(26)}


def _platform() -> str:
    try:
        return sysconfig.get_platform()
    except KeyError:
        # Some Pythons for Android do not know a 32-bit userland on a 64-bit kernel.
        return f"{sys.platform}-{platform.machine()}"


def _identity() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "system_version": platform.mac_ver()[0] or platform.win32_ver()[1],
        "sys_platform": sys.platform,
        "release": platform.release(),
        "machine": platform.machine(),
        "bits": struct.calcsize("P") * 8,
        "libc": " ".join(platform.libc_ver()).strip(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "version": platform.python_version(),
        "platform": _platform(),
        "byteorder": sys.byteorder,
    }


def _native(question: str) -> Any:
    answers = {
        "identity": _identity,
        "cpu_count": os.cpu_count,
        "affinity": _affinity,
        "hwcaps": _hwcaps,
        "rlimit_as": _address_space_limit,
        "euid": _effective_user,
        "usr_flags": _usr_flags,
        "disk": disk.look,
        "limits_met": limits_met,
        "windows_memory": _windows_memory,
    }
    return answers[question]()


class LiveSystem:
    """The machine that we run on."""

    def read(self, path: str, only: str = "") -> str:
        with Path(path).open("rb") as file:
            text = file.read(_LONGEST_TEXT).decode(errors="replace")
        return keep_lines(text, only)

    def opens(self, path: str) -> str | None:
        try:
            # Without waiting: some devices do, until somebody else opens them.
            os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "EIO")
        return ""

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Variables | None = None
    ) -> Completed:
        env = changed({**os.environ, "LC_ALL": "C"}, variables)
        rc, out, err = hear(argv, timeout, env, _LONGEST_TEXT)
        return Completed(rc=rc, out=out, err=err)

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        script = str(_QUESTIONS / f"{question}.py")
        if question == "target":
            return self.run((subject, "-I", script), timeout=timeout)
        # Without site: the standard library is all that a question needs, and it starts in half the time.
        return self.run((sys.executable, "-I", "-S", script, subject), timeout=timeout)

    def getenv(self, name: str) -> str | None:
        return os.environ.get(name)

    def which(self, name: str) -> str | None:
        return which(name)

    def glob(self, pattern: str) -> tuple[str, ...]:
        return tuple(sorted(glob.glob(pattern)))  # noqa: PTH207  patterns are absolute

    def native(self, question: str) -> Any:
        return _native(question)


def keep_lines(text: str, only: str) -> str:
    """`text`, or with a pattern its distinct lines in which that is found, in their order."""
    if not only:
        return text
    return "".join(dict.fromkeys(line for line in text.splitlines(keepends=True) if re.search(only, line)))


def _command_line(argv: tuple[str, ...], variables: Variables | None) -> str:
    """As a shell would take it: `NAME=value program argument`. A variable that goes is left empty."""
    pairs = sorted((variables or {}).items())
    return shlex.join((*(f"{name}={value or ''}" for name, value in pairs), *argv))


def _question(question: str, subject: str) -> str:
    return f"{question} {subject}".rstrip()


@dataclass
class Recorder:
    """Passes questions on and keeps the answers; `text()` is what `Replay` reads.

    An answer once given stands: who asks again gets the same, as from the record.
    """

    inner: System
    _answers: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    """(kind, key, pattern) -> answer; for a file that was refused, the error."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _once(self, kind: str, key: str, ask: Callable[[], _T], only: str = "") -> _T:
        place = (kind, key, only)
        if place not in self._answers:
            answer = ask()  # not under the lock, so that probes wait for drivers side by side
            with self._lock:
                self._answers.setdefault(place, answer)
        kept: _T = self._answers[place]
        return kept

    def read(self, path: str, only: str = "") -> str:
        answer = self._once("files", path, lambda: self._read(path, only), only)
        if isinstance(answer, OSError):
            raise OSError(answer.errno, answer.strerror, path)
        return answer

    def _read(self, path: str, only: str) -> str | OSError:
        try:
            return self.inner.read(path, only)
        except OSError as error:
            return error

    def opens(self, path: str) -> str | None:
        answer = self._once("files", path, lambda: self._opened(path))
        return errno.errorcode.get(answer.errno or 0, "EIO") if isinstance(answer, OSError) else answer

    def _opened(self, path: str) -> str | OSError | None:
        said = self.inner.opens(path)
        return OSError(getattr(errno, said, errno.EIO), said) if said else said

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Variables | None = None
    ) -> Completed:
        key = _command_line(argv, variables)
        return self._once("commands", key, lambda: self.inner.run(argv, timeout=timeout, variables=variables))

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        key = _question(question, subject)
        return self._once("asked", key, lambda: self.inner.ask(question, subject, timeout=timeout))

    def getenv(self, name: str) -> str | None:
        return self._once("environ", name, lambda: self.inner.getenv(name))

    def which(self, name: str) -> str | None:
        return self._once("which", name, lambda: self.inner.which(name))

    def glob(self, pattern: str) -> tuple[str, ...]:
        return self._once("globs", pattern, lambda: self.inner.glob(pattern))

    def native(self, question: str) -> Any:
        return self._once("native", question, lambda: self.inner.native(question))

    def text(self) -> str:
        """The record. The same answers give the same bytes, in whatever order they came."""
        with self._lock:
            answers = sorted(self._answers.items())
        record: dict[str, Any] = {"schema_version": RECORD_VERSION} | {kind: {} for kind in RECORD_KINDS}
        texts: dict[str, dict[str, str]] = {}
        for (kind, key, only), answer in answers:
            if isinstance(answer, OSError):
                record[kind].setdefault(key, {"errno": errno.errorcode.get(answer.errno or 0, "EIO")})
            elif kind == "files" and answer is None:
                continue  # it was never asked in the record that this one is made from
            elif kind == "files":
                parts = texts.setdefault(key, {})
                parts[only] = answer
                # The pattern "" asks for the whole file, and sorts first.
                record[kind][key] = {"text": parts[""] if "" in parts else united(parts.values())}
            else:
                record[kind][key] = vars(answer) if isinstance(answer, Completed) else answer
        return json.dumps(renumbered(record), indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Replay:
    """Answers from a record. What was never asked then is not there now."""

    record: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Raises UsageFaultError where the file is not a record of this version."""
        return cls(load_record(path))

    def _answer(self, kind: str, key: str) -> Any:
        answers = self.record.get(kind)
        return answers.get(key) if isinstance(answers, dict) else None

    def read(self, path: str, only: str = "") -> str:
        entry = self._answer("files", path)
        if isinstance(entry, dict) and isinstance(entry.get("text"), str):
            return keep_lines(str(entry["text"]), only)
        name = entry.get("errno") if isinstance(entry, dict) else "ENOENT"
        number = getattr(errno, str(name), errno.ENOENT)
        raise OSError(number, os.strerror(number), path)

    def opens(self, path: str) -> str | None:
        entry = self._answer("files", path)
        if isinstance(entry, dict):
            name = str(entry.get("errno", ""))
            return name if not name or hasattr(errno, name) else "EIO"
        # A record that was made by hand may say it by a pattern without wildcards.
        paths = self._answer("globs", path)
        return None if paths is None else "" if paths else "ENOENT"

    def run(
        self,
        argv: tuple[str, ...],
        *,
        timeout: float = 5.0,  # noqa: ARG002
        variables: Variables | None = None,
    ) -> Completed:
        return self._completed("commands", _command_line(argv, variables))

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:  # noqa: ARG002
        return self._completed("asked", _question(question, subject))

    def _completed(self, kind: str, key: str) -> Completed:
        entry = self._answer(kind, key)
        if not isinstance(entry, dict):
            return Completed(rc=127, out="", err="not in the record")
        return Completed(rc=int(entry["rc"]), out=str(entry["out"]), err=str(entry["err"]))

    def getenv(self, name: str) -> str | None:
        answer = self._answer("environ", name)
        return answer if isinstance(answer, str) else None

    def which(self, name: str) -> str | None:
        answer = self._answer("which", name)
        return answer if isinstance(answer, str) else None

    def glob(self, pattern: str) -> tuple[str, ...]:
        return tuple(str(path) for path in self._answer("globs", pattern) or ())

    def native(self, question: str) -> Any:
        return self._answer("native", question)
