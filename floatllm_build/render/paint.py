"""A screen on paper: plain lines for files, pipes and NO_COLOR, or colours for a terminal.

Everything becomes printable here, in one place, so that no text of a driver or a record reaches a terminal
as a command to it. Colour only repeats what words and signs say.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Final

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from floatllm_build.plain import printable
from floatllm_build.render.layout import Row, Screen, Section, State, Tone

WIDEST: Final = 100
_NARROW = 56
_LABEL = 9
_WIDEST_LABEL = 40
_LONGEST = 2000

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


def _clean(text: str, tone: Tone = "plain") -> str:
    text = printable(text)
    # A command that is cut would be another command.
    return text if len(text) <= _LONGEST or tone == "command" else f"{text[:_LONGEST]}..."


# ---- plain ------------------------------------------------------------------------------------


def plain_text(screen: Screen, width: int | None = None) -> str:
    """One line for each row, so that `grep` finds all of it; broken only where `width` is given."""
    blocks = [[_plain_line("verdict", screen.verdict.title, _LABEL), *_plain_rows(screen.verdict)]]
    blocks += [[f"{section.title}:", *_plain_rows(section)] for section in screen.sections]
    if screen.hint:
        blocks.append([_clean(screen.hint)])
    if width:
        blocks = [[_wrapped(line, width) for line in block] for block in blocks]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _plain_rows(section: Section) -> list[str]:
    labels = [_clean(f"{section.each} {row.label}".strip()) for row in section.rows]
    wide = max(map(len, labels), default=0)
    wide = min(max(wide, _LABEL), _WIDEST_LABEL)
    return [_plain_line(label, _plain(row), wide) for label, row in zip(labels, section.rows, strict=True)]


def _plain(row: Row) -> str:
    text = ", ".join(_clean(part, row.tone) for part in row.parts)
    return f"{text}. To get it: {_clean(row.fix, 'command')}" if row.fix else text


def _plain_line(label: str, text: str, wide: int) -> str:
    return f"{label:<{wide}} {text}"


def _wrapped(line: str, width: int) -> str:
    broken = textwrap.wrap(
        line,
        max(width, 2 * _LABEL),
        subsequent_indent=" " * (_LABEL + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(broken)


# ---- colours ----------------------------------------------------------------------------------


def paint(console: Console, screen: Screen) -> None:
    width = min(console.width, WIDEST)
    console.print(_framed(screen, width), width=width)
    for section in screen.sections:
        console.print()
        console.print(Text(f" {section.title}", style="bold"))
        console.print(Padding(_grid(section), (0, 1, 0, 2)), width=width)
    if screen.hint:
        console.print()
        console.print(Padding(Text(_clean(screen.hint), style="dim"), (0, 1)), width=width)


def _framed(screen: Screen, width: int) -> RenderableType:
    colour = _COLOURS[screen.state]
    title = Text(f"{_SIGNS[screen.state]} {_clean(screen.verdict.title)}", style=f"bold {colour}")
    grid = _grid(screen.verdict)
    if width < _NARROW:
        return Group(title, grid)
    return Panel(grid, title=title, title_align="left", box=ROUNDED, border_style=colour, padding=(0, 1))


def _grid(section: Section) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(min_width=_LABEL, max_width=_WIDEST_LABEL, overflow="fold")
    grid.add_column(ratio=1, overflow="fold")
    above = ""
    for row in section.rows:
        label = Text(_clean(row.label), style=_LABEL_STYLES.get(row.tone, "cyan"))
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
        self.parts = [Text(_clean(part, row.tone), style=_STYLES[row.tone]) for part in row.parts]
        self.fix = Text(_clean(row.fix, "command"), style="green")

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
