"""What each test needs, told by markers: most follow from the fixtures that it asks for.

The quick set is what needs nothing but Python; `ci` is what only .ci/run has the time for.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

MARKERS = {
    *("quick", "build", "network", "compiler", "programs", "group", "mount", "emulator", "slow", "ci"),
}

# Fixture -> what a test needs that asks for it.
_OF_FIXTURES = {
    "tool_env": ("network",),
    "engine_env": ("build", "network"),
    "engine": ("build",),
    "portable_wheel": ("build", "network", "ci"),
    "for_vulkan": ("build", "programs", "ci"),
    "smollm": ("network",),
    "gemma": ("network",),
    "group": ("group", "compiler"),
    "phone": ("programs", "network", "slow"),
}
# Fixture -> group: its tests run one after another, because they change what they share. The first counts,
# and is begun first.
_GROUPS = {
    "portable_wheel": "portable",
    "packing_env": "packing",
    "place": "place",
    "tool_env": "the tool",
}
_ENGINES = {"engine_env", "packing_env", "place", "phone"}
_QUICK = "quick"
# A file of which every test needs the engine, or a compiler, need not be read for the quick set.
_NEVER_QUICK = re.compile(
    r"^pytestmark\b[^#]*?\bmark\.(?:build|programs|compiler|network|slow|ci)\b", re.MULTILINE
)
_NEEDS_AN_ENGINE = re.compile(r'engine: Installed|usefixtures\("engine"\)')


@cache
def never_quick(path: Path) -> bool:
    """Whether the file, by its text, has nothing for the quick set."""
    text = path.read_text(encoding="utf-8")
    return bool(_NEVER_QUICK.search(text.partition("\ndef ")[0]) or _NEEDS_AN_ENGINE.search(text))


def for_quick_alone(config: pytest.Config) -> bool:
    return str(config.option.markexpr).strip() == _QUICK


def left_to_ci(config: pytest.Config) -> bool:
    """Whether what takes minutes is left out. CI runs it, and so does who names a file, a test, or `ci`."""
    if os.environ.get("CI") == "true" or "ci" in re.findall(r"\w+", str(config.option.markexpr)):
        return False
    return not all(".py" in argument for argument in config.args)


def mark(item: pytest.Item) -> None:
    """Says by markers what the test needs, and who may run it at the same time as others."""
    fixtures = set(getattr(item, "fixturenames", ()))
    for fixture in fixtures & _OF_FIXTURES.keys():
        for needed in _OF_FIXTURES[fixture]:
            item.add_marker(needed)
    needs = {one.name for one in item.iter_markers()} & MARKERS
    if not needs and not never_quick(item.path):
        item.add_marker(_QUICK)
    if not item.get_closest_marker("xdist_group"):
        shared = [group for fixture, group in _GROUPS.items() if {fixture, "tool_env"} <= fixtures]
        # The engine's tests run what is installed, and change nothing.
        alone = item.path.parent.name == "native" and shared[:1] == ["the tool"]
        item.add_marker(pytest.mark.xdist_group(item.path.stem if alone or not shared else shared[0]))


def runs_an_engine(item: pytest.Item) -> bool:
    """On one CPU, if others are busy."""
    if item.get_closest_marker("cpus"):
        return False
    fixtures = set(getattr(item, "fixturenames", ()))
    return item.path.parent.name == "native" or bool(fixtures & _ENGINES)


def group_of(item: pytest.Item) -> str:
    """What one worker runs, in order."""
    group = item.get_closest_marker("xdist_group")
    return str(group.args[0]) if group else item.path.stem


def order(item: pytest.Item) -> int:
    """What takes longest first: whole builds."""
    groups = [*_GROUPS.values()]
    return groups.index(group_of(item)) if group_of(item) in groups else len(groups)
