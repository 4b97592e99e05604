"""The Python that runs us, and the environment that the engine goes into."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from floatllm_build.errors import MissingError
from floatllm_build.host.findings import Findings
from floatllm_build.host.os_facts import identity_of
from floatllm_build.system import System
from floatllm_build.values import PythonFacts, Target

_TEXTS = ("executable", "platform", "prefix", "installed")
_ANSWERS = ("venv", "conda", "managed", "pipx", "uv_tool", "uv", "pip")
# A phone may start its first Python slowly.
_TIMEOUT = 30.0


def probe_python(system: System, findings: Findings) -> PythonFacts:
    identity = identity_of(system)
    findings.source("python", "the running Python")
    return PythonFacts(
        executable=identity.get("executable", ""),
        version=identity.get("version", ""),
        platform=identity.get("platform", ""),
    )


def find_target(system: System, explicit: str | None, findings: Findings) -> Target | None:
    """As probe_target(), but a Python that does not answer is noted."""
    python, chosen_by = _choose(system, explicit)
    found = _ask(system, python, chosen_by)
    if isinstance(found, Target):
        findings.source("target", f"{python} ({chosen_by})")
        return found
    findings.note(f"{python or 'no Python'} ({chosen_by})", found)
    return None


def probe_target(system: System, explicit: str | None) -> Target:
    """The environment by the rule of DESIGN.md: `--python`, else the active one, else our own.

    Raises MissingError where that Python does not answer.
    """
    python, chosen_by = _choose(system, explicit)
    found = _ask(system, python, chosen_by)
    if isinstance(found, Target):
        return found
    raise MissingError(
        f"The Python to install into, {python or 'which is unknown'} (from {chosen_by}), does not answer: "
        f"{found}. Name a working one with --python."
    )


def _choose(system: System, explicit: str | None) -> tuple[str, str]:
    if explicit:
        return explicit, "--python"
    identity = identity_of(system)
    windows = identity.get("system") == "Windows"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = system.getenv(variable)
        if prefix:
            folder = {"VIRTUAL_ENV": "Scripts", "CONDA_PREFIX": ""}[variable] if windows else "bin"
            path: PurePath = PureWindowsPath(prefix) if windows else PurePosixPath(prefix)
            return str(path / folder / ("python.exe" if windows else "python")), variable
    return identity.get("executable", ""), "the running Python"


def _ask(system: System, python: str, chosen_by: str) -> Target | str:
    """The target, or in words why there is none."""
    if not python:
        return "the running Python does not know its own path"
    answer = system.ask("target", python, timeout=_TIMEOUT)
    # An environment may print things of its own when it starts and when it ends.
    last = next((line for line in reversed(answer.out.splitlines()) if line.startswith('{"')), "")
    try:
        facts: Any = json.loads(last) if answer.rc == 0 else None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        said = (answer.err.strip() or answer.out.strip())[-300:]
        if answer.rc == 127 and system.glob(f"{glob.escape(python)}/"):
            return "it is a folder, and not the Python in it"
        if answer.rc == 0:
            return f"it is no Python; it said: {said}" if said else "it is no Python"
        return said or f"exit {answer.rc}"
    return _target(facts, chosen_by) or f"its answer makes no sense: {last[:200]}"


def _target(facts: Mapping[str, Any], chosen_by: str) -> Target | None:
    """None where the answer, which may come from a hand-made record, has not the shape of one."""
    texts = [facts.get(name) for name in _TEXTS]
    version, bits = facts.get("version"), facts.get("bits")
    if not all(isinstance(text, str) for text in texts) or not texts[0]:
        return None
    if not all(isinstance(facts.get(name), bool) for name in _ANSWERS) or not _small(bits):
        return None
    if not (isinstance(version, list) and len(version) == 2 and all(map(_small, version))):
        return None
    return Target(
        executable=facts["executable"],
        version=(version[0], version[1]),
        platform=facts["platform"],
        bits=facts["bits"],
        prefix=facts["prefix"],
        chosen_by=chosen_by,
        kind=_kind(facts),
        externally_managed=facts["managed"] and not facts["venv"],
        has_pip=facts["pip"],
        installed=facts["installed"],
    )


def _small(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000


def _kind(facts: Mapping[str, Any]) -> Literal["venv", "conda", "system", "pipx", "uv-tool", "uvx"]:
    if facts["pipx"]:
        return "pipx"
    if facts["uv_tool"]:
        return "uv-tool"
    # uvx and `uv run --with` build their environments inside uv's own cache.
    parts = facts["prefix"].replace("\\", "/").split("/")
    if facts["uv"] and any(part.startswith(("archive-v", "environments-v", "builds-v")) for part in parts):
        return "uvx"
    if facts["venv"]:
        return "venv"
    return "conda" if facts["conda"] else "system"
