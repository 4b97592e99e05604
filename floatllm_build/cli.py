"""Commands: parse, call the flow, show. No logic."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from floatllm_build import __version__, flow
from floatllm_build.errors import FloatllmBuildError, MissingError, UsageFaultError, refused
from floatllm_build.files import ordinary, write_whole
from floatllm_build.interrupts import INTERRUPTED, mind_interrupts
from floatllm_build.settings import make_request, trace_file
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem, Recorder, Replay, System
from floatllm_build.values import SCHEMA_VERSION, Backend, Request, to_json

app = typer.Typer(
    help="Builds the FloatLLM engine for this machine, proves it and installs it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# How long a person waits for an answer, a driver that hangs included; a build can wait for a slow phone.
_DETECT_SECONDS = 4.0
_INSTALL_SECONDS = 30.0
_PYTHON = "FLOATLLM_PYTHON"

BackendOption = Annotated[
    Backend | None, typer.Option(envvar="FLOATLLM_BACKEND", help="Build this backend, or fail.")
]
PresetOption = Annotated[
    str | None, typer.Option(envvar="FLOATLLM_PRESET", help="Build this preset; see `presets`.")
]
LowMemOption = Annotated[
    bool, typer.Option("--low-mem", envvar="FLOATLLM_LOW_MEM", help="Use the low-memory recipe.")
]
PortableOption = Annotated[
    bool, typer.Option("--portable", envvar="FLOATLLM_PORTABLE", help="For any machine of the platform.")
]
MemoryOption = Annotated[
    str | None, typer.Option(envvar="FLOATLLM_MEMORY", help="Memory the build may use: 512M, 2GiB.")
]
JobsOption = Annotated[
    int | None, typer.Option(min=1, envvar="FLOATLLM_JOBS", help="Compile this many units at once.")
]
ArchitecturesOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_ARCHITECTURES",
        help="Compile for these GPUs instead of those found: 86,90 or gfx1100.",
    ),
]
GgmlOption = Annotated[
    Path | None, typer.Option(envvar="FLOATLLM_GGML_DIR", help="A ggml source folder of your own.")
]
PythonOption = Annotated[
    str | None, typer.Option(envvar="FLOATLLM_PYTHON", help="The Python of the environment that is meant.")
]
TraceOption = Annotated[
    Path | None,
    typer.Option(envvar="FLOATLLM_TRACE", help="Write the build's timeline here; Perfetto opens it."),
]
VariantsOption = Annotated[
    bool,
    typer.Option(
        "--variants",
        envvar="FLOATLLM_VARIANTS",
        help="Experimental (PEP 817): a portable wheel, and beside it one for each plugin, with their index.",
    ),
]
OnlyOption = Annotated[
    str | None, typer.Option(envvar="FLOATLLM_ONLY", help="Only the wheels with these ids, comma between.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
FromOption = Annotated[Path | None, typer.Option("--from", help="Read the machine from a recorded host.")]


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


@app.command()
def detect(
    *,
    as_json: JsonOption = False,
    why: Annotated[bool, typer.Option("--why", help="Show each rule, each source and each note.")] = False,
    save: Annotated[Path | None, typer.Option(help="Record this machine's answers in a file.")] = None,
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
    recorder = Recorder(_system(record, python))
    request = make_request(recorder, backend, preset, memory, jobs, architectures, low_mem=low_mem)
    found = flow.detect(recorder, request, _asked_python(recorder, record, python))
    if save:
        _save(save, recorder.text())
    if as_json:
        _print_json(
            {
                **to_json(found.host),
                "plan": to_json(found.plan) if found.plan else None,
                "missing": [vars(lack) for lack in found.lacks],
                "problem": found.problem or None,
            }
        )
    else:
        from floatllm_build import render  # noqa: PLC0415  rich takes its time, and JSON needs none of it

        command = shlex.join(_install_command(request, memory, python))
        render.show_detect(found.host, found.plan, found.problem, found.lacks, why=why, command=command)
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


def _save(path: Path, text: str) -> None:
    target = ordinary(path, "The host cannot be saved")
    try:
        write_whole(target, text.encode())
    except OSError as error:
        raise UsageFaultError(
            f"The host cannot be saved to {path}: {error.strerror}. Name another file."
        ) from error
    sys.stderr.write(
        f"floatllm-build: this machine's answers are in {path}; look through them before sharing\n"
    )


@app.command()
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
    request = make_request(
        system, backend, preset, memory, jobs, architectures, low_mem=low_mem, portable=portable
    )
    made, lacks = flow.plan(system, request, _asked_python(system, record, python))
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
    architectures: ArchitecturesOption = None,
    ggml_dir: GgmlOption = None,
    python: PythonOption = None,
    trace: TraceOption = None,
) -> None:
    """Builds the engine, proves it and installs it into the active (or named) environment."""
    from floatllm_build import render  # noqa: PLC0415

    door = _door(_INSTALL_SECONDS)
    request = make_request(door, backend, preset, memory, jobs, architectures, low_mem=low_mem)
    with render.listening() as tell:
        wish = flow.Wish(request=request, ggml_dir=ggml_dir, python=python, trace=trace_file(trace))
        result = flow.install_engine(door, wish, tell)
    render.show_installed(result)


@app.command()
def wheel(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the wheel.")] = Path(),
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
) -> None:
    """Builds and proves the engine's wheel, with a plugin's where one is needed, into a folder."""
    from floatllm_build import render  # noqa: PLC0415

    if variants:
        flow.check_variants()
    out.absolute()  # in a folder that is gone it raises, now and not once the wheel is built
    if out.exists() and not out.is_dir():
        raise UsageFaultError(f"{out} is not a folder. Name one with --out.")
    try:
        # Now, and not once minutes of compiling are over.
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageFaultError(f"{out} cannot be made: {error.strerror}. Name another with --out.") from error
    door = _door(_INSTALL_SECONDS)
    portable = portable or variants
    request = make_request(
        door, backend, preset, memory, jobs, architectures, low_mem=low_mem, portable=portable
    )
    with render.listening() as tell:
        wish = flow.Wish(request=request, ggml_dir=ggml_dir, trace=trace_file(trace))
        made = flow.make_wheels(door, wish, out, tell)
        beside = flow.make_variants(Path(made[0].path), tell) if variants else ()
    paths = (*(one.path for one in made), *beside)
    sys.stdout.write("".join(f"{path}\n" for path in paths))


@app.command()
def verify(
    *,
    python: PythonOption = None,
    device: Annotated[
        str | None, typer.Option(envvar="FLOATLLM_DEVICE", help="Only this one, by ggml's name: CUDA1.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="List the operations.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Proves again what is installed, on each GPU that it sees."""
    from floatllm_build import render  # noqa: PLC0415

    with render.listening() as tell:
        found = flow.verify_installed(LiveSystem(), python, device, tell)
    if as_json:
        _print_json(to_json(found))
        return
    render.show_verified(found, verbose=verbose)


@app.command()
def presets(*, as_json: JsonOption = False) -> None:
    """Lists what can be built."""
    table = flow.presets()
    if as_json:
        rows = [preset.row() for preset in table.values()]
        _print_json({"schema_version": SCHEMA_VERSION, "presets": rows})
        return
    from floatllm_build import render  # noqa: PLC0415

    render.show_presets(table)


@app.command()
def matrix(*, only: OnlyOption = None, as_json: JsonOption = False) -> None:
    """Lists the wheels that CI makes of the presets."""
    rows = flow.wheel_matrix(tuple((only or "").replace(",", " ").split()))
    if as_json:
        _print_json({"schema_version": SCHEMA_VERSION, "include": [row.row() for row in rows]})
        return
    from floatllm_build import render  # noqa: PLC0415

    render.show_matrix(rows)


@app.command()
def fetch() -> None:
    """Fetches the pinned ggml now, for building offline later."""
    from floatllm_build import render  # noqa: PLC0415

    with render.listening() as tell:
        source = flow.fetch_ggml(LiveSystem(), tell)
    sys.stdout.write(f"{source.folder}\n")


@app.command()
def clean() -> None:
    """Deletes everything that this tool keeps: sources, toolkits, build folders, wheels."""
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
    # Whoever closed them does not want to read.
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    mind_interrupts()
    try:
        app()
    except FloatllmBuildError as error:
        from floatllm_build import render  # noqa: PLC0415

        render.show_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        from floatllm_build import render  # noqa: PLC0415

        render.show_error(str(refused(error)))
        sys.exit(MissingError.exit_code)
    except SystemExit as leaving:
        # So typer ends on Ctrl-C, without a word.
        if leaving.code == INTERRUPTED:
            with suppress(OSError):  # the terminal may be gone
                sys.stderr.write("floatllm-build: interrupted. Run it again to go on where it stopped.\n")
        raise
