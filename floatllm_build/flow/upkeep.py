"""What comes after an installation: what stands there, and the way out."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from floatllm_build import __version__
from floatllm_build.build.staging import read_sources
from floatllm_build.disk import taken
from floatllm_build.errors import FloatllmBuildError, InstallFailedError, MissingError
from floatllm_build.events import Listener
from floatllm_build.files import remove_folder
from floatllm_build.flow.wheels import key_now, presets
from floatllm_build.ggml_source import read_pin
from floatllm_build.host import probe_target
from floatllm_build.install import check_writable, clear_remains, holds
from floatllm_build.leftovers import left_in
from floatllm_build.lock import cache_lock, target_lock
from floatllm_build.paths import CACHE_FOLDERS, cache_dir, data_dir
from floatllm_build.select import DEVICES
from floatllm_build.sites import live_folder
from floatllm_build.sizes import show_size
from floatllm_build.standing import find_changes, installed_key, is_whole, read_engine
from floatllm_build.system import System
from floatllm_build.uninstall import find_left, find_ours, find_strays, uninstall
from floatllm_build.upkeep import Cleaned, Removed
from floatllm_build.values import Engine, Host, Plan, Target, Wheel
from floatllm_build.wheel import find_cached
from floatllm_build.wheel_file import record_hash

_MODULES = "native/floatllm/"


def stands(target: Target, key: str, wheel: Wheel | None) -> bool:
    """Whether the target holds the engine of this key (empty: unknown) whole; `wheel` is the cache's."""
    if wheel:
        return holds(target, wheel)
    if not (key and target.installed):
        return False
    info = Path(target.installed)
    return installed_key(info) == key and is_whole(info, _modules(read_sources(data_dir())))


def _modules(sources: Mapping[str, bytes]) -> dict[str, str]:
    """The hash of each of the engine's Python files by its path in the wheel."""
    return {
        path.removeprefix("native/"): record_hash(text)
        for path, text in sources.items()
        if path.startswith(_MODULES) and path.endswith(".py")
    }


def engine_of(system: System, host: Host, plan: Plan | None) -> Engine | None:
    """The engine of the host's target, and whether the plan would change it; both with real folders.

    None where there is none.
    """
    if not host.target or not host.target.installed:
        return None
    info = Path(host.target.installed)
    engine = read_engine(info, DEVICES)
    if not plan or plan.plugin:
        return engine
    cache = cache_dir()
    chosen = os.environ.get("FLOATLLM_GGML_DIR")
    try:
        now = key_now(system, host, plan, cache, Path(chosen) if chosen else None)
    except FloatllmBuildError:
        now = ""
    wheel = find_cached(cache, now) if now else None
    # Other inputs may have made the same wheel, as another version of this tool does.
    if stands(host.target, now, wheel):
        return replace(engine, current=True, kept=wheel is not None)
    sources = read_sources(data_dir())
    project = sources["native/pyproject.toml"].decode()
    version = re.search(r'^version = "(.*)"$', project, re.MULTILINE)
    changes = find_changes(
        engine,
        info,
        plan,
        read_pin(data_dir()).version,
        version[1] if version else __version__,
        _modules(sources),
    )
    live = live_folder(info.parent)
    if now and not changes and (key := installed_key(info)):
        damaged = "files of it that are missing or damaged"
        other = f"the {'sources' if live else 'compiled sources'}, the tool, the compiler or its flags"
        changes = (damaged if key == now else other,)
    if changes and live:
        changes = (*changes, "modules that are live (pip install -e), to a copy of them")
    return replace(engine, current=False if changes else None, changes=changes)


def remove_engine(system: System, python: str | None, tell: Listener) -> Removed:
    """Removes the engine and its plugins from an environment.

    Raises MissingError where nothing can be written there, and both errors of `uninstall`.
    """
    cache = cache_dir()
    target = probe_target(system, python)
    with ExitStack() as stack:
        if os.path.isdir(cache):  # noqa: PTH112  is_dir() raises for a closed home
            stack.enter_context(cache_lock(cache, tell))
        stack.enter_context(target_lock(Path(target.prefix), tell))
        return _remove(system, probe_target(system, python), cache)


def _remove(system: System, target: Target, cache: Path) -> Removed:
    plugins = plugin_names()
    if not target.externally_managed:
        if find_ours(target, plugins):
            check_writable(target)
        try:
            clear_remains(target)
        except OSError as error:
            raise InstallFailedError(
                f"What a killed installer left in {target.prefix} cannot be put right: {error}. Nothing was "
                "removed. Look at the permissions there, and run this again."
            ) from error
    ours = find_ours(target, plugins)
    packages = tuple((f"{one.name} {one.version}", one.size) for one in ours)
    left = find_left(target, ours)
    if ours:
        uninstall(system, target, ours, cache)
    return Removed(
        target=target,
        packages=packages,
        left=left,
        strays=find_strays(ours),
        cache=str(cache),
        cache_size=sum(size for _, size in _sizes(cache)),
        tool=shlex.join(_remove_tool(probe_target(system, sys.executable))),
    )


def plugin_names() -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"floatllm-{one.plugin}" for one in presets().values() if one.plugin))


def _remove_tool(own: Target) -> tuple[str, ...]:
    """The command that removes this tool, from the environment that runs it."""
    if own.kind in {"pipx", "uv-tool"}:
        return (*{"pipx": ("pipx",), "uv-tool": ("uv", "tool")}[own.kind], "uninstall", "floatllm-build")
    if own.has_pip:
        return (own.executable, "-m", "pip", "uninstall", "floatllm-build")
    return ("uv", "pip", "uninstall", "--python", own.executable, "floatllm-build")


def clean(tell: Listener, *, only_look: bool = False) -> Cleaned:
    """Deletes what this tool keeps in the cache, once nobody works in it, and has left in the folder for
    temporary files. `only_look` deletes nothing.

    Raises MissingError, once all else is gone, with what could not be deleted and why.
    """
    cache, temp = cache_dir(), Path(tempfile.gettempdir())
    left = left_in(temp)
    outside = sum(map(taken, left))
    if not only_look:
        for path in left:
            # One that stays, on a disk that is mounted to be read, hides nothing.
            with suppress(OSError):
                path.unlink()
    if only_look or not cache.is_dir():
        return Cleaned(cache=str(cache), folders=_sizes(cache), temp=str(temp), outside=outside)
    with cache_lock(cache, tell, cleaning=True):
        before = _sizes(cache)
        # By name: FLOATLLM_CACHE_DIR may point at a folder that holds other things too.
        stayed = [fault for name in CACHE_FOLDERS if (fault := remove_folder(cache / name))]
        after = dict(_sizes(cache))
    freed = tuple((name, size - after.get(name, 0)) for name, size in before)
    done = Cleaned(cache=str(cache), folders=freed, temp=str(temp), outside=outside)
    if stayed:
        raise MissingError(
            "Not everything could be deleted:\n"
            + "".join(f"  {fault}\n" for fault in stayed)
            + f"All else is gone, {show_size(done.size)}. Close what uses these or delete them by hand, and "
            "run this again."
        )
    return done


def _sizes(cache: Path) -> tuple[tuple[str, int], ...]:
    """Bytes in each of our folders that is there."""
    return tuple((name, taken(cache / name)) for name in CACHE_FOLDERS if (cache / name).is_dir())
