"""What happens during a flow, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from floatllm_build.events import Listener
from floatllm_build.plain import Lines
from floatllm_build.render.words import may_be_a_terminal, write_encodable

if TYPE_CHECKING:
    from floatllm_build.render.bar import LiveBar


@contextmanager
def listening(*, verbose: bool = False) -> Iterator[Listener]:
    """Shows events on stderr while the block runs: a live bar on a terminal, plain lines elsewhere.

    `verbose`: with all that a proof says.
    """
    view = _live() if may_be_a_terminal(sys.stderr) else None
    tell = view or Lines(_put)
    tell.verbose = verbose
    try:
        yield tell
    finally:
        if view:
            view.close()


def _live() -> LiveBar | None:
    """None for a terminal that can draw no bar."""
    # A log and a pipe need no rich, which takes three megabytes while compilers run.
    from floatllm_build.render.bar import LiveBar  # noqa: PLC0415
    from floatllm_build.render.terminal import lines_console  # noqa: PLC0415

    console = lines_console(stderr=True)
    return LiveBar(console) if console.is_terminal and not console.is_dumb_terminal else None


def _put(step: str, text: str) -> None:
    write_encodable(sys.stderr, f"{step:<8} {text}\n" if step else f"{text}\n")
    sys.stderr.flush()
