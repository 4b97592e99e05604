"""Backends from packages of their own: which are installed, and whether this engine can take them in.

A plugin is a package with an entry point in the group `floatllm.backends`, that names the package. Its folder
holds one library of ggml's, and the manifest of what that was built from. No code of it runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floatllm import foreign_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GROUP = "floatllm.backends"


@dataclass(frozen=True)
class Plugin:
    """An installed plugin by its distribution's name; `reason`: why it is not loaded, else empty."""

    name: str
    version: str
    loaded: bool
    reason: str


@dataclass(frozen=True)
class Found:
    """Where an installed plugin lies."""

    name: str
    version: str
    folder: Path
    library: str


def discover() -> Iterator[Found]:
    """The installed plugins, by name; of one that is installed twice the one that Python would import."""
    seen: set[str] = set()
    for entry in sorted(_entries(), key=lambda entry: entry.name):
        if entry.dist is None or not entry.value.isidentifier() or entry.value in seen:
            continue
        folder = Path(str(entry.dist.locate_file(entry.value))).resolve()
        # Python looks for modules in the current folder too; what lies there was not installed.
        if folder.parent == Path.cwd() != Path(__file__).resolve().parents[1]:
            continue
        seen.add(entry.value)
        name, version = entry.dist.name, entry.dist.version
        pattern = "ggml-*.dll" if sys.platform == "win32" else "libggml-*.so"
        library = next((path.name for path in sorted(folder.glob(pattern))), "")
        yield Found(name=name, version=version, folder=folder, library=library)


def _entries() -> Iterator[EntryPoint]:
    """The group's entry points. A package whose metadata is damaged hides no other one."""
    for distribution in distributions():
        try:
            found = [entry for entry in distribution.entry_points if entry.group == GROUP]
            # Asked for by `in`: Python 3.12 warns of what is missing, and later ones raise KeyError.
            named = not found or all(name in distribution.metadata for name in ("Name", "Version"))
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            continue
        if named:
            yield from found


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """manifest.json of a folder; empty where there is none that can be read."""
    try:
        manifest = foreign_json.read(folder / "manifest.json")
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def misfit(engine: Mapping[str, Any], plugin: Mapping[str, Any]) -> str:
    """Why an engine cannot take in a plugin, by their manifests; empty where it can."""
    if not plugin:
        return "its manifest is missing or damaged; install it again"
    options = engine.get("options")
    if not isinstance(options, dict) or options.get("GGML_BACKEND_DL") is not True:
        return (
            "this engine was built in one piece for one machine and takes no plugins; install the portable "
            "wheel of floatllm, or build the backend in (floatllm-build install --backend ...)"
        )
    own, wanted = engine.get("engine_version"), plugin.get("engine_version")
    if own != wanted:
        distribution = plugin.get("distribution")
        both = f"floatllm=={own} {distribution}=={own}"
        return f"it belongs to floatllm {wanted}, and this is {own}; pip install {both}"
    for key, what in (("abi_version", "interface"), ("ggml", "ggml"), ("system", "system")):
        if engine.get(key) != plugin.get(key):
            return f"it was built for another {what} than this engine; install both from one source"
    return ""
