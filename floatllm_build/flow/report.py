"""The report of a failure: each part is made by itself, so that none keeps the others from being told."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from floatllm_build import __version__, report
from floatllm_build.build.key import digest, tool_digest
from floatllm_build.build.staging import digests, read_sources
from floatllm_build.errors import FloatllmBuildError
from floatllm_build.events import Listener, StepDone, StepStarted
from floatllm_build.flow.upkeep import plugin_names
from floatllm_build.ggml_source import read_pin
from floatllm_build.host import probe_target
from floatllm_build.paths import cache_dir, data_dir
from floatllm_build.pip_settings import pip_sections
from floatllm_build.scrub import Scrubber
from floatllm_build.sizes import show_size
from floatllm_build.standing import installed_key, read_json
from floatllm_build.system import System
from floatllm_build.troubles import troubles
from floatllm_build.uninstall import find_ours
from floatllm_build.upkeep import Reported
from floatllm_build.values import Engine, Target

_T = TypeVar("_T")


def make_report(
    system: System,
    scrub: Scrubber,
    host: Callable[[], tuple[str, Mapping[str, Any], Engine | None]],
    python: str | None,
    out: Path | None,
    tell: Listener,
) -> Reported:
    """Writes a report to `out`, or to a new file in the current folder.

    `host` gives the record of this machine, the plan for it as JSON, and the engine that is there. What goes
    wrong with a part stands in its place. Raises UsageFaultError for a name that cannot be that of a new
    file, and MissingError if it cannot be made.
    """
    path = report.check_free(out.absolute() if out else _new_name())
    cache = cache_dir()
    last = troubles(cache, Path(tempfile.gettempdir()))
    made: list[report.Content] = []

    def add(name: str, make: Callable[[], Iterable[report.Content]]) -> None:
        try:
            made.extend(make())
        except Exception as error:  # noqa: BLE001  a fault of the tool is what a report is for
            lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            made.append(report.text_part(f"{name}-failed.txt", "why this is missing", scrub.text(lines)))

    def machine() -> Iterator[report.Content]:
        record, plan, engine = host()
        text = json.dumps(scrub.seen_json(json.loads(record)), indent=1, sort_keys=True) + "\n"
        yield report.text_part("host.json", "the machine, as `detect --save` records it", text)
        yield report.json_part("plan.json", "what would be built, and why", scrub.seen_json(plan))
        found = _installed(system, python, engine, scrub, cache)
        yield report.json_part("installed.json", "the engine that is installed", found)

    def versions() -> Iterator[report.Content]:
        found = _versions(system, python, scrub)
        yield report.json_part("versions.json", "of the tool, Python, pip, ggml", found)

    def variables() -> Iterator[report.Content]:
        # No pip is asked: where there is none one would be fetched, and nobody holds the cache's lock.
        sections = pip_sections(os.environ, sys.prefix, lenient=True)
        found = {
            "variables": report.environment(os.environ, scrub),
            "pip": report.pip_settings(sections, scrub),
        }
        yield report.json_part("environment.json", "variables and pip's settings that matter", found)

    def errors() -> Iterator[report.Content]:
        told = [report.told(one, scrub) for one in last]
        yield report.json_part("errors.json", f"the last errors of this tool: {len(told)}", told)

    tell(StepStarted("report"))
    add("host", machine)
    add("versions", versions)
    add("environment", variables)
    add("errors", errors)
    add("logs", lambda: report.logs(cache, last, scrub))
    done = report.write_report(path, made)
    tell(StepDone("report", f"{len(made)} parts, {show_size(done.size)}"))
    return done


def _new_name() -> Path:
    stem = time.strftime("floatllm-report-%Y%m%d-%H%M%S", time.gmtime())
    names = (f"{stem}{f'-{count}' if count else ''}.zip" for count in range(1000))
    return next(path for name in names if not os.path.lexists(path := Path.cwd() / name))


def _versions(system: System, python: str | None, scrub: Scrubber) -> dict[str, Any]:
    data = data_dir()
    pin = read_pin(data)
    sources = digests(read_sources(data))
    target = _answer(lambda: probe_target(system, python))
    pip = system.run((target.executable, "-I", "-m", "pip", "--version"), timeout=30.0) if target else None
    return {
        "floatllm-build": __version__,
        "commit": report.commit_of(data),
        "tool_sha256": tool_digest(),
        "sources_sha256": digest(sources),
        "python": scrub.text(sys.version),
        "python_executable": scrub.text(sys.executable),
        "libraries": report.libraries(),
        "target_python": ".".join(map(str, target.version)) if target else "",
        "target_pip": scrub.text(pip.out.strip() or pip.err.strip()[-300:]) if pip else "",
        "uv": scrub.text(system.run((uv, "--version"), timeout=10.0).out.strip())
        if (uv := system.which("uv"))
        else "",
        "ggml": {"version": pin.version, "release": pin.release, "tree_sha256": pin.tree_sha256},
    }


def _installed(
    system: System, python: str | None, engine: Engine | None, scrub: Scrubber, cache: Path
) -> dict[str, Any]:
    target = _answer(lambda: probe_target(system, python))
    if not target or not target.installed:
        return {"target": _about(target, scrub), "engine": None}
    info = Path(target.installed)
    key = installed_key(info)
    proof = dict(read_json(cache / "wheels" / key / "proof.json")) if key else {}
    proof.pop("lines", None)
    manifest = read_json(info.parent / "floatllm" / "manifest.json")
    return {
        "target": _about(target, scrub),
        "engine": vars(engine) if engine else None,
        "key": key,
        "manifest": scrub.json(
            {name: value for name, value in manifest.items() if name not in {"files", "ggml"}}
        ),
        # Its hashes are no secrets.
        "ggml": scrub.seen_json(manifest.get("ggml")),
        "proof": scrub.json(proof),
        "packages": [f"{one.name} {one.version}" for one in find_ours(target, plugin_names())],
    }


def _about(target: Target | None, scrub: Scrubber) -> Any:
    return scrub.json(dict(vars(target))) if target else None


def _answer(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except FloatllmBuildError:
        return None
