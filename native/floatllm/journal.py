"""The results of a batch on disk: finished rows in a sidecar until all are there, then the output, whole.

A row is one line, appended the moment it is finished. A kill may tear the last line; it is cut off when the
batch goes on, and its row is computed again.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import sys
import time
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from floatllm import foreign_json, locks
from floatllm.atomic import AtomicFile, refusal
from floatllm.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

# A power cut may cost what was finished this long ago; a kill costs nothing that was finished.
_SYNC_SECONDS = 5.0
SCHEMA_VERSION = 1
_START = b'{"schema_version"'
# Bytes. A header takes a few hundred; a row holds a context's tokens at most, and what the user gave as id.
_LONGEST_HEADER = 1 << 13
_LONGEST_ROW = 1 << 26
# What a header may hold, and the type of it; from 2**31 on no number means anything to the engine.
_TYPES = {
    **dict.fromkeys(("model", "input", "kv", "device"), str),
    **dict.fromkeys(("tokens", "ctx", "threads", "width", "outputs"), int),
}


def sidecar(output: str) -> Path:
    """Where the progress of a batch towards `output` is kept."""
    return Path(output + ".progress")


def check_place(output: str) -> None:
    """Raises UsageError where no results can be at `output` and EngineError where none can be written, so
    that nobody works in vain.
    """
    folder = Path(output).parent
    if not folder.is_dir():
        msg = f"{output} cannot be written: there is no folder {folder}. Make it first."
        raise UsageError(msg)
    if Path(output).is_dir():
        msg = f"{output!r} is a folder: name a file for the results."
        raise UsageError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"{output} cannot be written: {folder} takes no new files. Name one that you may write to."
        raise EngineError(msg)


def recorded(output: str) -> dict[str, Any] | None:
    """What an unfinished batch towards `output` was begun with, or None. Raises as Journal does."""
    try:
        handle = _open(sidecar(output))
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        return _header(file.readline(_LONGEST_HEADER), sidecar(output))


class Journal:
    """The sidecar of `output`, open for one batch."""

    def __init__(self, output: str, begun: Mapping[str, Any], rows: int) -> None:
        """Goes on with the sidecar where there is one, else makes it. `begun` is what decides the results.

        Raises UsageError where the output is there already, where the sidecar was begun with something
        else, is somebody else's or no sidecar, or where another process writes it.
        """
        self._output, self._path = output, sidecar(output)
        self._places = array("q", [-1]) * rows
        self.done = 0
        self._synced = time.monotonic()
        try:
            self._file = _open(self._path)
        except FileNotFoundError:
            if os.path.lexists(output):
                msg = f"{output} is there already: remove it, or write to another file."
                raise UsageError(msg) from None
            self._file = _make(self._path)
        try:
            self._lock()
            self._read(begun)
            self._check_output(rows)
            _sync_folder(self._path)
        except BaseException:
            os.close(self._file)
            raise

    def __contains__(self, row: int) -> bool:
        return self._places[row] >= 0

    def add(self, row: int, result: Mapping[str, Any]) -> None:
        """Keeps the result of a row."""
        self._places[row] = self._append({"row": row, "result": result})
        self.done += 1
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Returns when what was added is on the disk."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Keeps the sidecar for a batch that goes on. Not to be called behind finish()."""
        try:
            self.sync()
        finally:
            os.close(self._file)

    def finish(self) -> None:
        """Writes the output, in the order of the rows, and removes the sidecar. All rows must be there."""
        out = AtomicFile(self._output, follow=False)
        # The lock stays until the sidecar is gone.
        with os.fdopen(self._file, "rb") as file:
            try:
                for place in self._places:
                    file.seek(place)
                    out.write(_line(foreign_json.parse(file.readline())["result"]))
            except BaseException:
                out.drop()
                raise
            out.keep(sync=True)
            _sync_folder(self._path)
            # Windows removes no open file.
            if sys.platform != "win32":
                self._path.unlink(missing_ok=True)
        if sys.platform == "win32":
            self._path.unlink(missing_ok=True)

    def _check_output(self, rows: int) -> None:
        # A kill between writing the output and removing the sidecar leaves both, and nothing to compute.
        if self.done < rows and os.path.lexists(self._output):
            msg = (
                f"{self._output} is there, and so is {self._path} of an unfinished batch: remove one of them."
            )
            raise UsageError(msg)

    def _lock(self) -> None:
        if not locks.take(self._file):
            msg = f"Another process is at work on {self._output}: let it finish, or write to another file."
            raise UsageError(msg)

    def _read(self, begun: Mapping[str, Any]) -> None:
        end = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            header = _header(file.readline(_LONGEST_HEADER), self._path)
            if header is not None:
                self._check(header, begun)
                end = file.tell()
                while line := file.readline(_LONGEST_ROW):
                    row = self._row(line)
                    if row is None:
                        break
                    self.done += self._places[row] < 0
                    self._places[row] = end
                    end += len(line)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        if end == 0:
            self._append({"schema_version": SCHEMA_VERSION, **begun})
            self.sync()

    def _row(self, line: bytes) -> int | None:
        """The row that a line holds the result of; None where the line is torn."""
        if len(line) == _LONGEST_ROW:
            _refuse(self._path)
        try:
            found = foreign_json.parse(line) if line.endswith(b"\n") else None
        except ValueError:
            return None
        if not isinstance(found, dict) or not isinstance(found.get("result"), dict):
            return None
        row = found.get("row")
        return row if _whole(row) and 0 <= row < len(self._places) else None

    def _check(self, header: Mapping[str, Any], begun: Mapping[str, Any]) -> None:
        for name, now in begun.items():
            before = header.get(name, "not kept")
            if before != now:
                msg = (
                    f"{self._path} was begun with another {name} ({before}, now {now}), which would change "
                    f"what is still to come: run the command it was begun with, where it was begun, or "
                    f"remove it to begin again."
                )
                raise UsageError(msg)

    def _append(self, document: Mapping[str, Any]) -> int:
        """Adds a line and returns where it begins."""
        begin = os.lseek(self._file, 0, os.SEEK_CUR)
        line = memoryview(_line(document))
        while line:
            line = line[os.write(self._file, line) :]
        return begin


def _line(document: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair, in an id that the user gave, can be written as an escape alone.
        return json.dumps(document).encode() + b"\n"


def _header(line: bytes, path: Path) -> dict[str, Any] | None:
    """None where a kill left it half-written, so that nothing follows either."""
    if len(line) < _LONGEST_HEADER and not line.endswith(b"\n"):
        shorter = min(len(line), len(_START))
        if line[:shorter] == _START[:shorter]:
            return None
    try:
        header = foreign_json.parse(line)
    except ValueError:
        _refuse(path)
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        _refuse(path)
    for name, kind in _TYPES.items():
        value = header.get(name)
        right = _whole(value) and abs(value) < 2**31 if kind is int else isinstance(value, str)
        if name in header and not right:
            _refuse(path)
    return header


def _whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse(path: Path) -> NoReturn:
    msg = f"{path} is not the progress of a batch by this version: move it away."
    raise UsageError(msg)


_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def _open(path: Path) -> int:
    """A sidecar that this user left. Raises FileNotFoundError, and UsageError for whatever else is there.

    In a folder that others may write to, what lies at its name may be theirs, a link, or a pipe.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            _refuse(path)
        handle = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            _refuse(path)
        msg = f"{path}, the progress of a batch, cannot be opened: {error.strerror}. Move it away."
        raise UsageError(msg) from error
    try:
        _check_owner(path, os.fstat(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        _refuse(path)
    if found.st_nlink > 1:
        msg = (
            f"{path}, the progress of a batch, has another name too, and what is written would be there also:"
        )
        raise UsageError(f"{msg} put a copy in its place.")
    if sys.platform == "win32" or found.st_uid == os.geteuid():
        return
    if found.st_uid == _owner_of_new_files(path.parent):
        return
    msg = f"{path}, the progress of a batch, is another user's: write to another file or another folder."
    raise UsageError(msg)


def _owner_of_new_files(folder: Path) -> int | None:
    """On some file systems (a phone's shared storage) all files have one owner, whoever makes them."""
    trial = folder / f".floatllm-{secrets.token_hex(8)}.part"
    try:
        handle = os.open(trial, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return None
    try:
        return os.fstat(handle).st_uid
    finally:
        os.close(handle)
        with suppress(OSError):
            trial.unlink()


def _make(path: Path) -> int:
    """A new sidecar, for its owner alone."""
    try:
        return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise refusal(str(path), error) from error


def _sync_folder(path: Path) -> None:
    """Makes a new name last a power cut, where folders can be synced."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(folder)
    except OSError:
        pass
    finally:
        os.close(folder)
