"""Commands for afterwards: the report, the way out, the caches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from floatllm_build import flow
from floatllm_build.cli.options import DryRunOption, PythonOption, ReportOption
from floatllm_build.errors import UsageFaultError
from floatllm_build.render.progress import listening
from floatllm_build.settings import request_of, settings_for_pip
from floatllm_build.streams import write_paths
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem, Recorder
from floatllm_build.values import Engine, Request, to_json

_SECONDS = 30.0


def fetch() -> None:
    """Fetches the pinned ggml now, for building offline later."""
    with listening() as tell:
        source = flow.fetch_ggml(LiveSystem(), tell)
    write_paths([source.folder])


def clean(*, dry_run: DryRunOption = False) -> None:
    """Deletes everything that this tool keeps: sources, toolkits, build folders, wheels, errors.

    Engines that are installed keep working: nothing of theirs lies there.
    """
    with listening() as tell:
        done = flow.clean(tell, only_look=dry_run)
    from floatllm_build.render import show  # noqa: PLC0415

    show.cleaned(done, only_looked=dry_run)


def uninstall(*, python: PythonOption = None) -> None:
    """Removes the engine and its plugins from the active (or named) environment; says what stays."""
    with listening() as tell:
        done = flow.remove_engine(LiveSystem(), python, tell)
    from floatllm_build.render import show  # noqa: PLC0415

    show.removed(done)


def report(*, out: ReportOption = None, python: PythonOption = None) -> None:
    """Writes one file that tells a failure to others: machine, plan, versions, last errors and logs.

    Names, home folders, addresses, passwords and tokens are taken out. Read it before you send it.
    """
    from floatllm_build.flow.report import make_report  # noqa: PLC0415  no other command needs it
    from floatllm_build.scrub import Scrubber  # noqa: PLC0415

    symbols = Symbols.of_this_user()
    door = Door(LiveSystem(), symbols, _SECONDS)
    asked = python or os.environ.get("FLOATLLM_PYTHON")

    def machine() -> tuple[str, Mapping[str, Any], Engine | None]:
        recorder = Recorder(door)
        request, problem = _request(recorder)
        found = flow.detect(recorder, request, asked, symbols)
        host, plan = symbols.show_in(found.host), symbols.show_in(found.plan)
        told = {
            "plan": to_json(found.plan) if found.plan else None,
            "missing": [vars(lack) for lack in found.lacks],
            "problem": "\n".join(filter(None, (problem, found.problem))) or None,
        }
        return recorder.text(), told, flow.engine_of(LiveSystem(), host, plan)

    with listening() as tell:
        made = make_report(
            LiveSystem(), Scrubber.of_this_user(os.environ, symbols), machine, asked, out, tell
        )
    from floatllm_build.render import show  # noqa: PLC0415

    show.reported(made)


def _request(recorder: Recorder) -> tuple[Request, str]:
    """What the variables ask for, or nothing and why they make no sense."""
    try:
        return request_of(recorder, settings_for_pip({}, os.environ)), ""
    except UsageFaultError as error:
        return Request(), str(error)
