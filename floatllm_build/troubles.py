"""Keeps the last errors of this tool in the cache, for `report`: {cache}/errors/*.json, the newest few.

Secrets are taken out before it is written; folders and names stay until a report is made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floatllm_build import __version__
from floatllm_build.errors import FAULT
from floatllm_build.files import write_whole
from floatllm_build.leftovers import ERRORS, left_in
from floatllm_build.scrub import Scrubber
from floatllm_build.trust import is_ours, is_trusted, make_private

FOLDER = "errors"
REPORTED = {FAULT, 4, 5, 6}
REPORT = "To ask for help: `floatllm-build report` writes one file; read it, and attach it to your issue."
_KEPT = 5
# Bytes. What is larger did not come from here.
_LARGEST = 1 << 20
_LONGEST_MESSAGE = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One command that failed."""

    when: str
    """UTC."""
    exit_code: int
    kind: str
    """Name of the exception."""
    command: str
    message: str
    log: str = ""
    """The file that holds all that was said."""
    trace: tuple[str, ...] = ()
    """Lines of the traceback, of a fault of this tool itself."""
    tool: str = __version__


def trouble_of(
    error: BaseException,
    exit_code: int,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    message: str = "",
    log: str = "",
    traced: bool = False,
) -> Trouble:
    scrub = Scrubber.of_this_user(environment)
    lines = traceback.format_exception(type(error), error, error.__traceback__) if traced else []
    return Trouble(
        when=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        exit_code=exit_code,
        kind=type(error).__name__,
        command=scrub.without_secrets(shlex.join(argv)),
        message=scrub.without_secrets((message or str(error))[:_LONGEST_MESSAGE]),
        log=log,
        trace=tuple(scrub.without_secrets("".join(lines)[-_LONGEST_MESSAGE:]).splitlines()),
    )


def keep_trouble(cache: Path, trouble: Trouble) -> Path | None:
    """Writes it below the cache, or else into the folder for temporary files; None where neither works."""
    stamp = f"{trouble.when.translate({ord(sign): None for sign in '-:'})}-{os.getpid()}"
    text = json.dumps(dataclasses.asdict(trouble), indent=1).encode()
    path = cache / FOLDER / f"{stamp}.json"
    # Whatever failed, its message counts for more than this.
    with contextlib.suppress(OSError):
        if _may_hold(path.parent):
            write_whole(path, text)
            _forget_old(path.parent)
            return path
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(prefix=ERRORS.partition("*")[0], suffix=".json")
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        return Path(name)
    return None


def _may_hold(folder: Path) -> bool:
    """Makes the folder, if the cache is ours alone; nothing is written into another."""
    make_private(folder.parent)
    if not is_trusted(folder.parent):
        return False
    make_private(folder)
    return is_ours(folder) and not folder.is_symlink()


def _forget_old(folder: Path) -> None:
    # Their names begin with the time.
    for path in sorted(folder.glob("*.json"))[:-_KEPT]:
        path.unlink(missing_ok=True)


def troubles(cache: Path, temp: Path | None = None) -> tuple[Trouble, ...]:
    """Those that are kept, the newest first; what has not the shape of one is left out.

    `temp`: the folder for temporary files, where those are that found no place in the cache.
    """
    paths = sorted((cache / FOLDER).glob("*.json"), reverse=True)[:_KEPT]
    elsewhere = left_in(temp, ERRORS) if temp else ()
    found = [one for path in (*paths, *elsewhere) if (one := _read(path))]
    return tuple(sorted(found, key=lambda one: one.when, reverse=True)[:_KEPT])


def _read(path: Path) -> Trouble | None:
    try:
        # A pipe would hold us up.
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        found = Trouble(**{**told, "trace": tuple(told["trace"])})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (found.when, found.kind, found.command, found.message, found.log, found.tool, *found.trace)
    fits = all(isinstance(text, str) for text in texts) and isinstance(found.exit_code, int)
    return found if fits else None
