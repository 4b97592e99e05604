"""Lines with a live bar below them, for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from floatllm_build.events import Event, StepDone, StepStarted, UnitProgress
from floatllm_build.plain import Lines, printable, what_it_takes


class LiveBar(Lines):
    """Lines with the names of steps in bold, and a bar below them while units are built."""

    def __init__(self, console: Console) -> None:
        super().__init__(self._print)
        self.console = console
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

    def _print(self, step: str, text: str) -> None:
        self.console.print(f"[bold]{step:<8}[/] {escape(text)}" if step else escape(text))

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
