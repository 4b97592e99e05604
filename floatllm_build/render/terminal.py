"""Consoles: what the streams are, and what they take."""

from __future__ import annotations

import sys

from rich.console import Console

from floatllm_build.render.layout import Screen
from floatllm_build.render.text import plain_text
from floatllm_build.render.words import write_encodable


def lines_console(*, stderr: bool) -> Console:
    """For single lines, that the terminal breaks."""
    # Without a terminal rich would cut lines to 80 columns; a log wants them whole.
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False, soft_wrap=True)


def put(screen: Screen) -> None:
    """The screen on stdout: in colours where a terminal takes them, else as plain lines."""
    console = Console(file=sys.stdout, highlight=False)
    bare = console.no_color or console.is_dumb_terminal or console.options.ascii_only
    if console.is_terminal and not bare:
        # A pipe need not wait for what draws frames and tables.
        from floatllm_build.render.paint import paint  # noqa: PLC0415

        paint(console, screen)
        return
    write_encodable(sys.stdout, plain_text(screen, console.width if sys.stdout.isatty() else None))
