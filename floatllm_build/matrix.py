"""Presets in, the wheels that CI makes out. Pure.

A wheel is a preset on a platform. The engine itself, `floatllm`, is a wheel of every platform; a plugin adds
a backend's library to it.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.presets import Preset
from floatllm_build.values import Backend

BASE = "floatllm"
# What the variants of a wheel differ in.
FEATURE = "backend"
_AGAIN = "They come with floatllm-build: install it again."


@dataclass(frozen=True, kw_only=True)
class WheelRow:
    """One wheel, and how CI makes it; strings are empty where there is nothing to say."""

    id: str
    base: str
    """The row whose wheel it needs to run: its own, but for plugins."""
    distribution: str
    backend: Backend
    preset: str
    platform: str
    runner: str
    """GitHub's label."""
    identifier: str
    """Of the one CPython that cibuildwheel builds it with: the wheel serves every Python."""
    image: str
    """Container with its digest; on Linux alone."""
    environment: str
    """Of the build, as a shell takes it: NAME=VALUE, space between."""
    prepare: str
    """Command that brings what the image lacks."""
    tag: str
    """Platform tag that its file name must have."""
    proof: Literal["cpu", "device", "none"]
    """What it is proven on before it leaves; with `none` it does not leave."""
    state: Literal["runs", "builds", "untried"]
    """What has been watched of it."""

    @property
    def experimental(self) -> bool:
        """Whether the others leave without it where it fails."""
        return self.state == "untried"

    def row(self) -> dict[str, Any]:
        """As `matrix --json` prints it."""
        return {**asdict(self), "experimental": self.experimental}


def make_matrix(
    presets: Mapping[str, Preset], platforms: Mapping[str, Mapping[str, Any]]
) -> tuple[WheelRow, ...]:
    """All wheels, in the order of the presets. Raises MissingError where they contradict each other."""
    try:
        rows = [
            _row(preset, platform, platforms[platform])
            for preset in presets.values()
            for platform in preset.wheels.get("platforms", ())
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise MissingError(f"What the presets say of wheels is damaged ({error!r}). {_AGAIN}") from error
    bases = {row.platform: row.id for row in rows if row.distribution == BASE}
    return tuple(_with_base(row, bases) for row in rows)


def excluded(presets: Mapping[str, Preset]) -> dict[str, str]:
    """Presets for wheels of which CI makes none, with the reason."""
    reasons = {name: preset.wheels.get("excluded") for name, preset in presets.items()}
    return {name: str(reason) for name, reason in reasons.items() if reason}


def plugins(rows: tuple[WheelRow, ...], tag: str = "") -> dict[Backend, str]:
    """The distribution that adds each backend to the engine, on any platform or on that of a wheel's tag."""
    return {
        row.backend: row.distribution
        for row in rows
        if row.distribution != BASE and (not tag or _system(row.tag) == _system(tag))
    }


def choose(rows: tuple[WheelRow, ...], only: tuple[str, ...]) -> tuple[WheelRow, ...]:
    """The rows with these ids, or all where none is named. Raises UsageFaultError."""
    known = {row.id: row for row in rows}
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f" Did you mean `{near[0]}`?" if near else ""
            raise UsageFaultError(f"There is no wheel `{name}`.{meant} There are: {', '.join(known)}.")
    return tuple(row for row in rows if row.id in only) if only else rows


def _system(tag: str) -> str:
    """What is left of a platform tag without versions; of several tags at once they are the same."""
    return re.sub(r"_\d+(?=_)", "", tag.partition(".")[0]).removeprefix("many")


def _row(preset: Preset, platform: str, facts: Mapping[str, Any]) -> WheelRow:
    wheels = preset.wheels
    family = platform.partition("-")[0]
    plugin = preset.plugin
    # Portable in so many words: then it is no obstacle that CI has no GPU.
    variables = {"FLOATLLM_PRESET": preset.name, "FLOATLLM_PORTABLE": "1", **facts.get("environment", {})}
    return WheelRow(
        id=f"{preset.backend}-{platform}",
        base="",
        distribution=f"{BASE}-{plugin}" if plugin else BASE,
        backend=preset.backend,
        preset=preset.name,
        platform=platform,
        runner=facts["runner"],
        identifier=facts["identifier"],
        image=facts.get("image", ""),
        environment=" ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
        prepare=wheels.get("prepare", {}).get(family, ""),
        tag=facts["tag"],
        proof=wheels["proof"],
        state=wheels["platforms"][platform],
    )


def _with_base(row: WheelRow, bases: Mapping[str, str]) -> WheelRow:
    if row.platform not in bases:
        raise MissingError(
            f"The presets make {row.distribution} for {row.platform}, but no {BASE} that it adds to. {_AGAIN}"
        )
    return replace(row, base=bases[row.platform])
