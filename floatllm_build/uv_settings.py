"""What of the user's settings of uv the children of this tool heed: as pip_settings has it for pip.

Uv reads files in the folder that it starts in and in all above it, so it gets no file at all: what the user's
own say about the index becomes variables.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from floatllm_build.errors import MissingError
from floatllm_build.pip_settings import placed, without
from floatllm_build.system import Variables

# uv 0.13, `uv pip install --help`; and names and passwords for the indexes.
_ABOUT_THE_INDEX = re.compile(
    "UV_(INDEX|DEFAULT_INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|INDEX_STRATEGY|KEYRING_PROVIDER|NATIVE_TLS"
    "|SYSTEM_CERTS|INSECURE_HOST|HTTP_TIMEOUT|REQUEST_TIMEOUT|HTTP_CONNECT_TIMEOUT|HTTP_RETRIES|OFFLINE"
    "|NO_NETRC|CREDENTIALS_DIR|CACHE_DIR|NO_CACHE|INDEX_.+_(USERNAME|PASSWORD))"
)
_CACHE = ("UV_CACHE_DIR", "UV_NO_CACHE")
_UV = "UV_"
# Key in a file -> the variable, and what stands between the items of a list there.
_VARIABLES = {
    "index-url": ("UV_INDEX_URL", ""),
    "extra-index-url": ("UV_EXTRA_INDEX_URL", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "index-strategy": ("UV_INDEX_STRATEGY", ""),
    "keyring-provider": ("UV_KEYRING_PROVIDER", ""),
    "native-tls": ("UV_NATIVE_TLS", ""),
    "system-certs": ("UV_SYSTEM_CERTS", ""),
    "allow-insecure-host": ("UV_INSECURE_HOST", " "),
    "offline": ("UV_OFFLINE", ""),
    "cache-dir": ("UV_CACHE_DIR", ""),
}
_LISTS = {"UV_INDEX": " ", **{variable: between for variable, between in _VARIABLES.values() if between}}


def for_local_wheels(environment: Mapping[str, str]) -> Variables:
    """Changes to the environment of a uv that asks no index: its cache alone may be the user's."""
    kept = {name: placed(environment[name]) for name in _CACHE if environment.get(name)}
    return {**without(environment, _UV), **kept, "UV_NO_CONFIG": "1"}


def for_fetching(environment: Mapping[str, str], files: Iterable[Mapping[str, Any]]) -> Variables:
    """Changes to the environment of a uv that fetches; `files` as `uv_files` has them."""
    given = {
        name: placed(value)
        for name, value in environment.items()
        if value and _ABOUT_THE_INDEX.fullmatch(name)
    }
    found: dict[str, str] = {}
    strongest = [*files][::-1]
    # What any file has in [pip] is stronger than what any has outside of it.
    for table in (*(file.get("pip") for file in strongest), *strongest):
        found = _combined(found, _from_file(table) if isinstance(table, Mapping) else {})
    if "UV_INDEX_URL" in given:
        # The variable is stronger than any file. Beside UV_DEFAULT_INDEX it would not count.
        found.pop("UV_DEFAULT_INDEX", None)
    given = _combined(given, found)
    return {**without(environment, _UV), **given, "UV_NO_CONFIG": "1"}


def _combined(stronger: Mapping[str, str], weaker: Mapping[str, str]) -> dict[str, str]:
    """As uv does it: of one setting the stronger value counts, and of a list both, the stronger first."""
    both = {
        name: f"{stronger[name]}{between}{weaker[name]}"
        for name, between in _LISTS.items()
        if name in stronger and name in weaker
    }
    return {**weaker, **stronger, **both}


def _from_file(table: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, (variable, between) in _VARIABLES.items():
        value = table.get(key)
        if isinstance(value, list) and between:
            found[variable] = between.join(map(str, value))
        elif isinstance(value, bool | str):
            found[variable] = value if isinstance(value, str) else str(value).lower()
    more: list[str] = []
    listed = table.get("index")
    for index in listed if isinstance(listed, list) else ():
        # One that is explicit serves packages that name it.
        if not isinstance(index, Mapping) or not index.get("url") or index.get("explicit"):
            continue
        named = f"{index['name']}={index['url']}" if index.get("name") else str(index["url"])
        if index.get("default"):
            found["UV_DEFAULT_INDEX"] = named
        else:
            more.append(named)
    return found | ({"UV_INDEX": " ".join(more)} if more else {})


def uv_files(environment: Mapping[str, str], *, lenient: bool = False) -> list[dict[str, Any]]:
    """The user's own settings, the later the stronger.

    Raises MissingError for a file that is no TOML, if not `lenient`.
    """
    chosen = environment.get("UV_CONFIG_FILE")
    found: list[dict[str, Any]] = []
    for path in [Path(chosen)] if chosen else _own_files(environment):
        try:
            # Path.is_file() raises for a home that this user may not look into.
            found += [_read(path)] if os.path.isfile(path) else []  # noqa: PTH113
        except (MissingError, OSError):  # noqa: PERF203  each file by itself
            if not lenient:
                raise
    return found


def _own_files(environment: Mapping[str, str]) -> list[Path]:
    """By uv's rules: one of the machine, then the user's."""
    if sys.platform == "win32":
        machines, own = [environment.get("PROGRAMDATA", "")], environment.get("APPDATA", "")
    else:
        home = os.path.expanduser("~")  # noqa: PTH111  Path's own raises for an unknown user
        shared = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
        machines, own = [*shared, "/etc"], environment.get("XDG_CONFIG_HOME") or f"{home}/.config"
    files = [Path(folder) / "uv" / "uv.toml" for folder in machines if folder]
    machine = [path for path in files if os.path.isfile(path)][:1]  # noqa: PTH113  as above
    return [*machine, *([Path(own) / "uv" / "uv.toml"] if own else [])]


def _read(path: Path) -> dict[str, Any]:
    # Before Python 3.11 it is a package, which scikit-build-core brings.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        read: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MissingError(f"Uv's settings in {path} cannot be read: {error}. Mend that file.") from error
    return read
