"""JSON that somebody else wrote: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn


class RepeatedKeyError(ValueError):
    """An object has a key twice, so that nobody knows which of the two is meant."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} is there twice")
        self.key = key


def parse(text: bytes, encoding: str = "utf-8") -> Any:
    """The value that `text` holds.

    Raises RepeatedKeyError, or another ValueError for what is not JSON: NaN, and what Python cannot take in,
    because it is nested too deeply, included.
    """
    try:
        return json.loads(text.decode(encoding), object_pairs_hook=_object, parse_constant=_refuse)
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise ValueError(msg) from error


def read(path: Path, most: int = 1 << 20) -> Any:
    """The value that a file of at most `most` bytes holds. Raises ValueError, and OSError as open() does."""
    # A pipe would be waited for.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            msg = f"{path} is no ordinary file"
            raise ValueError(msg)
        content = file.read(most + 1)
    if len(content) > most:
        msg = f"{path} holds more than {most} bytes"
        raise ValueError(msg)
    return parse(content)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(key)
            seen.add(key)
    return found


def _refuse(name: str) -> NoReturn:
    msg = f"{name} is no number of JSON"
    raise ValueError(msg)
