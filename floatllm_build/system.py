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
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from floatllm_build.errors import UsageFaultError
from floatllm_build.record import RECORD_VERSION, find_fault

_LONGEST_TEXT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a command ended. rc is 127 where it could not be started and 124 where it took too long."""

    rc: int
    out: str
    err: str


class System(Protocol):
    def read(self, path: str) -> str:
        """The text of a file; raises OSError as the system says."""

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        """Runs a command without input, with `variables` added to the environment; never raises."""

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
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


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


def _identity() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "sys_platform": sys.platform,
        "release": platform.release(),
        "machine": platform.machine(),
        "bits": struct.calcsize("P") * 8,
        "libc": " ".join(platform.libc_ver()).strip(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "version": platform.python_version(),
        "platform": sysconfig.get_platform(),
    }


def _native(question: str) -> Any:
    answers = {
        "identity": _identity,
        "cpu_count": os.cpu_count,
        "affinity": _affinity,
        "rlimit_as": _address_space_limit,
        "windows_memory": _windows_memory,
    }
    return answers[question]()


class LiveSystem:
    """The machine that we run on."""

    def read(self, path: str) -> str:
        with Path(path).open("rb") as file:
            return file.read(_LONGEST_TEXT).decode(errors="replace")

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        env = {**os.environ, "LC_ALL": "C", **(variables or {})}
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=env, check=False
            )
        except subprocess.TimeoutExpired:
            return Completed(rc=124, out="", err=f"no answer within {timeout:g} s")
        except OSError as error:
            return Completed(rc=127, out="", err=error.strerror or str(error))
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Completed(rc=done.returncode, out=out, err=err)

    def getenv(self, name: str) -> str | None:
        return os.environ.get(name)

    def which(self, name: str) -> str | None:
        return shutil.which(name)

    def glob(self, pattern: str) -> tuple[str, ...]:
        return tuple(sorted(glob.glob(pattern)))  # noqa: PTH207  patterns are absolute

    def native(self, question: str) -> Any:
        return _native(question)


@dataclass
class Recorder:
    """Passes questions on and keeps the answers; `text()` is what `Replay` reads."""

    inner: System
    record: dict[str, Any] = field(
        default_factory=lambda: (
            {"schema_version": RECORD_VERSION}
            | {kind: {} for kind in ("files", "commands", "environ", "which", "globs", "native")}
        )
    )

    def read(self, path: str) -> str:
        try:
            text = self.inner.read(path)
        except OSError as error:
            self.record["files"][path] = {"errno": errno.errorcode.get(error.errno or 0, "EIO")}
            raise
        self.record["files"][path] = {"text": text}
        return text

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        done = self.inner.run(argv, timeout=timeout, variables=variables)
        self.record["commands"][shlex.join(argv)] = {"rc": done.rc, "out": done.out, "err": done.err}
        return done

    def getenv(self, name: str) -> str | None:
        answer = self.inner.getenv(name)
        self.record["environ"][name] = answer
        return answer

    def which(self, name: str) -> str | None:
        path = self.inner.which(name)
        self.record["which"][name] = path
        return path

    def glob(self, pattern: str) -> tuple[str, ...]:
        paths = self.inner.glob(pattern)
        self.record["globs"][pattern] = list(paths)
        return paths

    def native(self, question: str) -> Any:
        answer = self.inner.native(question)
        self.record["native"][question] = answer
        return answer

    def text(self) -> str:
        return json.dumps(self.record, indent=1, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Replay:
    """Answers from a record. What was never asked then is not there now."""

    record: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Raises UsageFaultError where the file is not a record of this version."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageFaultError(
                f"{path} is no recorded host: {error}. Make one with `detect --save`."
            ) from error
        version = record.get("schema_version") if isinstance(record, dict) else None
        if version != RECORD_VERSION:
            raise UsageFaultError(
                f"{path} has schema version {version}; this floatllm-build reads {RECORD_VERSION}. "
                "Record the host again with a matching version."
            )
        fault = find_fault(record)
        if fault:
            raise UsageFaultError(
                f"{path} is a damaged recording: {fault}. Record the host again with `detect --save`."
            )
        return cls(record)

    def _answer(self, kind: str, key: str) -> Any:
        answers = self.record.get(kind)
        return answers.get(key) if isinstance(answers, dict) else None

    def read(self, path: str) -> str:
        entry = self._answer("files", path)
        if isinstance(entry, dict) and isinstance(entry.get("text"), str):
            return str(entry["text"])
        name = entry.get("errno") if isinstance(entry, dict) else "ENOENT"
        number = getattr(errno, str(name), errno.ENOENT)
        raise OSError(number, os.strerror(number), path)

    def run(
        self,
        argv: tuple[str, ...],
        *,
        timeout: float = 5.0,  # noqa: ARG002
        variables: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> Completed:
        entry = self._answer("commands", shlex.join(argv))
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
