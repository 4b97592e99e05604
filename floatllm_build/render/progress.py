"""What happens during a flow, on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from floatllm_build.events import (
    BuildSummary,
    Event,
    Hint,
    Listener,
    Said,
    StepDone,
    StepStarted,
    UnitProgress,
)
from floatllm_build.render.terminal import lines_console
from floatllm_build.render.words import printable, printable_lines
from floatllm_build.sizes import show_size

_STEP = 10
# Seconds.
_MINUTES_FROM = 100
# Plain lines come at least that often.
_SILENCE = 30


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
        self.told = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone(step, detail):
                self.line(step, detail)
            case StepStarted("build"):
                self.line("build", "cmake configures")
            case Said(line):
                self.console.print(printable(line), markup=False)
            case Hint(text):
                self.console.print(escape(printable_lines(text)))
            case UnitProgress():
                self.progress(event)
            case BuildSummary(slowest, hungriest):
                self.list("slowest", [f"{name} {seconds:.0f} s" for name, seconds in slowest])
                self.list("hungry", [f"{name} {show_size(peak)}" for name, peak in hungriest if peak])

    def line(self, step: str, detail: str) -> None:
        self.console.print(f"[bold]{step:<8}[/] {escape(printable(detail))}")

    def list(self, what: str, named: Sequence[str]) -> None:
        if named:
            self.line(what, ", ".join(named))

    def progress(self, now: UnitProgress) -> None:
        tenth = now.done * _STEP // now.total if now.total else 0
        if tenth > self.tenth or now.seconds - self.told >= _SILENCE:
            self.tenth, self.told = tenth, now.seconds
            unit = f" {now.current}" if now.current else ""
            seen = ", ".join((f"{now.seconds:.0f} s", *_seen(now)))
            self.line("build", f"{now.done}/{now.total}{unit} ({seen})")

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
            current=", ".join((*_seen(now), *([printable(now.current)] if now.current else []))),
        )

    def close(self) -> None:
        self.bar.stop()


def _seen(now: UnitProgress) -> list[str]:
    """What the build takes of what it may, how many jobs it may run at once, and how long it will take."""
    jobs = "1 job" if now.jobs == 1 else f"{now.jobs} jobs"
    memory = [f"{show_size(now.used)} of {show_size(max(now.room, 0))}", jobs] if now.used else []
    minutes = now.left >= _MINUTES_FROM
    left = f"{now.left / 60:.0f} min" if minutes else f"{now.left:.0f} s"
    return [*memory, f"{left} left"] if now.left >= 1 else memory
