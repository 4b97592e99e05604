"""What happens during a flow, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from floatllm_build.events import Listener
from floatllm_build.plain import Lines
from floatllm_build.render.terminal import lines_console


@contextmanager
def listening(*, verbose: bool = False) -> Iterator[Listener]:
    """Shows events on stderr while the block runs: a live bar on a terminal, plain lines elsewhere.

    `verbose`: with all that a proof says.
    """
    console = lines_console(stderr=True)
    view = _live(console) if console.is_terminal else PlainLines(console)
    view.verbose = verbose
    try:
        yield view
    finally:
        view.close()


class PlainLines(Lines):
    """Plain lines, with the names of steps in bold where the console has that."""

    def __init__(self, console: Console) -> None:
        super().__init__(self._print)
        self.console = console

    def _print(self, step: str, text: str) -> None:
        self.console.print(f"[bold]{step:<8}[/] {escape(text)}" if step else escape(text))

    def close(self) -> None:
        pass


def _live(console: Console) -> PlainLines:
    # A log and a pipe need not wait for what draws bars, nor keep it in memory while compilers run.
    from floatllm_build.render.bar import LiveBar  # noqa: PLC0415

    return LiveBar(console)
