"""A screen as plain lines, for files, pipes and NO_COLOR.

Everything becomes printable here, in one place, so that no text of a driver or a record reaches a terminal
as a command to it.
"""

from __future__ import annotations

import textwrap
from typing import Final

from floatllm_build.plain import printable
from floatllm_build.render.layout import Row, Screen, Section, Tone

LABEL: Final = 9
WIDEST_LABEL: Final = 40
_LONGEST = 2000


def clean(text: str, tone: Tone = "plain") -> str:
    text = printable(text)
    # A command that is cut would be another command.
    return text if len(text) <= _LONGEST or tone == "command" else f"{text[:_LONGEST]}..."


def plain_text(screen: Screen, width: int | None = None) -> str:
    """One line for each row, so that `grep` finds all of it; broken only where `width` is given."""
    blocks = [[_plain_line("verdict", screen.verdict.title, LABEL), *_plain_rows(screen.verdict)]]
    blocks += [[f"{section.title}:", *_plain_rows(section)] for section in screen.sections]
    if screen.hint:
        blocks.append([clean(screen.hint)])
    if width:
        blocks = [[_wrapped(line, width) for line in block] for block in blocks]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _plain_rows(section: Section) -> list[str]:
    labels = [clean(f"{section.each} {row.label}".strip()) for row in section.rows]
    wide = max(map(len, labels), default=0)
    wide = min(max(wide, LABEL), WIDEST_LABEL)
    return [_plain_line(label, _plain(row), wide) for label, row in zip(labels, section.rows, strict=True)]


def _plain(row: Row) -> str:
    text = ", ".join(clean(part, row.tone) for part in row.parts)
    return f"{text}. To get it: {clean(row.fix, 'command')}" if row.fix else text


def _plain_line(label: str, text: str, wide: int) -> str:
    return f"{label:<{wide}} {text}"


def _wrapped(line: str, width: int) -> str:
    broken = textwrap.wrap(
        line,
        max(width, 2 * LABEL),
        subsequent_indent=" " * (LABEL + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(broken)
