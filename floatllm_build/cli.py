"""Commands: parse, call the flow, show. No logic."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from floatllm_build import __version__, flow
from floatllm_build.errors import FloatllmBuildError, MissingError, UsageFaultError
from floatllm_build.sizes import parse_size
from floatllm_build.system import LiveSystem, Recorder, Replay, System
from floatllm_build.values import SCHEMA_VERSION, Backend, Request, to_json

app = typer.Typer(
    help="Builds the FloatLLM engine for this machine, proves it and installs it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130

BackendOption = Annotated[Backend | None, typer.Option(help="Build this backend, or fail.")]
PresetOption = Annotated[str | None, typer.Option(help="Build this preset; see `presets`.")]
LowMemOption = Annotated[bool, typer.Option("--low-mem", help="Use the low-memory recipe.")]
MemoryOption = Annotated[str | None, typer.Option(help="Memory the build may use: 512M, 2GiB.")]
JobsOption = Annotated[int | None, typer.Option(min=1, help="Compile this many units at once.")]
GgmlOption = Annotated[Path | None, typer.Option(help="A ggml source folder of your own.")]
PythonOption = Annotated[str | None, typer.Option(help="The Python of the environment that is meant.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
FromOption = Annotated[Path | None, typer.Option("--from", help="Read the machine from a recorded host.")]


def _request(
    backend: Backend | None,
    preset: str | None,
    memory: str | None,
    jobs: int | None,
    *,
    low_mem: bool,
    portable: bool = False,
) -> Request:
    return Request(
        backend=backend,
        preset=preset,
        low_mem=low_mem,
        portable=portable,
        memory=parse_size(memory) if memory else None,
        jobs=jobs,
        cmake_args=_cmake_args(),
    )


def _cmake_args() -> tuple[str, ...]:
    text = os.environ.get("CMAKE_ARGS", "")
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageFaultError(f"CMAKE_ARGS cannot be read ({error}): `{text}`. Close its quotes.") from error


def _system(record: Path | None) -> System:
    return Replay.load(record) if record else LiveSystem()


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


@app.command()
def detect(
    *,
    as_json: JsonOption = False,
    why: Annotated[bool, typer.Option("--why", help="Show each rule and each rejected backend.")] = False,
    save: Annotated[Path | None, typer.Option(help="Record this machine's answers in a file.")] = None,
    record: FromOption = None,
) -> None:
    """Shows what this machine has and what would be built on it."""
    recorder = Recorder(_system(record))
    host = flow.detect(recorder)
    if save:
        try:
            save.write_text(recorder.text(), encoding="utf-8")
        except OSError as error:
            raise UsageFaultError(
                f"The host cannot be saved to {save}: {error.strerror}. Name another file."
            ) from error
    plan, problem = None, ""
    try:
        plan = flow.plan_for(host, Request())
    except FloatllmBuildError as error:
        problem = str(error)
    if as_json:
        _print_json({**to_json(host), "plan": to_json(plan) if plan else None, "problem": problem or None})
        return
    from floatllm_build import render  # noqa: PLC0415  rich takes its time, and JSON needs none of it

    render.show_host(host, plan, why=why)
    if problem:
        render.show_error(problem)


@app.command()
def plan(
    *,
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    portable: Annotated[bool, typer.Option("--portable", help="For any machine of the platform.")] = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    record: FromOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what `install` would build, and why."""
    request = _request(backend, preset, memory, jobs, low_mem=low_mem, portable=portable)
    _, made, lacks = flow.plan(_system(record), request)
    if as_json:
        _print_json({**to_json(made), "missing": [vars(lack) for lack in lacks]})
        return
    from floatllm_build import render  # noqa: PLC0415

    render.show_plan(made, lacks)


@app.command()
def install(
    *,
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    ggml_dir: GgmlOption = None,
    python: PythonOption = None,
) -> None:
    """Builds the engine, proves it and installs it into the active (or named) environment."""
    from floatllm_build import render  # noqa: PLC0415

    request = _request(backend, preset, memory, jobs, low_mem=low_mem)
    with render.listening() as tell:
        result = flow.install_engine(
            LiveSystem(), flow.Wish(request=request, ggml_dir=ggml_dir, python=python), tell
        )
    render.show_installed(result)


@app.command()
def wheel(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the wheel.")] = Path(),
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    portable: Annotated[bool, typer.Option("--portable", help="For any machine of the platform.")] = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    ggml_dir: GgmlOption = None,
) -> None:
    """Builds and proves the engine's wheel and writes it to a folder."""
    from floatllm_build import render  # noqa: PLC0415

    if out.exists() and not out.is_dir():
        raise UsageFaultError(f"{out} is not a folder. Name one with --out.")
    request = _request(backend, preset, memory, jobs, low_mem=low_mem, portable=portable)
    with render.listening() as tell:
        made = flow.make_wheel(LiveSystem(), flow.Wish(request=request, ggml_dir=ggml_dir), out, tell)
    sys.stdout.write(f"{made.path}\n")


@app.command()
def verify(*, python: PythonOption = None) -> None:
    """Proves again what is installed."""
    from floatllm_build import render  # noqa: PLC0415

    with render.listening() as tell:
        proof = flow.verify_installed(LiveSystem(), python, tell)
    sys.stdout.write(f"the installed engine computed on {proof.device}, and its numbers agree\n")


@app.command()
def presets(*, as_json: JsonOption = False) -> None:
    """Lists what can be built."""
    table = flow.presets()
    if as_json:
        rows = [
            {
                "name": preset.name,
                "backend": preset.backend,
                "description": preset.description,
                "portable": preset.portable,
                "low_mem": preset.low_mem,
                "jobs": preset.jobs,
                "variables": dict(preset.variables),
            }
            for preset in table.values()
        ]
        _print_json({"schema_version": SCHEMA_VERSION, "presets": rows})
        return
    from floatllm_build import render  # noqa: PLC0415

    render.show_presets(table)


@app.command()
def fetch() -> None:
    """Fetches the pinned ggml now, for building offline later."""
    from floatllm_build import render  # noqa: PLC0415

    with render.listening() as tell:
        source = flow.fetch_ggml(LiveSystem(), tell)
    sys.stdout.write(f"{source.folder}\n")


@app.command()
def clean() -> None:
    """Deletes everything that this tool keeps: sources, build folders, wheels."""
    from floatllm_build import render  # noqa: PLC0415

    with render.listening() as tell:
        folder = flow.clean(tell)
    sys.stdout.write(f"{folder} holds nothing of this tool any more\n")


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"floatllm-build {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Builds the FloatLLM engine for this machine, proves it and installs it."""


def main() -> None:
    """The console script: errors become a message and their exit code."""
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except FloatllmBuildError as error:
        from floatllm_build import render  # noqa: PLC0415

        render.show_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        from floatllm_build import render  # noqa: PLC0415

        render.show_error(
            f"The system refused: {error}. Look at free space and permissions there; "
            "FLOATLLM_CACHE_DIR names another folder to work in."
        )
        sys.exit(MissingError.exit_code)
    except SystemExit as leaving:
        # So typer ends on Ctrl-C, without a word.
        if leaving.code == _INTERRUPTED:
            sys.stderr.write("floatllm-build: interrupted. Run it again to go on where it stopped.\n")
        raise
