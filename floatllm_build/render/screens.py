"""The screens of `detect` and `plan`: values in, rows out. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

from floatllm_build.plain import tilde
from floatllm_build.render.facts import device_name, fact_rows
from floatllm_build.render.layout import Row, Screen, Section, State
from floatllm_build.render.words import count, size
from floatllm_build.values import Engine, Host, Lack, Plan, Reason

# Reasons that the screen tells in its own row.
_TOLD_ELSEWHERE = {"jobs"}
_MOST_REASONS = 3
INSTALL = "floatllm-build install"
# The words of a fix that end with the installation itself.
_INSTALLS = re.compile(r"(\bfloatllm-build|-m floatllm_build) install\b")


def detect_screen(
    host: Host,
    plan: Plan | None,
    problem: str,
    lacks: tuple[Lack, ...],
    *,
    why: bool,
    command: str = INSTALL,
) -> Screen:
    """What the machine is and what would be built on it. Without a plan, `problem` says why.

    `command` is the one that builds exactly this.
    """
    current = bool(host.engine and host.engine.current)
    state: State = "impossible" if not plan else "missing" if lacks else "ready"
    title = {
        "ready": "nothing to do" if current else "ready to build",
        "missing": f"almost: {count(len(lacks), 'thing')} missing",
        "impossible": "nothing can be built here",
    }[state]
    sections = [Section(title="This machine", rows=fact_rows(host))]
    if plan:
        sections.append(_rejected(plan))
    if why:
        sections += [
            _rules(plan.reasons if plan else ()),
            Section(
                title="Where the facts come from",
                each="source",
                rows=tuple(Row(label=one.fact, parts=(tilde(one.source),)) for one in host.sources),
            ),
            Section(
                title="Notes of the probes",
                each="note",
                rows=tuple(Row(label=tilde(note.source), parts=(tilde(note.said),)) for note in host.notes),
            ),
        ]
    rows = _builds(host, plan, lacks, "" if current else command) if plan else _problem(problem)
    if host.engine:
        rows = (*_engine(host.engine), *rows)
    return Screen(
        state=state,
        verdict=Section(title=title, rows=rows),
        sections=tuple(section for section in sections if section.rows),
        hint="" if why else _hint(host),
    )


def plan_screen(plan: Plan, lacks: tuple[Lack, ...]) -> Screen:
    """What would be built, to the last option of cmake."""
    title = f"almost: {count(len(lacks), 'thing')} missing" if lacks else "can be built"
    rows = [
        Row(
            label="builds", parts=(f"preset {plan.preset}", f"{plan.backend} on {plan.device}"), tone="strong"
        ),
        *_becauses(plan, most=len(plan.reasons)),
        Row(
            label="jobs",
            parts=(f"{count(plan.jobs, 'compile')} at once", f"{size(plan.memory_per_job)} each at most"),
        ),
        Row(label="memory", parts=(f"about {size(plan.memory_peak)} at the peak", _rung(plan))),
        *((Row(label="disk", parts=(f"{size(plan.disk)} in an empty cache",)),) if plan.disk else ()),
        Row(label="fetches", parts=_downloads(plan)),
    ]
    if plan.architectures:
        rows.append(Row(label="gpu code", parts=(f"for {', '.join(plan.architectures)}",)))
    if plan.proof == "none":
        rows.append(
            Row(
                label="proof",
                parts=("none for the device, which is not here; the wheel is proven on the CPU",),
                tone="missing",
            )
        )
    if plan.cc or plan.cxx:
        rows.append(Row(label="compiler", parts=tuple(tilde(one) for one in (plan.cc, plan.cxx) if one)))
    rows += [
        Row(label="cmake", parts=(command_line(plan.cmake),), tone="command"),
        *_missing(lacks),
    ]
    builds = f"{'floatllm-build wheel' if plan.portable else INSTALL} with the same options builds this."
    if _last_fix_installs(lacks):
        builds = "The same options behind `install` there build this."
    return Screen(
        state="missing" if lacks else "ready",
        verdict=Section(title=title, rows=tuple(rows)),
        sections=tuple(section for section in (_rejected(plan),) if section.rows),
        hint=builds,
    )


def command_line(argv: tuple[str, ...]) -> str:
    """For a shell, with the folders' symbols as they are: `~` would mean nothing behind a `=`."""
    return " ".join(
        word if shlex.quote(plain := word.replace("{", "").replace("}", "")) == plain else shlex.quote(word)
        for word in argv
    )


def _engine(engine: Engine) -> tuple[Row, ...]:
    """What is installed, and what `install` would make of it."""
    known = (
        f"floatllm {engine.version}",
        f"preset {engine.preset}" if engine.preset else "its manifest cannot be read",
        f"proven on {engine.device}" if engine.preset else "",
        *engine.plugins,
    )
    there = Row(label="there is", parts=tuple(part for part in known if part), tone="strong")
    if engine.current:
        same = "install would build the same, so there is nothing to do"
        return (there, Row(label="current", parts=(same,)))
    if engine.changes:
        return (there, *(Row(label="changes", parts=(change,)) for change in engine.changes))
    return (there,)


def _builds(host: Host, plan: Plan, lacks: tuple[Lack, ...], command: str) -> tuple[Row, ...]:
    name = device_name(host, plan)
    device = f"{name} ({plan.device})" if name and plan.backend != "cpu" else name or plan.device
    cost = (
        count(plan.jobs, "job"),
        f"about {size(plan.memory_peak)} of memory at the peak" if plan.memory_peak > 0 else "",
        f"{size(plan.disk)} of disk" if plan.disk else "",
        f"at most {size(sum(one.size for one in plan.downloads))} to download" if plan.downloads else "",
    )
    return (
        Row(label="builds", parts=(f"preset {plan.preset} for {device}",), tone="strong"),
        *_becauses(plan, most=_MOST_REASONS),
        *((Row(label="takes", parts=tuple(part for part in cost if part)),) if command else ()),
        *_missing(tuple(replace(lack, fix=_with_options(lack.fix, command)) for lack in lacks)),
        *(
            ()
            if _last_fix_installs(lacks)
            else (Row(label="then run" if lacks else "run", parts=(command,), tone="command"),)
            if command
            else ()
        ),
    )


def _last_fix_installs(lacks: tuple[Lack, ...]) -> bool:
    return bool(lacks) and bool(_INSTALLS.search(lacks[-1].fix))


def _with_options(fix: str, command: str) -> str:
    """A fix that installs, made to build what `command` does; it names an environment of its own."""
    options = re.sub(r" --python ('[^']*'|\S+)", "", command.removeprefix(INSTALL))
    return _INSTALLS.sub(lambda words: f"{words[0]}{options}", fix)


def _becauses(plan: Plan, most: int) -> tuple[Row, ...]:
    texts = [tilde(reason.text) for reason in plan.reasons if reason.rule not in _TOLD_ELSEWHERE]
    more = len(texts) - most
    if more > 0:
        texts = [*texts[:most], f"and {count(more, 'more reason')}: detect --why"]
    return tuple(Row(label="because", parts=(text,)) for text in texts)


def _missing(lacks: tuple[Lack, ...]) -> tuple[Row, ...]:
    return tuple(
        Row(
            label="missing",
            parts=(f"{tilde(lack.what)}: {tilde(lack.why)}",),
            tone="missing",
            fix=tilde(lack.fix),
        )
        for lack in lacks
    )


def _problem(problem: str) -> tuple[Row, ...]:
    lines = [line for line in tilde(problem).splitlines() if line.strip()] or ["no reason was given"]
    return tuple(Row(label="because", parts=(line,)) for line in lines)


def _rejected(plan: Plan) -> Section:
    rows = (
        Row(label=no.backend, parts=(tilde(no.reason),), tone="rejected", fix=tilde(no.fix))
        for no in plan.rejections
    )
    return Section(title="Not used", each="rejected", rows=tuple(rows))


def _rules(reasons: tuple[Reason, ...]) -> Section:
    rows = (Row(label=reason.rule, parts=(tilde(reason.text),)) for reason in reasons)
    return Section(title="Rules that decided", each="rule", rows=tuple(rows))


def _hint(host: Host) -> str:
    notes = f", and {count(len(host.notes), 'note')} of the probes" if host.notes else ""
    return f"floatllm-build detect --why shows each rule and source{notes}."


def _rung(plan: Plan) -> str:
    return (
        f"planned with {size(plan.memory_rung)} or more"
        if plan.memory_rung > 0
        else "how much is free is unknown"
    )


def _downloads(plan: Plan) -> tuple[str, ...]:
    if not plan.downloads:
        return ("nothing",)
    each = tuple(f"{one.what} {size(one.size)}" for one in plan.downloads)
    total = size(sum(one.size for one in plan.downloads))
    return (*each, f"{total} in all where the cache is empty")
