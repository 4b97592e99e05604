"""How a question answers: one JSON object on the real stdout, whatever a driver's library prints or does.

These files are no package: each is run by itself, without site and without FloatLLM, and finds this one
beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable
from typing import Any


class NoAnswerError(Exception):
    """The library was loaded and refused; the text says which call, and what it returned."""


def load(path: str) -> ctypes.CDLL:
    """Raises OSError in the loader's words."""
    # A driver that crashes shall leave no core file in the folder that the user stands in.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415  not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    return ctypes.CDLL(path)


def answer(question: Callable[[str, dict[str, Any]], None]) -> None:
    """Asks `question(subject, found)`, which fills `found`, and ends the process.

    What had been found before a failure is kept; `error` is added. `loaded` is false where the library
    could not even be loaded.
    """
    private = os.dup(1)
    os.dup2(2, 1)
    found: dict[str, Any] = {}
    try:
        question(sys.argv[1] if len(sys.argv) > 1 else "", found)
    except OSError as error:
        found |= {"error": str(error), "loaded": False}
    except (AttributeError, NoAnswerError) as error:
        found["error"] = str(error)
    text = memoryview(json.dumps(found).encode() + b"\n")
    while text:
        text = text[os.write(private, text) :]
    # Without clean-up: a driver's own may hang or crash, and the answer is given.
    os._exit(0)
