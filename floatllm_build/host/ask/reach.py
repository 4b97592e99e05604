"""Asks servers (the subject: `HOST:PORT HOST:PORT`) for a connection: {"reached": true} if one takes it.

Else `why` has what came of the first.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120  as the other questions do

from _answer import answer  # type: ignore[import-not-found]

_SECONDS = 3.0


def ask(subject: str, found: dict[str, Any]) -> None:
    found["reached"] = False
    for place in subject.split():
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), _SECONDS).close()
        except (OSError, ValueError) as error:
            found.setdefault("why", getattr(error, "strerror", None) or str(error) or type(error).__name__)
        else:
            found["reached"] = True
            return


if __name__ == "__main__":
    answer(ask)
