"""Tables and progress. The only module that knows a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from floatllm_build.events import Event, Hint, Listener, Said, StepDone, StepStarted, UnitProgress
from floatllm_build.presets import Preset
from floatllm_build.sizes import show_size
from floatllm_build.values import Host, Installed, Lack, Plan

_STEP = 10


def _console(*, stderr: bool) -> Console:
    # Without a terminal rich would cut lines to 80 columns; a log wants them whole.
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 10_000, highlight=False, soft_wrap=True)


def show_error(message: str) -> None:
    _console(stderr=True).print(f"[bold red]floatllm-build:[/] {escape(message)}")


@contextmanager
def listening() -> Iterator[Listener]:
    """Shows events on stderr while the block runs: a live bar on a terminal, plain lines elsewhere."""
    console = _console(stderr=True)
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
                self.console.print(line, markup=False)
            case Hint(text):
                self.console.print(escape(text))
            case UnitProgress(done, total, current, seconds):
                self.progress(done, total, current, seconds)

    def line(self, step: str, detail: str) -> None:
        self.console.print(f"[bold]{step:<8}[/] {escape(detail)}")

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
        self.bar.update(self.task, completed=done, total=total, count=f"{done}/{total}", current=current)

    def close(self) -> None:
        self.bar.stop()


# ---- results on stdout ------------------------------------------------------------------------


def show_installed(result: Installed) -> None:
    what = "is there already; nothing to do" if result.unchanged else "is installed and proven"
    console = _console(stderr=True)
    where = escape(f"{result.target.prefix} [{result.seconds:.1f} s]")
    console.print(f"[bold green]floatllm[/] ({result.plan.backend}) {what}: {where}")


def show_presets(presets: Mapping[str, Preset]) -> None:
    console = _console(stderr=False)
    wide = max(len(name) for name in presets)
    for preset in presets.values():
        jobs = "1 job" if preset.jobs == 1 else f"{preset.jobs} jobs"
        console.print(f"[bold]{preset.name:<{wide}}[/]  {preset.backend:<6}  {jobs:<6}  {preset.description}")


def show_host(host: Host, plan: Plan | None, *, why: bool) -> None:
    console = _console(stderr=False)
    if plan:
        console.print(f"[bold green]{plan.preset}[/] is what would be built: {escape(plan.reasons[0].text)}")
    for name, value in _facts(host).items():
        console.print(f"[bold]{name:<9}[/] {escape(value)}")
    if plan and why:
        _show_reasons(console, plan)
    for note in host.notes:
        console.print(f"[yellow]note[/] {escape(note.source)}: {escape(note.said)}")


def _facts(host: Host) -> dict[str, str]:
    chain = host.toolchain
    cpus = f"{host.cpu.usable} of {host.cpu.logical} CPUs usable"
    return {
        "system": f"{host.os.name} {host.os.release} {host.os.machine} {host.os.libc}",
        "python": f"{host.python.version} ({host.python.platform})",
        "cpu": f"{host.cpu.name or host.cpu.arch}, {cpus}",
        "memory": f"{show_size(host.memory.room)} free, bound by {host.memory.binding}",
        "compiler": f"{chain.cxx.command} is {chain.cxx.kind} {chain.cxx.version}" if chain.cxx else "none",
        "cmake": f"{chain.cmake.version} ({chain.cmake.path})"
        if chain.cmake
        else "none; its wheel is fetched",
        "ninja": f"{chain.ninja.version} ({chain.ninja.path})"
        if chain.ninja
        else "none; its wheel is fetched",
        "gpu": ", ".join(_gpus(host)) or "none found",
    }


def _gpus(host: Host) -> list[str]:
    names = [f"{device.name} (CUDA {device.capability})" for device in host.cuda.devices]
    names += [f"{name} (Vulkan)" for name in host.vulkan.devices]
    names += [f"{name} (Metal)" for name in host.metal.devices]
    return names + [f"{name} (HIP)" for name in host.hip.targets]


def _show_reasons(console: Console, plan: Plan) -> None:
    for reason in plan.reasons:
        console.print(f"[green]rule[/] {reason.rule}: {escape(reason.text)}")
    for no in plan.rejections:
        console.print(f"[red]not[/]  {no.backend}: {escape(no.reason)}. To get it: {escape(no.fix)}")


def show_plan(plan: Plan, lacks: tuple[Lack, ...]) -> None:
    console = _console(stderr=False)
    console.print(f"[bold]preset[/]  {plan.preset} ({plan.backend} on {plan.device})")
    console.print(f"[bold]cmake[/]   {escape(' '.join(plan.cmake))}")
    memory = f"{show_size(plan.memory_per_job)} each at most, {show_size(plan.memory_rung)} free"
    console.print(f"[bold]jobs[/]    {plan.jobs} ({memory})")
    _show_reasons(console, plan)
    for lack in lacks:
        console.print(
            f"[red]missing[/] {escape(lack.what)}: {escape(lack.why)}. To get it: {escape(lack.fix)}"
        )
