"""A file that appears whole or not at all: written next to its place, then put there in one step."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

from floatllm.errors import EngineError, FloatLLMError, UsageError


class AtomicFile:
    """A file in the making. keep() or drop() ends it."""

    def __init__(self, path: str, *, follow: bool = True) -> None:
        """Raises UsageError where no file can have that name and EngineError where none can be written, so
        that nobody works in vain.

        With `follow` a link at `path` keeps leading where it led; else the file takes its place.
        """
        self._path = path
        self._place = Path(os.path.realpath(path)) if follow else Path(path)
        try:
            if self._place.exists() and not self._place.is_file():
                msg = f"{path!r} is a folder or a device: name a file to write."
                raise UsageError(msg)
            # By a name that nobody can guess, so that nobody has put a file or a link there; and until it is
            # whole for its owner alone.
            self._part = self._place.with_name(f".floatllm-{secrets.token_hex(8)}.part")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(self._part, flags | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise refusal(path, error) from error
        self._file = os.fdopen(handle, "wb")

    def write(self, text: str | bytes) -> None:
        """Adds text, as UTF-8, or bytes. Raises EngineError where the disk takes no more."""
        try:
            self._file.write(text.encode() if isinstance(text, str) else text)
        except OSError as error:
            raise self._failure(error) from error

    def keep(self, *, sync: bool = False) -> None:
        """Puts the file in its place, over what was there. Raises EngineError, and then leaves nothing.

        With `sync` its bytes are on the disk before it is there.
        """
        try:
            self._file.flush()
            if sync:
                os.fsync(self._file.fileno())
            self._open_to_others()
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

    def _open_to_others(self) -> None:
        """Gives the file the mode of the one that it replaces, else that of a new file."""
        if sys.platform == "win32":
            return
        try:
            before = os.lstat(self._place).st_mode
        except OSError:
            before = 0
        # Some file systems know no modes, and refuse.
        with suppress(OSError):
            os.fchmod(self._file.fileno(), before & 0o777 if stat.S_ISREG(before) else 0o666 & ~_umask())

    def _failure(self, error: OSError) -> EngineError:
        return EngineError(
            f"{self._path} could not be written: {error.strerror}. Free space or choose another place."
        )


def _umask() -> int:
    # It can be asked for only by setting it; what another thread makes meanwhile is for its owner alone.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def refusal(path: str, error: OSError) -> FloatLLMError:
    """The error of a file that cannot be made: UsageError where its folder is not there, else EngineError."""
    folder = Path(os.path.realpath(path)).parent
    if error.errno in {errno.ENOENT, errno.ENOTDIR} and not folder.is_dir():
        return UsageError(f"{path} cannot be written: there is no folder {folder}. Make it first.")
    kind = UsageError if error.errno == errno.ENAMETOOLONG else EngineError
    return kind(f"{path} cannot be written: {error.strerror}. Name a file in a folder that you may write to.")


def write_text(path: str, text: str) -> None:
    """Writes a whole file. Raises as AtomicFile does."""
    file = AtomicFile(path)
    try:
        file.write(text)
    except BaseException:
        file.drop()
        raise
    file.keep()
