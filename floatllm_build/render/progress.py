"""What happens during a flow, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from floatllm_build.events import Listener
from floatllm_build.plain import Lines
from floatllm_build.render.words import encodable


@contextmanager
def listening(*, verbose: bool = False) -> Iterator[Listener]:
    """Shows events on stderr while the block runs: a live bar on a terminal, plain lines elsewhere.

    `verbose`: with all that a proof says.
    """
    if sys.stderr.isatty():
        # A log and a pipe need no rich, which takes three megabytes while compilers run.
        from floatllm_build.render.bar import LiveBar  # noqa: PLC0415
        from floatllm_build.render.terminal import lines_console  # noqa: PLC0415

        view = LiveBar(lines_console(stderr=True))
        view.verbose = verbose
        try:
            yield view
        finally:
            view.close()
        return
    lines = Lines(_put)
    lines.verbose = verbose
    yield lines


def _put(step: str, text: str) -> None:
    line = f"{step:<8} {text}" if step else text
    sys.stderr.write(encodable(line, sys.stderr.encoding or "utf-8") + "\n")
    sys.stderr.flush()
