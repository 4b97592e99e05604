"""Texts for people: what a long list becomes, names and sizes in short."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import TextIO

from floatllm_build.sizes import show_size

_TIMES = "\N{MULTIPLICATION SIGN}"
_LONGEST_NAME = 120
_MOST_KINDS = 4
_LARGEST = 1 << 70


def short(name: str) -> str:
    """A name that no honest machine has in full, cut."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def fold(names: Iterable[str]) -> str:
    """Equal names once with their number, in the order they came: the name of one GPU, and how many of it."""
    counted = Counter(names)
    shown = [name if n == 1 else f"{n} {_TIMES} {name}" for name, n in list(counted.items())[:_MOST_KINDS]]
    more = sum(counted.values()) - sum(list(counted.values())[:_MOST_KINDS])
    return ", ".join(shown) + (f" and {more} more" if more else "")


def size(number: int) -> str:
    """Bytes for people; `unknown` where nobody said."""
    return show_size(min(number, _LARGEST)) if number > 0 else "unknown"


def count(number: int, one: str) -> str:
    """`1 job`, `8 jobs`."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def may_be_a_terminal(stream: TextIO) -> bool:
    """Whether rich has to be asked: it obeys FORCE_COLOR too, and knows terminals that can do nothing."""
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def write_encodable(stream: TextIO, text: str) -> None:
    stream.write(encodable(text, stream.encoding or "utf-8"))


def encodable(text: str, encoding: str) -> str:
    """`text` as a stream of that encoding takes it: by look-alikes first, then by escapes."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        alike = text.translate({ord(_TIMES): "x"})
        return alike.encode(encoding, "backslashreplace").decode(encoding)
    return text
