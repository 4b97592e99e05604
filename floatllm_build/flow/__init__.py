"""The steps in their order. The only module that knows it; no step calls the next."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from floatllm_build.build.run import NO_TIMELINE
from floatllm_build.build.staging import read_sources
from floatllm_build.cuda_runtime import has_runtime
from floatllm_build.disk import check_loads_libraries
from floatllm_build.editable import as_editable
from floatllm_build.errors import InstallFailedError, MissingError, NotProvenError
from floatllm_build.events import Hint, Listener, StepDone, StepStarted
from floatllm_build.files import write_whole
from floatllm_build.flow.upkeep import clean, engine_of, remove_engine, stands
from floatllm_build.flow.wheels import (
    Wish,
    bring_libraries,
    check_wish,
    find_source,
    key_now,
    make_all,
    plan_all,
    presets,
)
from floatllm_build.ggml_source import read_pin, tree_files
from floatllm_build.host import probe_host, probe_target
from floatllm_build.install import check_tag, check_writable, holds, install
from floatllm_build.lock import cache_lock, target_lock
from floatllm_build.matrix import WheelRow, choose, make_matrix, plugins
from floatllm_build.paths import cache_dir, data_dir
from floatllm_build.preflight import check_target, find_lacks
from floatllm_build.presets import load_platforms
from floatllm_build.rules.disk import disk_lacks
from floatllm_build.sdist import pack_sdist
from floatllm_build.select import DEVICES, make_plan
from floatllm_build.sites import live_folder, sites
from floatllm_build.sizes import show_size
from floatllm_build.symbols import Door, Symbols, settled
from floatllm_build.system import System
from floatllm_build.values import (
    BACKENDS,
    GgmlSource,
    Host,
    Installed,
    Lack,
    Plan,
    Request,
    Target,
    Unproven,
    Verified,
    Wheel,
)
from floatllm_build.variants import check_variantlib, write_variants
from floatllm_build.verify import prove_installed, seen_devices
from floatllm_build.wheel import find_cached

__all__ = [
    "Detected",
    "Wish",
    "check_variants",
    "clean",
    "detect",
    "engine_of",
    "fetch_ggml",
    "install_engine",
    "make_editable",
    "make_sdist",
    "make_variants",
    "make_wheels",
    "plan",
    "presets",
    "remove_engine",
    "verify_installed",
    "wheel_matrix",
]


def wheel_matrix(only: tuple[str, ...] = ()) -> tuple[WheelRow, ...]:
    """The wheels that CI makes, or those with the ids in `only`. Raises UsageFaultError for another."""
    return choose(make_matrix(presets(), load_platforms(data_dir())), only)


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A machine, and what would be built on it: a plan, or the problem that stands against every plan."""

    host: Host
    plan: Plan | None
    lacks: tuple[Lack, ...]
    problem: str


def detect(
    system: System, request: Request, python: str | None = None, symbols: Symbols | None = None
) -> Detected:
    """Facts, and the plan for them where there is one. Raises UsageFaultError for a senseless request.

    `symbols`, if given, still shows afterwards what the facts hide.
    """
    found = probe_host(system, python)
    host = symbols.settle(found) if symbols else settled(found)
    try:
        made = make_plan(host, request, presets())
    except MissingError as error:
        return Detected(host=host, plan=None, lacks=(), problem=str(error))
    lacks = (*find_lacks(host), *disk_lacks(host, made, ggml=read_pin(data_dir()).folder_name))
    return Detected(host=host, plan=made, lacks=lacks, problem="")


def plan(system: System, request: Request, python: str | None = None) -> tuple[Plan, tuple[Lack, ...]]:
    """What would be built, and what is missing for that."""
    host = settled(probe_host(system, python))
    made = make_plan(host, request, presets())
    return made, (*find_lacks(host), *disk_lacks(host, made, ggml=read_pin(data_dir()).folder_name))


def install_engine(door: Door, wish: Wish, tell: Listener) -> Installed:
    """The whole flow. Whatever fails, the installation that was there before is untouched."""
    started = time.monotonic()
    check_wish(wish)
    cache = cache_dir()
    system = door.inner
    target = probe_target(system, wish.python)
    check_target(target)
    check_writable(target)
    for site in sites(target):
        check_loads_libraries(site)
    with cache_lock(cache, tell):
        host, plans = plan_all(door, wish, cache, tell, alone=True)
        made = door.symbols.show_in(plans[0])
        wheel = None
        if not _stands(door, wish, host, made, cache, tell):
            ((made, wheel),) = make_all(
                door, wish, host, plans, target.executable, cache, tell, installs=True
            )
        with target_lock(Path(target.prefix), tell):
            # Another tool, which had the cache or the environment until now, may have been at work there.
            target = probe_target(system, wish.python)
            if wheel:
                check_tag(target, wheel)
            served = made.toolkit is None or has_runtime(target, made.toolkit)
            held = wheel is None or holds(target, wheel)
            # First, because the former engine works until its own files go.
            if made.toolkit and not served:
                bring_libraries(system, target, made.toolkit, cache, tell)
            if wheel and not held:
                _install(system, target, wheel, cache, tell)
    seconds = time.monotonic() - started
    return Installed(target=target, plan=made, wheel=wheel, unchanged=held and served, seconds=seconds)


def make_wheels(
    door: Door, wish: Wish, out: Path, tell: Listener, *, alone: bool = False
) -> tuple[Wheel, ...]:
    """The flow up to proven wheels in the folder `out`: a plugin's comes behind that of the engine.

    `alone`: raises UsageFaultError where there would be a plugin's.
    """
    check_wish(wish)
    cache = cache_dir()
    with cache_lock(cache, tell):
        python = wish.python or sys.executable
        host, plans = plan_all(door, wish, cache, tell, alone=alone)
        made = make_all(door, wish, host, plans, python, cache, tell, installs=False)
        out.mkdir(parents=True, exist_ok=True)
        copies = [out / Path(wheel.path).name for _, wheel in made]
        for (_, wheel), copy in zip(made, copies, strict=True):
            write_whole(copy, Path(wheel.path).read_bytes(), shared=True)
    return tuple(replace(wheel, path=str(copy)) for (_, wheel), copy in zip(made, copies, strict=True))


def check_variants() -> None:
    """Raises MissingError where `make_variants` could make none, before a long build for them."""
    check_variantlib()


def make_variants(wheel: Path, tell: Listener) -> tuple[Path, ...]:
    """A plain wheel's variants and their index, beside it. Raises MissingError where it can have none."""
    tag = wheel.stem.split("-")[-1]
    found = plugins(wheel_matrix(), tag)
    if not found:
        raise MissingError(
            f"No plugin is made for {tag}, so {wheel.name} has no variants; it is there without them."
        )
    tell(StepStarted("variants"))
    made = write_variants(wheel, found)
    tell(StepDone("variants", f"{', '.join(found)}, experimental"))
    return made


def make_editable(door: Door, wish: Wish, out: Path, tell: Listener) -> Path:
    """The flow up to a proven wheel, in the folder `out`, whose modules are those of the sources."""
    with tempfile.TemporaryDirectory() as scratch:
        (wheel,) = make_wheels(door, wish, Path(scratch), tell, alone=True)
        return as_editable(wheel, data_dir() / "native", out)


def make_sdist(system: System, out: Path, tell: Listener) -> Path:
    """Packs the engine's source archive into the folder `out`: whoever has it needs no network."""
    cache, data = cache_dir(), data_dir()
    with cache_lock(cache, tell):
        pin = read_pin(data)
        source = find_source(system, pin, cache, None, tell)
        tell(StepStarted("package"))
        ggml = {f"ggml/source/{name}": text for name, text in tree_files(pin, Path(source.folder)).items()}
        packed = pack_sdist({**read_sources(data), **ggml}, out)
    tell(StepDone("package", f"{packed.name} ({show_size(packed.stat().st_size)})"))
    return packed


def verify_installed(system: System, python: str | None, device: str | None, tell: Listener) -> Verified:
    """The proof again, on what is installed: on its own device and every other GPU, or on the one named.

    Raises MissingError if nothing is installed or the named device is not there, and NotProvenError for the
    first of them; that another is not proven stands in the result.
    """
    target = probe_target(system, python)
    if not target.installed:
        raise MissingError(
            f"There is no floatllm in {target.prefix} (by {target.chosen_by}). Run floatllm-build install."
        )
    site = Path(target.installed).parent
    own = device or _device_of(site / "floatllm" / "manifest.json")
    try:
        proofs = [prove_installed(target.executable, site, own, tell)]
    except NotProvenError as error:
        seen = seen_devices(target.executable) if device else {}
        if seen and device not in seen:
            there = ", ".join(seen)
            raise MissingError(f"The installed engine sees no device {device}. It sees {there}.") from error
        raise
    unproven: list[Unproven] = []
    for other, kind in ({} if device else seen_devices(target.executable)).items():
        if other != own and "gpu" in kind:
            try:
                proofs.append(prove_installed(target.executable, site, other, tell))
            except NotProvenError as error:
                unproven.append(Unproven(device=other, reason=str(error)))
    return Verified(proofs=tuple(proofs), unproven=tuple(unproven))


def fetch_ggml(system: System, tell: Listener) -> GgmlSource:
    """Brings the pinned ggml into the cache where it is not there yet."""
    cache = cache_dir()
    with cache_lock(cache, tell):
        return find_source(system, read_pin(data_dir()), cache, None, tell)


def _stands(door: Door, wish: Wish, host: Host, made: Plan, cache: Path, tell: Listener) -> bool:
    """Whether the target holds the engine of this plan, though the cache does not: nothing is made then."""
    key = key_now(door.inner, door.symbols.show_in(host), made, cache, wish.ggml_dir)
    if not key or find_cached(cache, key):
        return False
    target = probe_target(door.inner, wish.python)
    with target_lock(Path(target.prefix), tell):
        if not stands(probe_target(door.inner, wish.python), key, None):
            return False
    if wish.trace:
        tell(Hint(NO_TIMELINE))
    tell(StepDone("build", f"nothing changed; {target.prefix} holds this engine, built and proven before"))
    return True


def _install(system: System, target: Target, wheel: Wheel, cache: Path, tell: Listener) -> None:
    tell(StepStarted("install"))
    live = [folder for site in sites(target) if (folder := live_folder(site))]
    for folder in live:
        again = shlex.join((target.executable, "-m", "pip", "install", "-e", str(folder)))
        tell(Hint(f"A copy of the modules takes the place of {folder}, whose were live. To undo it: {again}"))
    install(system, target, wheel, cache)
    if not holds(probe_target(system, target.executable), wheel):
        raise InstallFailedError(
            f"The installer reported success, but {target.prefix} does not hold the wheel's files. "
            f"Look for a second site-packages folder there, or install {wheel.path} yourself."
        )
    tell(StepDone("install", f"into {target.prefix} (by {target.chosen_by})"))


def _device_of(manifest: Path) -> str:
    try:
        backends = _manifest_backends(manifest)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise MissingError(
            f"{manifest} cannot be read ({error}). Run floatllm-build install again."
        ) from error
    return DEVICES[next((backend for backend in BACKENDS if backend in backends), "cpu")]


def _manifest_backends(manifest: Path) -> list[str]:
    backends = json.loads(manifest.read_text(encoding="utf-8")).get("backends", [])
    return [str(backend) for backend in backends]
