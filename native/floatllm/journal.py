"""The results of a batch on disk: finished rows in a sidecar until all are there, then the output, whole.

A row is one line, appended the moment it is finished. A kill may tear the last line; it is cut off when the
batch goes on, and its row is computed again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floatllm import locks
from floatllm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

# A power cut may cost what was finished this long ago; a kill costs nothing that was finished.
_SYNC_SECONDS = 5.0
SCHEMA_VERSION = 1
_START = b'{"schema_version"'


def sidecar(output: str) -> Path:
    """Where the progress of a batch towards `output` is kept."""
    return Path(output + ".progress")


def check_place(output: str) -> None:
    """Raises UsageError where no results can be written at `output`, so that nobody works in vain."""
    folder = Path(output).parent
    if not folder.is_dir():
        msg = f"{output} cannot be written: there is no folder {folder}. Make it first."
        raise UsageError(msg)
    if Path(output).is_dir():
        msg = f"{output!r} is a folder: name a file for the results."
        raise UsageError(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"{output} cannot be written: {folder} takes no new files. Name one that you may write to."
        raise UsageError(msg)


def recorded(output: str) -> dict[str, Any] | None:
    """What an unfinished batch towards `output` was begun with, or None."""
    try:
        with sidecar(output).open("rb") as file:
            return _header(file.readline(), sidecar(output))
    except FileNotFoundError:
        return None


class Journal:
    """The sidecar of `output`, open for one batch."""

    def __init__(self, output: str, begun: Mapping[str, Any], rows: int) -> None:
        """Goes on with the sidecar where there is one, else makes it. `begun` is what decides the results.

        Raises UsageError where the output is there already, where the sidecar was begun with something
        else, or where another process writes it.
        """
        self._output, self._path = output, sidecar(output)
        self._places = array("q", [-1]) * rows
        self.done = 0
        self._synced = time.monotonic()
        is_new = not self._path.exists()
        if is_new and Path(output).exists():
            msg = f"{output} is there already: remove it, or write to another file."
            raise UsageError(msg)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
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
        part = Path(self._output + ".part")
        # The lock stays until the sidecar is gone.
        with os.fdopen(self._file, "rb") as file, part.open("wb") as out:
            for place in self._places:
                file.seek(place)
                out.write(_line(json.loads(file.readline())["result"]))
            out.flush()
            os.fsync(out.fileno())
            # Windows renames no open file, and removes none.
            out.close()
            part.replace(self._output)
            _sync_folder(part)
            if sys.platform != "win32":
                self._path.unlink(missing_ok=True)
        if sys.platform == "win32":
            self._path.unlink(missing_ok=True)

    def _check_output(self, rows: int) -> None:
        # A kill between writing the output and removing the sidecar leaves both, and nothing to compute.
        if self.done < rows and Path(self._output).exists():
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
            header = _header(file.readline(), self._path)
            if header is not None:
                self._check(header, begun)
                end = file.tell()
                for line in file:
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
        try:
            row = json.loads(line)["row"] if line.endswith(b"\n") else None
        except (ValueError, KeyError, TypeError):
            return None
        return row if isinstance(row, int) and 0 <= row < len(self._places) else None

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
    if _START.startswith(line) or (line.startswith(_START) and not line.endswith(b"\n")):
        return None
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("schema_version") != SCHEMA_VERSION:
        msg = f"{path} is not the progress of a batch by this version: move it away."
        raise UsageError(msg)
    return header


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
