"""A file that appears whole or not at all: written beside its place, then put there in one step."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from floatllm.errors import EngineError, UsageError


class AtomicFile:
    """A text file in the making. keep() or drop() ends it."""

    def __init__(self, path: str) -> None:
        """Raises UsageError where nothing can be written at `path`, so that nobody works in vain."""
        self._path = path
        # A link keeps leading where it led.
        self._place = Path(os.path.realpath(path))
        try:
            if self._place.exists() and not self._place.is_file():
                msg = f"{path!r} is a folder or a device: name a file to write."
                raise UsageError(msg)
            self._part = self._place.with_name(f".floatllm-{secrets.token_hex(4)}.part")
            self._file = self._part.open("x", encoding="utf-8", newline="\n")
        except OSError as error:
            msg = (
                f"{path} cannot be written: {error.strerror}. Name a file in a folder that you may write to."
            )
            raise UsageError(msg) from error

    def write(self, text: str) -> None:
        """Adds text. Raises EngineError where the disk takes no more."""
        try:
            self._file.write(text)
        except OSError as error:
            raise self._failure(error) from error

    def keep(self) -> None:
        """Puts the file in its place, over what was there. Raises EngineError, and then leaves nothing."""
        try:
            self._file.close()
            self._part.replace(self._place)
        except OSError as error:
            self.drop()
            raise self._failure(error) from error
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Leaves what was in the place before."""
        # Closing writes what is still held, on a disk that may be full.
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def _failure(self, error: OSError) -> EngineError:
        return EngineError(
            f"{self._path} could not be written: {error.strerror}. Free space or choose another place."
        )


def write_text(path: str, text: str) -> None:
    """Writes a whole file. Raises UsageError where there can be none, EngineError where the disk fails."""
    file = AtomicFile(path)
    try:
        file.write(text)
    except BaseException:
        file.drop()
        raise
    file.keep()
