"""The options of all commands: their names, their variables, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from floatllm_build.errors import UsageFaultError
from floatllm_build.settings import parse_jobs
from floatllm_build.values import Backend

# Groups of commands.
BUILD, KEEP, PACK = "Build and prove", "Maintain and troubleshoot", "Package wheels"
# Groups of options.
_WHAT, _COST, _WHERE, SHOW = "What is built", "What building may take", "Where", "What is shown"

EXIT_CODES = (
    "Exit codes: 0 done, 1 a fault of this tool itself, 2 usage, 3 something is missing (with the fix), "
    "4 the build failed, 5 built but not proven, 6 the source could not be fetched or verified. "
    "An option wins over its variable."
)


def _jobs(text: str) -> int:
    """In words of ours, behind those that name the option and its variable."""
    try:
        return parse_jobs(text)
    except UsageFaultError as error:
        raise typer.BadParameter(str(error)) from error


BackendOption = Annotated[
    Backend | None,
    typer.Option(
        envvar="FLOATLLM_BACKEND",
        metavar="NAME",
        help="Build this backend, or fail: metal, cuda, hip, vulkan, cpu. Default: the best that works here.",
        rich_help_panel=_WHAT,
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_PRESET",
        metavar="NAME",
        help="Build this preset; `presets` lists them. Default: the one for the backend and the memory.",
        rich_help_panel=_WHAT,
    ),
]
LowMemOption = Annotated[
    bool,
    typer.Option(
        "--low-mem",
        envvar="FLOATLLM_LOW_MEM",
        help="Use the low-memory recipe. Default: only if memory is short.",
        rich_help_panel=_WHAT,
    ),
]
PortableOption = Annotated[
    bool,
    typer.Option(
        "--portable",
        envvar="FLOATLLM_PORTABLE",
        help="For any machine of the platform. Default: for this one.",
        rich_help_panel=_WHAT,
    ),
]
ArchitecturesOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_ARCHITECTURES",
        metavar="LIST",
        help="Compile for these GPUs: 86,90 or gfx1100. Default: for those found.",
        rich_help_panel=_WHAT,
    ),
]
GgmlOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FLOATLLM_GGML_DIR",
        metavar="FOLDER",
        help="A llama.cpp source folder of your own. Default: the pinned one, fetched and verified.",
        rich_help_panel=_WHAT,
    ),
]
VariantsOption = Annotated[
    bool,
    typer.Option(
        "--variants",
        envvar="FLOATLLM_VARIANTS",
        help="Experimental (PEP 817): a portable wheel, and beside it one for each plugin, with their index.",
        rich_help_panel=_WHAT,
    ),
]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_MEMORY",
        metavar="SIZE",
        help="Memory the build may use: 512M, 2GiB. Default: what is free.",
        rich_help_panel=_COST,
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        parser=_jobs,
        envvar="FLOATLLM_JOBS",
        metavar="N",
        help="Compile this many units at once. Default: as many as CPUs and memory hold.",
        rich_help_panel=_COST,
    ),
]
PythonOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_PYTHON",
        metavar="PATH",
        help="The Python of the environment that is meant. Default: the active one, else this tool's.",
        rich_help_panel=_WHERE,
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER",
        help="Folder for the wheel. Default: this one.",
        show_default=False,
        rich_help_panel=_WHERE,
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The file to write; it must not be there yet. Default: floatllm-report-TIME.zip here.",
        rich_help_panel=_WHERE,
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FLOATLLM_TRACE",
        metavar="FILE",
        help="Write the build's timeline here; Perfetto opens it. Default: nowhere.",
        rich_help_panel=_WHERE,
    ),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_ONLY",
        metavar="IDS",
        help="Only the wheels with these ids, comma between. Default: all.",
        rich_help_panel=SHOW,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        envvar="FLOATLLM_DEVICE",
        metavar="NAME",
        help="Only this one, by ggml's name: CUDA1. Default: its own, and every other GPU.",
        rich_help_panel=_WHERE,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print JSON on stdout, and nothing else there.", rich_help_panel=SHOW),
]
WhyOption = Annotated[
    bool, typer.Option("--why", help="Show each rule, each source and each note.", rich_help_panel=SHOW)
]
SaveOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Record this machine's answers in a file.", rich_help_panel=_WHERE),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="FILE", help="Read the machine from a recorded host.", rich_help_panel=_WHERE
    ),
]
OperationsOption = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="Show all that the proof says, and list its operations.", rich_help_panel=SHOW
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="Show all that the proof says, tensor by tensor.", rich_help_panel=SHOW
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be deleted.", rich_help_panel=SHOW)
]
