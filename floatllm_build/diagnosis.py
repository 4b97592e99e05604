"""From what a failed build said to what happened and what to do. Pure: text in, a sentence and a fix out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from floatllm_build.remedies import COMPILER_CACHE, MACHINE_KINDS, OUT_OF_MEMORY, REMEDIES, SILENT, Remedy

__all__ = ["COMPILER_CACHE", "OUT_OF_MEMORY", "Diagnosis", "diagnose", "failed_unit"]

_STATUS = re.compile(r"\[\d+/\d+\] ")
_FAILED = re.compile(r"FAILED: (?:\[code=(?P<code>\d+)\] )?(?P<unit>\S*)")
# A compiler shows the line of the source that it means, with a gutter or with a caret below it.
_GUTTER = re.compile(r"\d*\s*\|")
_CARET = re.compile(r"[\s~]*\^[\s~^]*$")
_HARMLESS = re.compile(
    r"(?:^|[:)] *|\bnvcc )(?:warning|note|remark)(?: #?[A-Z]*[\d-]*D?)?\s*:|\bstatic[_ ]assert"
)
_CMAKE_WARNING = re.compile(r"CMake (?:Deprecation )?Warning\b")
_INTERRUPTED = re.compile(r"^ninja: build stopped: interrupted by user\.", re.MULTILINE)
_OBJECT = re.compile(r"\.(?:o|obj)$")
# No tool's sentence is this long; a line of a minified source or of a command may be.
_LONGEST = 2000
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Diagnosis:
    kind: str
    """Which remedy: OUT_OF_MEMORY, disk-full, ..."""
    cause: str
    """What happened, one sentence without its first capital and full stop."""
    fix: str
    """What to do: a command where there is one."""
    unit: str = ""
    """The output whose command showed it, as the build file names it; empty where no command of it did."""
    said: str = ""
    """The line that gave it away; empty where it was silence."""

    @property
    def is_of_machine(self) -> bool:
        """Whether this machine refused something, so that no flag of the user's is the cause."""
        return self.kind in MACHINE_KINDS


@dataclass(frozen=True)
class _Line:
    unit: str
    text: str


def diagnose(log: str) -> Diagnosis | None:
    """What the log of a failed configuration or build says happened.

    Where several things went wrong, the one that explains the others. None where nothing in the table fits
    (an error in the source), and where the user or the system ended the build. Takes any text; raises
    nothing.
    """
    if _INTERRUPTED.search(log):
        return None
    lines = list(_blamed(log))
    text = "\n".join(line.text for line in lines)
    for remedy in REMEDIES:
        for sign in remedy.signs:
            if sign.word not in text:
                continue
            for line in lines:
                if sign.word in line.text and (match := sign.found(line.text)):
                    return _diagnosis(remedy, match.groupdict().get("what"), line)
    silent = _silent_unit(log)
    return _diagnosis(SILENT, None, _Line(silent, "")) if silent else None


def failed_unit(log: str) -> str:
    """The output whose command failed last, as the build file has it; empty where ninja names none."""
    units = [match["unit"] for line in log.split("\n") if (match := _FAILED.match(line.strip()))]
    return units[-1] if units else ""


def _diagnosis(remedy: Remedy, named: str | None, line: _Line) -> Diagnosis:
    what = "".join(letter for letter in named or "" if letter.isprintable()).strip()[:_LONGEST_NAME]
    fixes = (fix for pattern, fix in remedy.parts if re.search(pattern, what))
    return Diagnosis(
        kind=remedy.kind,
        cause=remedy.cause.format(what=what or remedy.unnamed or "what was asked for"),
        fix=next(fixes, remedy.fix),
        unit=line.unit,
        said=line.text,
    )


def _blamed(log: str) -> Iterator[_Line]:
    """The lines that may say why it failed, with the output whose command said them.

    Left out: what commands said that went well, commands themselves, warnings, CMake's progress, and lines of
    source that compilers show. All of these may hold the words of any error.
    """
    unit = ""
    # What a command said before it is known to have failed; None outside of ninja's commands.
    waiting: list[str] | None = None
    for text in _without_warnings(_without_quotes(log)):
        if failed := _FAILED.match(text):
            unit = failed["unit"]
            yield from (_Line(unit, said) for said in [text, *(waiting or ())])
            waiting = None
        elif _STATUS.match(text):
            waiting = []
        elif text.startswith("ninja: "):
            unit, waiting = "", None
            yield _Line(unit, text)
        elif text.startswith("$ "):
            unit, waiting = "", None
        elif waiting is None:
            yield _Line(unit, text)
        else:
            waiting.append(text)


def _without_quotes(log: str) -> Iterator[str]:
    """The log's lines, of reasonable length, without what compilers and ninja quote: source and commands."""
    before: str | None = None
    is_command = False
    for line in log.split("\n"):
        short = line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} {line[-_LONGEST // 2 :]}"
        text = short.strip()
        if is_command or _GUTTER.match(text):
            is_command = False
        elif _CARET.match(text):
            before = None
        else:
            if before is not None:
                yield before
            before = short
            is_command = bool(_FAILED.match(text))
    if before is not None:
        yield before


def _without_warnings(lines: Iterable[str]) -> Iterator[str]:
    """What stands in the lines, without warnings and CMake's progress. CMake indents what belongs to one."""
    in_warning = False
    for line in lines:
        text = line.strip()
        if _CMAKE_WARNING.match(text):
            in_warning = True
        elif not in_warning or (text and not line[0].isspace() and not text.startswith("Call Stack")):
            in_warning = False
            if text and not text.startswith("-- ") and not _HARMLESS.search(text):
                yield text


def _silent_unit(log: str) -> str:
    """The first object whose command failed and nothing was said, not even how it ended; else empty."""
    lines = [line.strip() for line in log.split("\n")]
    for number, line in enumerate(lines):
        match = _FAILED.match(line)
        if match and match["code"] is None and _OBJECT.search(match["unit"]):
            after = lines[number + 2] if number + 2 < len(lines) else ""
            if not after or _STATUS.match(after) or after.startswith("ninja: "):
                return match["unit"]
    return ""
