"""One process at a time on a file. What differs by operating system stays in here."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import msvcrt
    import os

    # A lock of Windows keeps others from the bytes themselves, so it lies where none are written; one call
    # reaches no further.
    _PLACE = 2**31 - 2

    def take(file: int) -> bool:
        """Locks an open file for as long as it is open. False where another process has it."""
        before = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(file, before, os.SEEK_SET)
        return True

else:
    import errno
    import fcntl

    # What file systems say that know no locks: there, nothing tells of another process.
    _NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

    def take(file: int) -> bool:
        """Locks an open file for as long as it is open. False where another process has it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True
