"""Where an environment keeps its packages."""

from __future__ import annotations

from pathlib import Path

from floatllm_build.values import Target


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
