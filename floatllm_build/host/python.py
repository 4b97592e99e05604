"""The Python that runs us, and the environment that the engine goes into."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any, Literal

from floatllm_build.errors import MissingError
from floatllm_build.system import System
from floatllm_build.values import PythonFacts, Target

# Runs in the target, which may be any Python 3: plain code, one line of JSON.
_ASK = """
import glob, json, os, site, struct, sys, sysconfig
try:
    import pip
    has_pip = True
except Exception:
    has_pip = False
folders = [sysconfig.get_path("platlib")]
if sys.prefix == sys.base_prefix:
    # Where pip goes when the common folder cannot be written.
    folders.append(site.getusersitepackages())
found = [d for f in folders for d in glob.glob(os.path.join(glob.escape(f), "floatllm-*.dist-info"))]
print(json.dumps({
    "executable": sys.executable, "version": list(sys.version_info[:2]), "bits": struct.calcsize("P") * 8,
    "platform": sysconfig.get_platform(), "prefix": sys.prefix, "venv": sys.prefix != sys.base_prefix,
    "conda": os.path.isdir(os.path.join(sys.prefix, "conda-meta")),
    "managed": os.path.isfile(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")),
    "pipx": os.path.isfile(os.path.join(sys.prefix, "pipx_metadata.json")),
    "uv_tool": os.path.isfile(os.path.join(sys.prefix, "uv-receipt.toml")),
    "pip": has_pip,
    "installed": (found or [""])[0],
}))
"""


def probe_python(system: System) -> PythonFacts:
    identity = system.native("identity") or {}
    return PythonFacts(
        executable=str(identity.get("executable", "")),
        version=str(identity.get("version", "")),
        platform=str(identity.get("platform", "")),
    )


def probe_target(system: System, explicit: str | None) -> Target:
    """The environment by the rule of DESIGN.md: `--python`, else the active one, else our own.

    Raises MissingError where that Python does not answer.
    """
    python, chosen_by = _choose(system, explicit)
    answer = system.run((python, "-I", "-c", _ASK), timeout=30.0)
    try:
        facts: dict[str, Any] = json.loads(answer.out)
    except ValueError as error:
        said = (answer.err.strip() or answer.out.strip())[-300:] or f"exit {answer.rc}"
        raise MissingError(
            f"The Python to install into, {python} (from {chosen_by}), does not answer: {said}. "
            "Name a working one with --python."
        ) from error
    major, minor = facts["version"]
    return Target(
        executable=facts["executable"],
        version=(major, minor),
        platform=facts["platform"],
        bits=facts["bits"],
        prefix=facts["prefix"],
        chosen_by=chosen_by,
        kind=_kind(facts),
        externally_managed=facts["managed"] and not facts["venv"],
        has_pip=facts["pip"],
        installed=facts["installed"],
    )


def _choose(system: System, explicit: str | None) -> tuple[str, str]:
    if explicit:
        return explicit, "--python"
    windows = (system.native("identity") or {}).get("system") == "Windows"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = system.getenv(variable)
        if prefix:
            folder = {"VIRTUAL_ENV": "Scripts", "CONDA_PREFIX": ""}[variable] if windows else "bin"
            return str(PurePath(prefix) / folder / ("python.exe" if windows else "python")), variable
    return probe_python(system).executable, "the running Python"


def _kind(facts: dict[str, Any]) -> Literal["venv", "conda", "system", "pipx", "uv-tool", "uvx"]:
    parts = PurePath(facts["prefix"]).parts
    if facts["pipx"]:
        return "pipx"
    if facts["uv_tool"]:
        return "uv-tool"
    # uvx builds its environments inside uv's own cache.
    if any(part.startswith(("archive-v", "environments-v", "builds-v")) for part in parts):
        return "uvx"
    if facts["venv"]:
        return "venv"
    return "conda" if facts["conda"] else "system"
