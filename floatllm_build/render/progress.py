"""What happens during a flow, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from floatllm_build.events import Event, Hint, Listener, Said, StepDone, StepStarted, UnitProgress
from floatllm_build.render.terminal import lines_console
from floatllm_build.render.words import printable, printable_lines

_STEP = 10


@contextmanager
def listening() -> Iterator[Listener]:
    """Shows events on stderr while the block runs: a live bar on a terminal, plain lines elsewhere."""
    console = lines_console(stderr=True)
    view = _Live(console) if console.is_terminal else _Plain(console)
    try:
        yield view
    finally:
        view.close()


class _Plain:
    """One line for each step, and one for each tenth of the units."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tenth = 0

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone(step, detail):
                self.line(step, detail)
            case Said(line):
                self.console.print(printable(line), markup=False)
            case Hint(text):
                self.console.print(escape(printable_lines(text)))
            case UnitProgress(done, total, current, seconds):
                self.progress(done, total, current, seconds)

    def line(self, step: str, detail: str) -> None:
        self.console.print(f"[bold]{step:<8}[/] {escape(printable(detail))}")

    def progress(self, done: int, total: int, current: str, seconds: float) -> None:
        tenth = done * _STEP // total if total else 0
        if tenth > self.tenth:
            self.tenth = tenth
            self.line("build", f"{done}/{total} {current} ({seconds:.0f} s)")

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
            TextColumn("{task.fields[current]}", markup=False),
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

    def progress(self, done: int, total: int, current: str, seconds: float) -> None:  # noqa: ARG002
        current = printable(current)
        self.bar.update(self.task, completed=done, total=total, count=f"{done}/{total}", current=current)

    def close(self) -> None:
        self.bar.stop()
