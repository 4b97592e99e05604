"""Commands: parse, call the flow, show. No logic."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from floatllm_build import __version__, flow
from floatllm_build.cli import upkeep
from floatllm_build.cli.options import (
    BUILD,
    EXIT_CODES,
    KEEP,
    PACK,
    ArchitecturesOption,
    BackendOption,
    DeviceOption,
    FromOption,
    GgmlOption,
    JobsOption,
    JsonOption,
    LowMemOption,
    MemoryOption,
    OnlyOption,
    OperationsOption,
    OutOption,
    PortableOption,
    PresetOption,
    PythonOption,
    SaveOption,
    TraceOption,
    VariantsOption,
    VerboseOption,
    WhyOption,
)
from floatllm_build.errors import FAULT, FloatllmBuildError, MissingError, UsageFaultError, refused, unwritten
from floatllm_build.files import check_folder, ordinary, write_whole
from floatllm_build.interrupts import INTERRUPTED, mind_interrupts, say_interrupted
from floatllm_build.paths import cache_dir
from floatllm_build.render.progress import listening
from floatllm_build.settings import check_variables, make_request, trace_file
from floatllm_build.streams import READER_LEFT, Streams, reader_left, write_paths
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem, Recorder, Replay, System
from floatllm_build.values import SCHEMA_VERSION, Request, to_json

app = typer.Typer(
    help="Builds the FloatLLM engine for this machine, proves it and installs it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# How long a person waits for an answer, a driver that hangs included; a build can wait for a slow phone.
_DETECT_SECONDS = 4.0
_INSTALL_SECONDS = 30.0
_PYTHON = "FLOATLLM_PYTHON"


def _door(seconds: float) -> Door:
    return Door(LiveSystem(), Symbols.of_this_user(), seconds)


def _system(record: Path | None, python: str | None) -> System:
    if record:
        return Replay.load(record)
    if python:
        # As good as the option, and a record holds it.
        os.environ[_PYTHON] = python
    return _door(_DETECT_SECONDS)


def _asked_python(system: System, record: Path | None, python: str | None) -> str | None:
    """The Python that is meant, as `system` spells it; a record knows the one that it was made for."""
    return python if record and python else system.getenv(_PYTHON)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _requested(*options: Any, **switches: Any) -> Request:
    check_variables(os.environ)
    return make_request(*options, **switches)


@app.command(rich_help_panel=BUILD, epilog=EXIT_CODES)
def detect(
    *,
    as_json: JsonOption = False,
    why: WhyOption = False,
    save: SaveOption = None,
    record: FromOption = None,
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    architectures: ArchitecturesOption = None,
    python: PythonOption = None,
) -> None:
    """Shows what this machine has and what would be built on it."""
    saved = _place_of_record(save) if save else None
    system = _system(record, python)
    recorder = Recorder(system)
    request = _requested(recorder, backend, preset, memory, jobs, architectures, low_mem=low_mem)
    symbols = system.symbols if isinstance(system, Door) else None
    found = flow.detect(recorder, request, _asked_python(recorder, record, python), symbols)
    host = found.host
    if symbols:
        # What a record does not hold: the files there, and what they would become.
        engine = flow.engine_of(LiveSystem(), symbols.show_in(host), symbols.show_in(found.plan))
        host = replace(host, engine=engine)
    if save and saved:
        _save(save, saved, recorder.text())
    if as_json:
        _print_json(
            {
                **to_json(host),
                "plan": to_json(found.plan) if found.plan else None,
                "missing": [vars(lack) for lack in found.lacks],
                "problem": found.problem or None,
            }
        )
    else:
        from floatllm_build.render import show  # noqa: PLC0415  rich takes its time

        command = shlex.join(_install_command(request, memory, python))
        show.detect(host, found.plan, found.problem, found.lacks, why=why, command=command)
    if found.problem and (request.backend or request.preset or request.architectures):
        # Whoever asked for something gets the status that `install` would end with.
        raise typer.Exit(MissingError.exit_code)


def _install_command(request: Request, memory: str | None, python: str | None) -> list[str]:
    """The command that builds what was asked about."""
    options: dict[str, object] = {
        "--backend": request.backend,
        "--preset": request.preset,
        "--memory": memory,
        "--jobs": request.jobs,
        "--architectures": ",".join(request.architectures),
        "--python": python,
    }
    words = [word for name, value in options.items() if value for word in (name, str(value))]
    return ["floatllm-build", "install", *words, *(["--low-mem"] if request.low_mem else [])]


def _place_of_record(path: Path) -> Path:
    place = ordinary(path, "The host cannot be saved")
    check_folder(place.parent, f"The host cannot be saved to {path}", "Name another file with --save.")
    return place


def _save(path: Path, place: Path, text: str) -> None:
    try:
        write_whole(place, text.encode(), shared=True)
    except OSError as error:
        raise MissingError(
            f"The host cannot be saved to {path}: {error.strerror}. Name another file."
        ) from error
    sys.stderr.write(
        f"floatllm-build: this machine's answers are in {path}; look through them before sharing\n"
    )


@app.command(rich_help_panel=BUILD, epilog=EXIT_CODES)
def plan(
    *,
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    portable: PortableOption = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    architectures: ArchitecturesOption = None,
    python: PythonOption = None,
    record: FromOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what `install` would build, and why."""
    system = _system(record, python)
    request = _requested(
        system, backend, preset, memory, jobs, architectures, low_mem=low_mem, portable=portable
    )
    made, lacks = flow.plan(system, request, _asked_python(system, record, python))
    if as_json:
        _print_json({**to_json(made), "missing": [vars(lack) for lack in lacks]})
        return
    from floatllm_build.render import show  # noqa: PLC0415  rich takes its time

    show.plan(made, lacks)


@app.command(rich_help_panel=BUILD, epilog=EXIT_CODES)
def install(
    *,
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    architectures: ArchitecturesOption = None,
    ggml_dir: GgmlOption = None,
    python: PythonOption = None,
    trace: TraceOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Builds the engine, proves it and installs it into the active (or named) environment."""
    door = _door(_INSTALL_SECONDS)
    request = _requested(door, backend, preset, memory, jobs, architectures, low_mem=low_mem)
    with listening(verbose=verbose) as tell:
        wish = flow.Wish(request=request, ggml_dir=ggml_dir, python=python, trace=trace_file(trace))
        result = flow.install_engine(door, wish, tell)
    from floatllm_build.render import show  # noqa: PLC0415

    show.installed(result)


for _command in (upkeep.report, upkeep.uninstall, upkeep.clean):
    app.command(rich_help_panel=KEEP, epilog=EXIT_CODES)(_command)


@app.command(rich_help_panel=PACK, epilog=EXIT_CODES)
def wheel(
    *,
    out: OutOption = Path(),
    backend: BackendOption = None,
    preset: PresetOption = None,
    low_mem: LowMemOption = False,
    portable: PortableOption = False,
    memory: MemoryOption = None,
    jobs: JobsOption = None,
    architectures: ArchitecturesOption = None,
    ggml_dir: GgmlOption = None,
    trace: TraceOption = None,
    variants: VariantsOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Builds and proves the engine's wheel, with a plugin's where one is needed, into a folder."""
    if variants:
        flow.check_variants()
    out.absolute()  # in a folder that is gone it raises, now and not once the wheel is built
    if out.exists() and not out.is_dir():
        raise UsageFaultError(f"{out} is not a folder. Name one with --out.")
    # Now, and not once minutes of compiling are over.
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = UsageFaultError if isinstance(error, NotADirectoryError) else MissingError
        raise kind(f"{out} cannot be made: {error.strerror}. Name another with --out.") from error
    check_folder(out, "The wheel cannot be written", "Name another with --out.")
    door = _door(_INSTALL_SECONDS)
    portable = portable or variants
    request = _requested(
        door, backend, preset, memory, jobs, architectures, low_mem=low_mem, portable=portable
    )
    with listening(verbose=verbose) as tell:
        wish = flow.Wish(request=request, ggml_dir=ggml_dir, trace=trace_file(trace))
        made = flow.make_wheels(door, wish, out, tell)
        beside = flow.make_variants(Path(made[0].path), tell) if variants else ()
    write_paths([*(one.path for one in made), *map(str, beside)])


@app.command(rich_help_panel=BUILD, epilog=EXIT_CODES)
def verify(
    *,
    python: PythonOption = None,
    device: DeviceOption = None,
    verbose: OperationsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Proves again what is installed, on each GPU that it sees."""
    with listening(verbose=verbose) as tell:
        found = flow.verify_installed(LiveSystem(), python, device, tell)
    if as_json:
        _print_json(to_json(found))
        return
    from floatllm_build.render import show  # noqa: PLC0415

    show.verified(found, verbose=verbose)


@app.command(rich_help_panel=PACK, epilog=EXIT_CODES)
def presets(*, as_json: JsonOption = False) -> None:
    """Lists what can be built."""
    table = flow.presets()
    if as_json:
        rows = [preset.row() for preset in table.values()]
        _print_json({"schema_version": SCHEMA_VERSION, "presets": rows})
        return
    from floatllm_build.render import show  # noqa: PLC0415  rich takes its time

    show.presets(table)


@app.command(rich_help_panel=PACK, epilog=EXIT_CODES)
def matrix(*, only: OnlyOption = None, as_json: JsonOption = False) -> None:
    """Lists the wheels that CI makes of the presets."""
    rows = flow.wheel_matrix(tuple((only or "").replace(",", " ").split()))
    if as_json:
        _print_json({"schema_version": SCHEMA_VERSION, "include": [row.row() for row in rows]})
        return
    from floatllm_build.render import show  # noqa: PLC0415  rich takes its time

    show.matrix(rows)


app.command(rich_help_panel=PACK, epilog=EXIT_CODES)(upkeep.fetch)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"floatllm-build {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and leave.",
        ),
    ] = False,
) -> None:
    """Builds the FloatLLM engine for this machine, proves it and installs it."""


def main() -> None:
    """The console script: errors become a message and their exit code."""
    streams = Streams()
    mind_interrupts()
    if sys.argv[1:2] == ["help"]:  # as git and pip have it
        sys.argv[1:] = [*sys.argv[2:], "--help"] if sys.argv[2:3] != ["help"] else ["--help"]
    status = _run()
    lost = streams.close()
    if lost and reader_left(lost):
        status = READER_LEFT
    elif lost and not status:
        status = _told(lost, MissingError.exit_code, str(unwritten(lost)))
    sys.exit(status)


def _run() -> int:
    try:
        app()
    except FloatllmBuildError as error:
        return _told(error, error.exit_code, str(error), log=error.log)
    except OSError as error:
        return _told(error, MissingError.exit_code, str(refused(error)))
    except SystemExit as leaving:
        # So typer ends; on Ctrl-C without a word.
        if leaving.code == INTERRUPTED:
            say_interrupted()
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except Exception as error:  # noqa: BLE001  a fault of ours is told as well, and not by a traceback
        return _told(error, FAULT, "", traced=True)
    return 0


def _told(error: Exception, status: int, message: str, *, log: str = "", traced: bool = False) -> int:
    """Shows an error, and keeps it for `report`; returns the status."""
    # Nobody waits for these where nothing fails.
    from floatllm_build.render import show  # noqa: PLC0415
    from floatllm_build.troubles import REPORT, REPORTED, keep_trouble, trouble_of  # noqa: PLC0415

    kept = None
    if status != UsageFaultError.exit_code:
        argv = ("floatllm-build", *sys.argv[1:])
        trouble = trouble_of(error, status, argv, os.environ, message=message, log=log, traced=traced)
        kept = keep_trouble(cache_dir(), trouble)
    if traced:
        where = f"Where it happened stands in {kept}" if kept else "\n".join(trouble.trace)
        message = f"This is a fault of the tool, not yours: {trouble.kind}: {trouble.message}\n{where}"
    told = status in REPORTED
    show.error(f"{message}\n{REPORT}" if told else message)
    return status
