"""Brings the engine's sources into a build folder by content.

The compiler then sees one path whatever environment the tool lives in, a read-only installation is no
hindrance, and a file whose content did not change keeps its time stamp and is not compiled again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.files import write_whole

_DEPENDENCIES = re.compile(rb"^dependencies = (\[.*\])$", re.MULTILINE)
_PARTS = ("native", "presets", "ggml")
# What a checkout has for its tests. No wheel is made of it, and the installed tool does not carry it: without
# it the same sources have the same key in both.
_FOR_TESTS = ("native/fuzz/", "native/tests/")
_SKIPPED_FOLDERS = {"build", "source", "__pycache__"}
_SKIPPED_SUFFIXES = {".pyc", ".so", ".dylib", ".dll"}


@dataclass(frozen=True)
class Staged:
    """How many files were written and removed; both 0 where nothing had changed."""

    written: int
    removed: int


def read_sources(data: Path) -> dict[str, bytes]:
    """Content by POSIX path of everything that a build is made from, below the folder `data`."""
    paths = [data / "LICENSE"] if (data / "LICENSE").is_file() else []
    for part in _PARTS:
        paths += (data / part).rglob("*")
    return {
        path.relative_to(data).as_posix(): path.read_bytes()
        for path in sorted(paths)
        if _is_source(data, path)
    }


def _is_source(data: Path, path: Path) -> bool:
    inside = path.relative_to(data)
    if inside.as_posix().startswith(_FOR_TESTS):
        return False
    parts = inside.parts
    # `build` and `source` are skipped where a checkout has them: native/build, native/plugins/vulkan/build,
    # ggml/source. And what is hidden is somebody's own.
    own = parts[3:] if parts[1:2] == ("plugins",) else parts[1:]
    skipped = "__pycache__" in parts or (len(own) > 1 and own[0] in _SKIPPED_FOLDERS)
    skipped = skipped or any(part.startswith(".") for part in parts)
    return path.is_file() and not skipped and path.suffix not in _SKIPPED_SUFFIXES


def requiring(
    sources: Mapping[str, bytes], requirements: tuple[str, ...], plugin: str = ""
) -> dict[str, bytes]:
    """The sources, of a wheel that also depends on these packages: the engine's, or the plugin's.

    Raises MissingError for damaged ones.
    """
    if not requirements:
        return dict(sources)
    project = f"native/plugins/{plugin}/pyproject.toml" if plugin else "native/pyproject.toml"
    before = sources.get(project, b"")
    line = _DEPENDENCIES.search(before)
    try:
        # What is a list of plain strings to TOML is one to JSON.
        own = json.loads(line[1]) if line else None
    except (ValueError, RecursionError):
        own = None
    if line is None or own is None:
        raise MissingError(f"{project} of this floatllm-build is damaged. Install the tool again.")
    words = json.dumps([*own, *requirements]).encode()
    return {**sources, project: before[: line.start(1)] + words + before[line.end(1) :]}


def digests(sources: Mapping[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in sources.items()}


def stage(sources: Mapping[str, bytes], target: Path) -> Staged:
    """Makes the folder `target` hold exactly `sources`, touching only files that differ."""
    removed = 0
    for path in target.rglob("*") if target.is_dir() else ():
        inside = path.relative_to(target).as_posix()
        if (path.is_file() or path.is_symlink()) and inside not in sources:
            path.unlink()
            removed += 1
    written = 0
    for name, content in sources.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            write_whole(path, content)
            written += 1
    return Staged(written=written, removed=removed)
