"""Where an environment keeps its packages."""

from __future__ import annotations

from pathlib import Path

from floatllm_build.values import Target

# A package without __init__.py gives way to one with it, wherever that is on the path: so the folder of the
# libraries in the environment does not hide the package in the sources.
EDITABLE_LINK = "_floatllm_editable.pth"
# Its dist-info names the key of the engine here: what pip notes of it is the folder of the sources alone.
KEY_FILE = "floatllm-build.json"
_PACKAGE = "floatllm/"
_MODULES = (".py", ".typed")


def sites(target: Target) -> list[Path]:
    """Where the engine is, or may have been until its installer was killed.

    Nowhere that is known for a system's own Python: its pip goes to the user's own folder.
    """
    if target.installed:
        return [Path(target.installed).parent]
    if target.kind == "system":
        return []
    version = ".".join(map(str, target.version))
    patterns = (f"lib*/python{version}/site-packages", "Lib/site-packages")
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for site in sorted(Path(target.prefix).glob(pattern)):
            # In many environments lib64 is a link to lib.
            found.setdefault(site.resolve(), site)
    return list(found.values())


def live_folder(site: Path) -> Path | None:
    """The folder of the sources whose modules an editable engine runs; None where it has its own."""
    try:
        lines = (site / EDITABLE_LINK).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return Path(lines[0]) if lines else None


def is_module(path: str) -> bool:
    """Whether a file of the engine's wheel is one that an editable engine has in the sources."""
    return path.startswith(_PACKAGE) and path.endswith(_MODULES)


def place_of(path: str, site: Path, live: Path | None) -> Path:
    """Where a file of the engine's wheel is: in its environment, or in its `live_folder`."""
    return (live if live and is_module(path) else site) / path
