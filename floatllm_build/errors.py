"""The error tree. Each message says what happened, why, and what to do; each class has its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

FAULT = 1
"""The exit status of a fault of this tool itself."""


class FloatllmBuildError(Exception):
    """Base of all errors that end the tool with a message instead of a traceback."""

    exit_code: ClassVar[int]

    def __init__(self, message: str, *, log: str = "") -> None:
        """`log` is the file that holds all that was said, where there is one."""
        super().__init__(message)
        self.log = log


class UsageFaultError(FloatllmBuildError):
    """An argument or a file given by the user makes no sense."""

    exit_code = 2


class MissingError(FloatllmBuildError):
    """Something that the request needs is not on this machine, or this tool's own files are damaged."""

    exit_code = 3


class BuildFailedError(FloatllmBuildError):
    """Configuring, compiling or packaging failed."""

    exit_code = 4


class InstallFailedError(FloatllmBuildError):
    """The wheel is built and proven, but the installer failed."""

    exit_code = 4


class NotProvenError(FloatllmBuildError):
    """The engine was built, but the proof says: wrong device or wrong numbers."""

    exit_code = 5


class SourceFaultError(FloatllmBuildError):
    """The source of llama.cpp could not be fetched, or is not what was pinned."""

    exit_code = 6


def refused(error: OSError) -> MissingError:
    """What the operating system would not do, wherever that was, as an error that says what to look at."""
    if isinstance(error, FileNotFoundError) and _current_folder_is_gone():
        return MissingError(
            "The folder that this was started in has been deleted. Go to another (cd ~) and run this again."
        )
    why = error.strerror or str(error)
    if not error.filename:
        return MissingError(
            f"The system refused: {why}. Check the free space, the limits of this shell (`ulimit -a`) and "
            "where the output goes."
        )
    return MissingError(
        f"{error.filename} cannot be used: {why}. Check the free space and the permissions there; "
        "FLOATLLM_CACHE_DIR names another folder to work in."
    )


def unwritten(error: OSError) -> MissingError:
    """What stdout did not take."""
    return MissingError(
        f"The output cannot be written: {error.strerror or error}. Make room on that disk, or send it "
        "somewhere else."
    )


def _current_folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
