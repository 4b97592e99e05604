"""What a command found or did, on stdout or stderr."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape

from floatllm_build.matrix import WheelRow
from floatllm_build.plain import printable, printable_lines, tilde
from floatllm_build.presets import Preset
from floatllm_build.render.screens import INSTALL, detect_screen, plan_screen
from floatllm_build.render.terminal import lines_console, put
from floatllm_build.render.upkeep import cleaned, removed, reported
from floatllm_build.render.words import count
from floatllm_build.values import Host, Installed, Lack, Plan, Verified

__all__ = [
    "cleaned",
    "detect",
    "error",
    "installed",
    "matrix",
    "plan",
    "presets",
    "removed",
    "reported",
    "verified",
]


def detect(
    host: Host,
    made: Plan | None,
    problem: str,
    lacks: tuple[Lack, ...],
    *,
    why: bool,
    command: str = INSTALL,
) -> None:
    """`command` is the one that builds exactly what the plan says."""
    put(detect_screen(host, made, problem, lacks, why=why, command=command))


def plan(made: Plan, lacks: tuple[Lack, ...]) -> None:
    put(plan_screen(made, lacks))


def error(message: str) -> None:
    text = printable_lines(tilde(message))
    lines_console(stderr=True).print(f"[bold red]floatllm-build:[/] {escape(text)}")


def installed(result: Installed) -> None:
    what = "is there already; nothing to do" if result.unchanged else "is installed and proven"
    where = escape(printable(f"{result.target.prefix} [{result.seconds:.1f} s]"))
    lines_console(stderr=True).print(f"[bold green]floatllm[/] ({result.plan.backend}) {what}: {where}")


def verified(found: Verified, *, verbose: bool) -> None:
    """A line for each device; with `verbose` the operations of each, furthest from what is allowed."""
    console = lines_console(stderr=False)
    for proof in found.proofs:
        console.print(f"the installed engine computed on {proof.device}, {proof.agree} operations agree")
        operations = proof.report.get("operations", [])
        for one in operations if verbose else ():
            worst = f"{one['nmse']:.1e} of {one['allowed']:.1e}" if one["agree"] else "-"
            lacking = f"  not supported: {', '.join(one['unsupported'])}" if one["unsupported"] else ""
            console.print(
                f"  {one['operation']:<24} {one['agree']:>4}  {worst:<18} {one['type']:<8}{lacking}".rstrip(),
                markup=False,
            )
        kinds = [f"{one['operation']} of {kind}" for one in operations for kind in one["unsupported"]]
        if kinds and not verbose:
            console.print(f"  {count(len(kinds), 'kind')} of operation it does not support; -v lists them")
    for other in found.unproven:
        error(f"{other.device}: {other.reason}")


def presets(table: Mapping[str, Preset]) -> None:
    console = lines_console(stderr=False)
    wide = max(len(name) for name in table)
    for preset in table.values():
        jobs = count(preset.jobs, "job")
        console.print(f"[bold]{preset.name:<{wide}}[/]  {preset.backend:<6}  {jobs:<6}  {preset.description}")


def matrix(rows: tuple[WheelRow, ...]) -> None:
    """A line for each wheel: how CI calls it, what it becomes and what has been seen of it."""
    console = lines_console(stderr=False)
    cells = [(row.id, f"{row.distribution} py3-none-{row.tag}", row.runner, row.proof) for row in rows]
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row, line in zip(rows, cells, strict=True):
        first, *rest = (f"{cell:<{width}}" for cell, width in zip(line, wide, strict=True))
        console.print(f"[bold]{first}[/]  {'  '.join(rest)}  {row.state}")
