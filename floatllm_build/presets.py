"""Reads the CMake presets: the one table of what can be built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.values import BACKENDS, Backend

# CMake leaves what stands under `vendor` alone.
_VENDOR = "floatllm/wheels"
_AGAIN = "They come with floatllm-build: install it again."


@dataclass(frozen=True)
class Preset:
    """A public configure preset with everything it inherits."""

    name: str
    display_name: str
    description: str
    variables: Mapping[str, str]
    jobs: int
    """Of the build preset of the same name; 0 where there is none."""
    cross: bool
    """True where the result does not run on the machine that builds it."""
    wheels: Mapping[str, Any] = field(default_factory=dict)
    """Which wheels CI makes of it, or why none; matrix.py reads it."""

    @cached_property
    def backend(self) -> Backend:
        on = (name for name in BACKENDS if self.variables.get(f"GGML_{name.upper()}") == "ON")
        return next(on, "cpu")

    @property
    def portable(self) -> bool:
        return self.name.startswith("wheel-") or self.cross

    @property
    def plugin(self) -> str:
        """What its wheel adds to that of the engine: vulkan, cuda13; empty where it is the engine itself."""
        return self.variables.get("FLOATLLM_PLUGIN", "")

    @property
    def low_mem(self) -> bool:
        return self.variables.get("FLOATLLM_LOW_MEM") == "ON"

    def row(self) -> dict[str, Any]:
        """As `presets --json` prints it."""
        return {
            "name": self.name,
            "backend": self.backend,
            "description": self.description,
            "portable": self.portable,
            "plugin": self.plugin,
            "low_mem": self.low_mem,
            "jobs": self.jobs,
            "variables": dict(self.variables),
        }


def load_presets(data: Path) -> dict[str, Preset]:
    """Public presets by name, in the order of the files.

    Raises MissingError where the files are damaged.
    """
    try:
        return _load(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MissingError(f"The presets below {data} are damaged ({error!r}). {_AGAIN}") from error


def load_platforms(data: Path) -> dict[str, dict[str, Any]]:
    """What CI makes wheels on, by name. Raises MissingError where the files are damaged."""
    path = data / "presets" / "base.json"
    try:
        platforms: dict[str, dict[str, Any]] = _content(path)["vendor"][_VENDOR]["platforms"]
    except (KeyError, TypeError) as error:
        raise MissingError(f"The platforms in {path} are damaged ({error!r}). {_AGAIN}") from error
    return platforms


def _load(data: Path) -> dict[str, Preset]:
    configure: dict[str, dict[str, Any]] = {}
    build: dict[str, dict[str, Any]] = {}
    _read(data / "native" / "CMakePresets.json", configure, build, set())
    presets = {}
    for name, own in configure.items():
        if not own.get("hidden"):
            merged = _merge(name, configure, ())
            presets[name] = Preset(
                name=name,
                display_name=str(merged.get("displayName", name)),
                description=str(merged.get("description", "")),
                variables={
                    key: str(value).replace("${presetName}", name)
                    for key, value in merged.get("cacheVariables", {}).items()
                },
                jobs=int(build.get(name, {}).get("jobs", 0)),
                cross="toolchainFile" in merged,
                wheels=own.get("vendor", {}).get(_VENDOR, {}),
            )
    return presets


def find_preset(presets: Mapping[str, Preset], name: str) -> Preset:
    """Raises UsageFaultError, with the names there are."""
    if name not in presets:
        raise UsageFaultError(f"There is no preset `{name}`. There are: {', '.join(presets)}.")
    return presets[name]


def _read(
    path: Path, configure: dict[str, dict[str, Any]], build: dict[str, dict[str, Any]], seen: set[Path]
) -> None:
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    content = _content(path)
    for name in content.get("include", ()):
        _read(path.parent / name, configure, build, seen)
    configure.update({preset["name"]: preset for preset in content.get("configurePresets", ())})
    build.update({preset["configurePreset"]: preset for preset in content.get("buildPresets", ())})


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MissingError(f"The presets in {path} cannot be read: {error}. {_AGAIN}") from error


def _merge(name: str, configure: Mapping[str, dict[str, Any]], above: tuple[str, ...]) -> dict[str, Any]:
    """CMake's rule: own fields first, then of each preset in `inherits`, the earlier one winning."""
    if name not in configure or name in above:
        raise MissingError(f"The presets inherit `{name}` in a circle or do not define it. {_AGAIN}")
    merged = {key: value for key, value in configure[name].items() if key not in {"inherits", "hidden"}}
    inherits = configure[name].get("inherits", ())
    variables = dict(merged.get("cacheVariables", {}))
    for parent in (inherits,) if isinstance(inherits, str) else inherits:
        inherited = _merge(parent, configure, (*above, name))
        variables = {**inherited.get("cacheVariables", {}), **variables}
        merged = {**inherited, **merged}
    merged["cacheVariables"] = variables
    return merged
