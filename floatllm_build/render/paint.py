"""A screen in colours, for a terminal. Colour only repeats what words and signs say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from floatllm_build.render.layout import Row, Screen, Section, State, Tone
from floatllm_build.render.text import LABEL, WIDEST_LABEL, clean

WIDEST: Final = 100
_NARROW = 56

_SIGNS: Final[dict[State, str]] = {"ready": "✓", "missing": "!", "impossible": "✗"}
_COLOURS: Final[dict[State, str]] = {"ready": "green", "missing": "yellow", "impossible": "red"}
_BETWEEN = " · "
_STYLES: Final[dict[Tone, str]] = {
    "plain": "",
    "strong": "bold",
    "command": "bold cyan",
    "missing": "",
    "rejected": "",
}
_LABEL_STYLES: Final[dict[Tone, str]] = {"missing": "bold yellow", "rejected": "yellow"}


def paint(console: Console, screen: Screen) -> None:
    width = min(console.width, WIDEST)
    console.print(_framed(screen, width), width=width)
    for section in screen.sections:
        console.print()
        console.print(Text(f" {section.title}", style="bold"))
        console.print(Padding(_grid(section), (0, 1, 0, 2)), width=width)
    if screen.hint:
        console.print()
        console.print(Padding(Text(clean(screen.hint), style="dim"), (0, 1)), width=width)


def _framed(screen: Screen, width: int) -> RenderableType:
    colour = _COLOURS[screen.state]
    title = Text(f"{_SIGNS[screen.state]} {clean(screen.verdict.title)}", style=f"bold {colour}")
    grid = _grid(screen.verdict)
    if width < _NARROW:
        return Group(title, grid)
    return Panel(grid, title=title, title_align="left", box=ROUNDED, border_style=colour, padding=(0, 1))


def _grid(section: Section) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(min_width=LABEL, max_width=WIDEST_LABEL, overflow="fold")
    grid.add_column(ratio=1, overflow="fold")
    above = ""
    for row in section.rows:
        label = Text(clean(row.label), style=_LABEL_STYLES.get(row.tone, "cyan"))
        if row.tone == "rejected":
            label = Text("✗ ", style="yellow") + label
        again = row.label == above and not row.fix
        grid.add_row("" if again else label, _Said(row))
        above = row.label
    return grid


def _shell_lines(command: str, width: int) -> Iterator[str]:
    """A command over several lines that a shell takes for one, where no word is wider than a line."""
    line = ""
    for word in re.findall(r"(?:'[^']*'|\S)+", command):
        if line and cell_len(f"{line} {word} \\") > width:
            yield f"{line} \\"
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    yield line


class _Said:
    """A row's parts, broken between them where that is possible, and its fix below."""

    def __init__(self, row: Row) -> None:
        self.command = row.tone == "command"
        self.parts = [Text(clean(part, row.tone), style=_STYLES[row.tone]) for part in row.parts]
        self.fix = Text(clean(row.fix, "command"), style="green")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.command:
            for part in self.parts:
                for text in _shell_lines(part.plain, options.max_width):
                    yield Text(text, style=part.style)
            return
        line = Text()
        for part in self.parts:
            if line and line.cell_len + len(_BETWEEN) + part.cell_len > options.max_width:
                yield line
                line = Text()
            if line:
                line.append(_BETWEEN, style="dim")
            line.append_text(part)
        yield line
        if self.fix:
            arrow = Text("→ ", style="green")
            for piece in self.fix.wrap(console, max(1, options.max_width - arrow.cell_len), overflow="fold"):
                yield arrow + piece
                arrow = Text("  ")
