"""What of the user's settings of pip the children of this tool heed.

Where packages come from, and how that is reached, is the user's to say. Where they go, which ones, and how
strictly they are looked at is the task's: a setting for it (PIP_USER, PIP_TARGET, PIP_REQUIRE_HASHES, a
constraint) breaks an installation of ours, or leads it elsewhere. Of settings in variables and files alike, a
pip that fetches gets the first kind, as variables, and nothing of the second.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from floatllm_build.errors import MissingError
from floatllm_build.system import Variables

# Names of pip's options, as its files have them (pip 26.3, `pip download --help`). By use-feature and
# use-deprecated pip is told how to trust a certificate.
_ABOUT_THE_INDEX = frozenset(
    (
        *("index-url", "pypi-url", "extra-index-url", "no-index", "find-links", "trusted-host"),
        *("cert", "client-cert", "proxy", "keyring-provider", "use-feature", "use-deprecated"),
        *("timeout", "default-timeout", "retries", "resume-retries", "cache-dir", "no-cache-dir"),
    )
)
_SAME = {"pypi-url": "index-url", "default-timeout": "timeout"}
_PATHS = frozenset(("cert", "client-cert", "cache-dir"))
_LISTS = frozenset(("extra-index-url", "find-links", "trusted-host", "use-feature", "use-deprecated"))
_PLACES = frozenset(("find-links", "index-url", "extra-index-url"))
_OFF = frozenset(("n", "no", "f", "false", "off", "0"))
_PIP = "PIP_"


@dataclass(frozen=True)
class Setting:
    """One that a child heeds. `source`: PIP_NO_INDEX, or "no-index in /etc/pip.conf"."""

    name: str
    value: str
    source: str


@dataclass(frozen=True)
class Section:
    """A section of one of pip's files."""

    file: str
    name: str
    options: Mapping[str, str]


def index_settings(
    command: str, environment: Mapping[str, str], sections: Iterable[Section]
) -> tuple[Setting, ...]:
    """What says where pip's `command` gets packages from; `sections` as `pip_sections` has them."""
    found: dict[str, Setting] = {}
    for kind in ("global", command):
        for section in sections:
            for name, value in section.options.items() if section.name == kind else ():
                _take(found, name, value, f"{option_name(name)} in {section.file}")
    for variable, value in environment.items():
        if variable.startswith(_PIP):
            _take(found, variable.removeprefix(_PIP), value, variable)
    return tuple(found.values())


def _take(found: dict[str, Setting], name: str, value: str, source: str) -> None:
    name = option_name(name)
    # Pip passes over empty values as well.
    if name in _ABOUT_THE_INDEX and value:
        name = _SAME.get(name, name)
        found[name] = Setting(name, _whole(name, value), source)


def option_name(name: str) -> str:
    """As pip spells an option, whatever its user wrote."""
    return name.lower().replace("_", "-").removeprefix("--")


def _whole(name: str, value: str) -> str:
    if name in _LISTS:
        return " ".join(placed(word) if name in _PLACES else word for word in value.split())
    return placed(value) if name in _PATHS | _PLACES else value


def placed(text: str) -> str:
    """A path, if it is one, for a child that starts in another folder: it counts from the user's."""
    if ":" in text[2:] or text.startswith("~") or Path(text).is_absolute():
        return text
    try:
        path = Path.cwd() / text
        return str(path) if path.exists() else text
    except OSError:
        return text


def for_pip(environment: Mapping[str, str], settings: Iterable[Setting]) -> Variables:
    """Changes to the environment of a pip that heeds these settings, and no other."""
    given = {_PIP + setting.name.upper().replace("-", "_"): setting.value for setting in settings}
    return {**without(environment, _PIP), "PIP_CONFIG_FILE": os.devnull, **given}


def pip_sections(environment: Mapping[str, str], prefix: str, *, lenient: bool = False) -> list[Section]:
    """The sections of all of pip's files for the Python at `prefix`, the later ones the stronger.

    Raises MissingError for a file that pip could not read either, if not `lenient`.
    """
    found: list[Section] = []
    for path in _pip_files(environment, prefix):
        try:
            found += _read(path)
        except MissingError:  # noqa: PERF203  each file by itself
            if not lenient:
                raise
    return found


def _pip_files(environment: Mapping[str, str], prefix: str) -> list[Path]:
    """By pip's own rules: pip/_internal/configuration.py, the same in 23.0 and 26.3."""
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    windows, mac = sys.platform == "win32", sys.platform == "darwin"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  Path's own raises for an unknown user
    name = "pip.ini" if windows else "pip.conf"
    own = Path(platformdirs.user_config_dir("pip", appauthor=False, roaming=True))
    if mac:
        everybodys = [Path("/Library/Application Support/pip")]
        # Path.is_dir() raises for a home that this user may not look into.
        own = own if os.path.isdir(own) else home / ".config" / "pip"  # noqa: PTH112
    elif windows:
        everybodys = [Path(platformdirs.site_config_dir("pip", appauthor=False))]
    else:
        # Of a list of folders in XDG_CONFIG_DIRS.
        listed = platformdirs.site_config_dir("pip", appauthor=False, multipath=True)
        everybodys = [*map(Path, listed.split(os.pathsep)), Path("/etc")]
    # Path.exists() raises for a folder that this user may not look into; pip's own question does not.
    there = chosen is not None and os.path.exists(chosen)  # noqa: PTH110
    users = [] if there else [home / ("pip" if windows else ".pip"), own]
    files = [folder / name for folder in (*everybodys, *users, Path(prefix))]
    return [*files, *([Path(chosen)] if chosen else [])]


def _read(path: Path) -> list[Section]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path)
    except (configparser.Error, UnicodeDecodeError) as error:
        raise MissingError(f"Pip's settings in {path} cannot be read: {error}. Mend that file.") from error
    return [Section(str(path), name, dict(parser.items(name))) for name in parser.sections()]


def advice(settings: Iterable[Setting]) -> str:
    """Sentences for an error, each with a space behind it. They name settings, for values may be secrets."""
    given = {setting.name: setting for setting in settings}
    words = ""
    if asks_no_index(given.values()):
        words = (
            f"{given['no-index'].source} keeps pip from asking a package index. Remove that setting, or put "
            "what is needed into a folder that find-links names. "
        )
    if given:
        sources = ", ".join(setting.source for setting in given.values())
        words += f"Pip used your settings: {sources}. "
    return words


def asks_no_index(settings: Iterable[Setting]) -> bool:
    return any(one.name == "no-index" and one.value.lower() not in _OFF for one in settings)


def without(environment: Mapping[str, str], prefix: str, kept: frozenset[str] = frozenset()) -> Variables:
    """Takes away the variables with this prefix but for those in `kept`."""
    return {name: None for name in environment if name.startswith(prefix) and name not in kept}
