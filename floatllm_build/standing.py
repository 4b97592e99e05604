"""Which engine an environment holds, and whether `install` would change it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floatllm_build.distributions import distributions
from floatllm_build.sites import KEY_FILE, live_folder, place_of
from floatllm_build.values import BACKENDS, Backend, Engine, Plan
from floatllm_build.wheel_file import parse_record, record_hash

# Where this tool keeps a wheel, the folder has the name of all that decided it.
_KEY = re.compile(r"/wheels/([0-9a-f]{64})/[^/]+\.whl$")
_LARGEST = 1 << 20


def read_engine(info: Path, devices: Mapping[Backend, str]) -> Engine:
    """By its dist-info folder; `devices` has ggml's name for each backend."""
    manifest = read_json(info.parent / "floatllm" / "manifest.json")
    backends = tuple(map(str, _list(manifest.get("backends"))))
    proven = manifest.get("proof") == "device"
    main: Backend = next((one for one in BACKENDS if proven and one in backends), "cpu")
    ggml = manifest.get("ggml")
    return Engine(
        version=info.name.removesuffix(".dist-info").partition("-")[2],
        preset=str(manifest.get("preset", "")),
        backends=backends,
        device=devices[main],
        ggml=str(ggml.get("version", "")) if isinstance(ggml, dict) else "",
        plugins=tuple(one.name for one in distributions([info.parent]) if _is_plugin(one.name)),
        current=None,
        changes=(),
    )


def _is_plugin(name: str) -> bool:
    return name.startswith("floatllm-") and name != "floatllm-build"


def installed_key(info: Path) -> str:
    """The key of the wheel of this tool that was installed; empty where another was, or nobody says."""
    url = read_json(info / "direct_url.json").get("url")
    found = _KEY.search(url) if isinstance(url, str) else None
    if found:
        return found[1]
    key = read_json(info / KEY_FILE).get("key")
    return key if isinstance(key, str) and re.fullmatch("[0-9a-f]{64}", key) else ""


def is_whole(info: Path, modules: Mapping[str, str]) -> bool:
    """Whether each file of the engine is there as its installer left it: by the engine's own lists, where the
    wheel that it came from is gone.

    `modules` as for `find_changes`.
    """
    try:
        listed = _listed(info)
        compiled = {*map(str, _list(read_json(info.parent / "floatllm" / "manifest.json").get("files")))}
        # A list that was cut short would leave out what it has to answer for.
        return bool(compiled) and compiled <= listed.keys() and _are_there(info.parent, {**listed, **modules})
    except (OSError, ValueError):
        return False


def _are_there(site: Path, files: Mapping[str, str]) -> bool:
    """Python writes its own compiled modules anew whenever it likes."""
    live = live_folder(site)
    lasting = {path: digest for path, digest in files.items() if "__pycache__" not in path}
    places = ((place_of(path, site, live), digest) for path, digest in lasting.items())
    return all(
        place.is_file() and digest in {"", record_hash(place.read_bytes())} for place, digest in places
    )


def _listed(info: Path) -> dict[str, str]:
    """The hashes of the engine's RECORD; of an editable one also those that its modules have now."""
    listed = parse_record((info / "RECORD").read_text(encoding="utf-8"))
    live = live_folder(info.parent)
    modules = (live / "floatllm").rglob("*.py") if live else ()
    return listed | {
        path.relative_to(live).as_posix(): record_hash(path.read_bytes()) for path in modules if live
    }


def find_changes(
    engine: Engine, info: Path, plan: Plan, ggml: str, version: str, modules: Mapping[str, str]
) -> tuple[str, ...]:
    """What `install` would change, in words.

    `version` and `ggml` are those that it would build; `modules` has the hash of each of the engine's Python
    files by its path in the wheel, as a RECORD writes both.
    """
    changes = [
        f"{what} {have or 'unknown'} to {want}"
        for what, have, want in (
            ("floatllm", engine.version, version),
            ("preset", engine.preset, plan.preset),
            ("ggml", engine.ggml, ggml),
        )
        if have != want
    ]
    try:
        listed = _listed(info)
    except (OSError, ValueError):
        listed = {}
    if not changes and any(listed.get(path) != digest for path, digest in modules.items()):
        changes.append("the engine's sources")
    return tuple(changes)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object of a file that anybody may have written; empty for whatever else is there."""
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
