"""What a user may ask for: the names, and how their texts become a request.

The one home for both ways in: the command line and pip (`-C floatllm.NAME=VALUE`, native/_backend.py).
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from floatllm_build.errors import UsageFaultError
from floatllm_build.files import check_folder, ordinary
from floatllm_build.sizes import parse_size
from floatllm_build.system import System
from floatllm_build.values import BACKENDS, Backend, Request

# As `floatllm-build wheel` has them; the variable of `low-mem` is FLOATLLM_LOW_MEM.
NAMES = ("backend", "preset", "low-mem", "portable", "memory", "jobs", "architectures", "ggml-dir", "trace")
_PIP_PREFIX = "floatllm."
_VARIABLE_PREFIX = "FLOATLLM_"
_SWITCH = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}
_SWITCHES = {"low-mem", "portable"}
# How much alike two variables are of which one is a slip: others of that prefix have readers of their own.
_ALIKE = 0.8
# The first words of scikit-build-core's own settings.
_PACKER = {"skbuild", "cmake", "ninja", "build", "build-dir", "install", "editable", "wheel", "sdist"}


def make_request(
    system: System,
    backend: Backend | None,
    preset: str | None,
    memory: str | None,
    jobs: int | None,
    architectures: str | None,
    *,
    low_mem: bool,
    portable: bool = False,
) -> Request:
    """Raises UsageFaultError for a text that makes no sense."""
    return Request(
        backend=backend,
        preset=preset,
        low_mem=low_mem,
        portable=portable,
        memory=parse_size(memory) if memory else None,
        jobs=jobs,
        architectures=tuple(architectures.replace(",", " ").replace(";", " ").split())
        if architectures
        else (),
        cmake_args=_cmake_args(system.getenv("CMAKE_ARGS") or ""),
    )


def _cmake_args(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UsageFaultError(f"CMAKE_ARGS cannot be read ({error}): `{text}`. Close its quotes.") from error


def trace_file(path: Path | None) -> Path | None:
    """Checked at once: the build may take hours. Raises UsageFaultError, and as `check_folder`."""
    if not path:
        return None
    target = ordinary(path, "The timeline cannot be written")
    check_folder(target.parent, f"The timeline cannot be written to {path}", "Name another file.")
    return target


# ---- as pip gives them --------------------------------------------------------------------------


def settings_for_pip(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Texts by name: of `-C floatllm.NAME=VALUE`, else of the variable FLOATLLM_NAME where that has any.

    Raises UsageFaultError for a name that nobody knows, with the one that was meant.
    """
    check_variables(environment)
    variables = {variable(name): name for name in NAMES}
    settings = {name: environment[found] for found, name in variables.items() if environment.get(found)}
    for key, value in given.items():
        name = _name(key)
        settings[name] = _one(key, value, may_be_empty=name in _SWITCHES)
    return settings


def check_variables(environment: Mapping[str, str]) -> None:
    """Raises UsageFaultError for a slip in a variable's name, which would ask for nothing without a word."""
    ends = {variable(name).removeprefix(_VARIABLE_PREFIX): variable(name) for name in NAMES}
    for found in environment:
        if found.startswith(_VARIABLE_PREFIX) and found not in ends.values():
            meant = difflib.get_close_matches(found.removeprefix(_VARIABLE_PREFIX), ends, 1, _ALIKE)
            if meant:
                raise UsageFaultError(f"There is no variable {found}. Did you mean {ends[meant[0]]}?")


def variable(name: str) -> str:
    return f"{_VARIABLE_PREFIX}{name.upper().replace('-', '_')}"


def _name(key: str) -> str:
    known = {f"{_PIP_PREFIX}{name}": name for name in NAMES}
    # As the variables write them.
    name = known.get(key.replace("_", "-"))
    if name:
        return name
    if key.partition(".")[0] in _PACKER:
        raise UsageFaultError(
            f"{key} is a setting of scikit-build-core, which here only packs what was planned and built. "
            f"Options for cmake go into CMAKE_ARGS='-DNAME=VALUE'. What can be set: {', '.join(known)}."
        )
    raise UsageFaultError(
        f"There is no setting {key}.{did_you_mean(key.removeprefix(_PIP_PREFIX), NAMES, _PIP_PREFIX)}"
    )


def _one(key: str, value: object, *, may_be_empty: bool) -> str:
    if not isinstance(value, str):
        raise UsageFaultError(f"{key} is given more than once. Give it once.")
    if not (value or may_be_empty):
        raise UsageFaultError(f"{key} has no value. Give it one, or leave it out.")
    return value


def did_you_mean(word: str, known: Sequence[str], prefix: str = "") -> str:
    """A sentence with the known word that was meant, else with all of them; `prefix` before each."""
    close = difflib.get_close_matches(word, known, 1)
    if close:
        return f" Did you mean {prefix}{close[0]}?"
    return f" There are: {', '.join(prefix + one for one in known)}."


def request_of(system: System, settings: Mapping[str, str]) -> Request:
    """The request that texts by name make. Raises UsageFaultError for a text that makes no sense."""
    return make_request(
        system,
        _backend(settings["backend"]) if "backend" in settings else None,
        settings.get("preset"),
        settings.get("memory"),
        parse_jobs(settings["jobs"]) if "jobs" in settings else None,
        settings.get("architectures"),
        low_mem=_switch(settings, "low-mem"),
        portable=_switch(settings, "portable"),
    )


def _backend(text: str) -> Backend:
    for backend in BACKENDS:
        if text == backend:
            return backend
    raise UsageFaultError(f"There is no backend `{text}`.{did_you_mean(text, BACKENDS)}")


def parse_jobs(text: str) -> int:
    """Raises UsageFaultError for what is no number of jobs."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10_000):
        raise UsageFaultError(f"`{text}` is no number of jobs. Write one from 1 on.")
    return int(text)


def _switch(settings: Mapping[str, str], name: str) -> bool:
    # `python -m build -C floatllm.low-mem` gives no text at all.
    text = settings.get(name, "off").strip().lower() or "on"
    if text not in _SWITCH:
        raise UsageFaultError(f"{name} is on or off, not `{text}`.")
    return _SWITCH[text]


_OPTION = re.compile(
    rf"(?<!cmake )--(?P<name>{'|'.join(NAMES)})(?![\w-])"
    rf"(?: (?P<value>{'|'.join(BACKENDS)}|wheel-[a-z0-9]+|gfx[0-9a-f]+|[0-9]+|[A-Z]+|ggml-source)(?![\w]))?"
)
# Not with --python: pip installs into the environment that it runs in.
_COMMAND = re.compile(
    rf"floatllm-build install(?! --python)(?P<options>(?: {_OPTION.pattern})*)".replace(
        "(?P<name>", "(?:"
    ).replace("(?P<value>", "(?:")
)


def in_pips_words(message: str) -> str:
    """A message for whoever came by pip: variables, which every pip passes on, for the tool's own options."""
    said = _COMMAND.sub(_pips_command, message)
    return _OPTION.sub(_pips_option, said)


def _pips_command(found: re.Match[str]) -> str:
    """Variables stand before the command that they are for."""
    given = [_pips_option(option) for option in _OPTION.finditer(found["options"])]
    return " ".join((*given, "pip install ./native"))


def _pips_option(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"] or ("on" if found["name"] in _SWITCHES else "")
    if value == "ggml-source":
        value = f"$PWD/{value}"  # pip works in another folder than its user
    return variable(name) + (f"={value}" if value else "")


def path_of(settings: Mapping[str, str], name: str) -> Path | None:
    """Raises UsageFaultError for a path that is not whole: pip works in another folder than its user."""
    text = settings.get(name)
    if not text:
        return None
    path = Path(os.path.expanduser(text))  # noqa: PTH111  Path's own raises for an unknown user
    if not path.is_absolute():
        raise UsageFaultError(f"{name} is `{text}`, and pip does not say where from. Give the whole path.")
    return path
