"""What happens during a flow, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from floatllm_build.events import Event, Listener, StepDone, StepStarted, UnitProgress
from floatllm_build.plain import Lines, printable, what_it_takes
from floatllm_build.render.terminal import lines_console


@contextmanager
def listening(*, verbose: bool = False) -> Iterator[Listener]:
    """Shows events on stderr while the block runs: a live bar on a terminal, plain lines elsewhere.

    `verbose`: with all that a proof says.
    """
    console = lines_console(stderr=True)
    view = _Live(console) if console.is_terminal else _Plain(console)
    view.verbose = verbose
    try:
        yield view
    finally:
        view.close()


class _Plain(Lines):
    """Plain lines, with the names of steps in bold where the console has that."""

    def __init__(self, console: Console) -> None:
        super().__init__(self._print)
        self.console = console

    def _print(self, step: str, text: str) -> None:
        self.console.print(f"[bold]{step:<8}[/] {escape(text)}" if step else escape(text))

    def close(self) -> None:
        pass


class _Live(_Plain):
    """As plain lines, with a bar below them while units are built."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.bar = Progress(
            TextColumn("[bold]{task.description:<8}[/]"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            # A narrow terminal cuts the names, and never makes two lines of the bar.
            TextColumn(
                "{task.fields[current]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, count="", current="", visible=False)
        self.bar.start()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self.bar.reset(self.task, total=None, description=event.step, count="", current="", visible=True)
        elif isinstance(event, StepDone):
            self.bar.update(self.task, visible=False)
        super().__call__(event)

    def progress(self, now: UnitProgress) -> None:
        self.bar.update(
            self.task,
            completed=now.done,
            total=now.total or None,
            count=f"{now.done}/{now.total}",
            current=", ".join((*what_it_takes(now), *([printable(now.current)] if now.current else []))),
        )

    def close(self) -> None:
        self.bar.stop()
