"""The steps in their order. The only module that knows it; no step calls the next."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from floatllm_build.build.governor import spare
from floatllm_build.build.key import digest, plan_inputs, wheel_inputs
from floatllm_build.build.run import NO_TIMELINE, Means, build
from floatllm_build.build.staging import digests, read_sources, requiring, stage
from floatllm_build.build_folder import Folder, free_space_hint
from floatllm_build.cuda_runtime import bring_runtime, has_runtime
from floatllm_build.cuda_toolkit import fetch_toolkit, runtime_wheels
from floatllm_build.errors import BuildFailedError, InstallFailedError, MissingError, NotProvenError
from floatllm_build.events import Hint, Listener, StepDone, StepStarted
from floatllm_build.files import in_the_future, remove_folder
from floatllm_build.ggml_source import Pin, fetch, locate, read_pin
from floatllm_build.host import probe_host, probe_memory, probe_target
from floatllm_build.host.findings import Findings
from floatllm_build.install import check_tag, check_writable, holds, install
from floatllm_build.lock import cache_lock
from floatllm_build.paths import CACHE_FOLDERS, cache_dir, data_dir
from floatllm_build.preflight import check_lacks, check_target, find_lacks
from floatllm_build.presets import Preset, load_presets
from floatllm_build.select import DEVICES, make_plan
from floatllm_build.sizes import show_size
from floatllm_build.symbols import Door, settled
from floatllm_build.system import System
from floatllm_build.tools import with_tools
from floatllm_build.values import (
    BACKENDS,
    GgmlSource,
    Host,
    Installed,
    Lack,
    Plan,
    PlannedToolkit,
    Request,
    Target,
    ToolchainFacts,
    Unproven,
    Verified,
    Wheel,
)
from floatllm_build.verify import prove_installed, prove_wheel, seen_gpus
from floatllm_build.wheel import find_cached, keep, package

# Rules whose reasons `plan` and `detect` show, and the one line of an install leaves out.
_IN_PLAN_ALONE = {"jobs", "fast-fits", "gcc-reclaim", "gcc-reclaim-if-short"}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request and where its inputs and results are."""

    request: Request
    ggml_dir: Path | None = None
    python: str | None = None
    trace: Path | None = None
    """File for the timeline of the build."""


def presets() -> dict[str, Preset]:
    return load_presets(data_dir())


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A machine, and what would be built on it: a plan, or the problem that stands against every plan."""

    host: Host
    plan: Plan | None
    lacks: tuple[Lack, ...]
    problem: str


def detect(system: System, request: Request, python: str | None = None) -> Detected:
    """Facts, and the plan for them where there is one. Raises UsageFaultError for a senseless request."""
    host = settled(probe_host(system, python))
    try:
        made = make_plan(host, request, presets())
    except MissingError as error:
        return Detected(host=host, plan=None, lacks=(), problem=str(error))
    return Detected(host=host, plan=made, lacks=find_lacks(host), problem="")


def plan(system: System, request: Request, python: str | None = None) -> tuple[Plan, tuple[Lack, ...]]:
    """What would be built, and what is missing for that."""
    host = settled(probe_host(system, python))
    made = make_plan(host, request, presets())
    return made, find_lacks(host)


def install_engine(door: Door, wish: Wish, tell: Listener) -> Installed:
    """The whole flow. Whatever fails, the installation that was there before is untouched."""
    started = time.monotonic()
    cache = cache_dir()
    system = door.inner
    target = probe_target(system, wish.python)
    check_target(target)
    check_writable(target)
    with cache_lock(cache, tell):
        made, wheel = _make_wheel(door, wish, target.executable, cache, tell, installs=True)
        # Another tool, which had the cache until now, may have been at work there.
        target = probe_target(system, wish.python)
        check_tag(target, wheel)
        served = made.toolkit is None or has_runtime(target, made.toolkit)
        held = holds(target, wheel)
        # First, because the former engine works until its own files go.
        if made.toolkit and not served:
            _bring_runtime(system, target, made.toolkit, cache, tell)
        if not held:
            _install(system, target, wheel, cache, tell)
    seconds = time.monotonic() - started
    return Installed(target=target, plan=made, wheel=wheel, unchanged=held and served, seconds=seconds)


def make_wheel(door: Door, wish: Wish, out: Path, tell: Listener) -> Wheel:
    """The flow up to a proven wheel in the folder `out`."""
    cache = cache_dir()
    with cache_lock(cache, tell):
        _, wheel = _make_wheel(door, wish, wish.python or sys.executable, cache, tell, installs=False)
        out.mkdir(parents=True, exist_ok=True)
        copy = shutil.copy2(wheel.path, out / Path(wheel.path).name)
    return replace(wheel, path=str(copy))


def verify_installed(system: System, python: str | None, device: str | None, tell: Listener) -> Verified:
    """The proof again, on what is installed: on its own device and every other GPU, or on the one named.

    Raises MissingError where nothing is installed, and NotProvenError for the first of them; that another
    is not proven stands in the result.
    """
    target = probe_target(system, python)
    if not target.installed:
        raise MissingError(
            f"There is no floatllm in {target.prefix} (by {target.chosen_by}). Run floatllm-build install."
        )
    own = device or _device_of(Path(target.installed).parent / "floatllm" / "manifest.json")
    proofs = [prove_installed(target.executable, own, tell)]
    unproven: list[Unproven] = []
    for other in () if device else seen_gpus(target.executable):
        if other != own:
            try:
                proofs.append(prove_installed(target.executable, other, tell))
            except NotProvenError as error:
                unproven.append(Unproven(device=other, reason=str(error)))
    return Verified(proofs=tuple(proofs), unproven=tuple(unproven))


def fetch_ggml(system: System, tell: Listener) -> GgmlSource:
    """Brings the pinned ggml into the cache where it is not there yet."""
    cache = cache_dir()
    with cache_lock(cache, tell):
        return _source(system, read_pin(data_dir()), cache, None, tell)


def clean(tell: Listener) -> Path:
    """Deletes what this tool keeps in the cache, once nobody works in it; returns the cache's path.

    Raises MissingError, once all else is gone, with what could not be deleted and why.
    """
    cache = cache_dir()
    if cache.is_dir():
        with cache_lock(cache, tell):
            # By name: FLOATLLM_CACHE_DIR may point at a folder that holds other things too.
            stayed = [fault for name in CACHE_FOLDERS if (fault := remove_folder(cache / name))]
        if stayed:
            raise MissingError(
                "Not everything could be deleted:\n"
                + "".join(f"  {fault}\n" for fault in stayed)
                + "All else is gone. Close what uses these or delete them by hand, and run this again."
            )
    return cache


# ---- the steps of a wheel ---------------------------------------------------------------------


def _make_wheel(
    door: Door, wish: Wish, python: str, cache: Path, tell: Listener, *, installs: bool
) -> tuple[Plan, Wheel]:
    tell(StepStarted("probe"))
    system = door.inner
    host = door.symbols.settle(probe_host(door, wish.python))
    tell(StepDone("probe", describe_host(host)))
    made = make_plan(host, wish.request, presets())
    tell(StepDone("plan", describe_plan(made)))
    check_lacks(find_lacks(host, installs=installs))
    # From here on with real folders.
    host, made = door.symbols.show_in(host), door.symbols.show_in(made)
    preset = presets()[made.preset]
    toolchain = with_tools(system, host.toolchain, cache)
    data = data_dir()
    source = _source(system, read_pin(data), cache, wish.ggml_dir, tell)
    sources = requiring(read_sources(data), made.toolkit.requires if made.toolkit else ())
    inputs = plan_inputs(made, preset.variables, host, toolchain, source.folder)
    key = digest(wheel_inputs(inputs, digests(sources), source.tree_sha256, host.python.platform))
    cached = find_cached(cache, key)
    if cached:
        if wish.trace:
            tell(Hint(NO_TIMELINE))
        tell(StepDone("build", f"nothing changed; reusing {Path(cached.path).name}, built and proven before"))
        return made, cached
    if made.toolkit and made.toolkit.download:
        _toolkit(system, made.toolkit, cache, tell)
    folder = Folder(cache / "build" / f"{made.preset}-{digest(inputs)[:10]}")
    try:
        stage(sources, folder.sources)
        _mind_the_clock(folder, cache, tell)
        means = Means(
            room=_room(system, host, wish.request.memory), learned=cache / "costs", trace=wish.trace
        )
        wheel, whole = _build(made, toolchain, source, folder, means, key, tell)
        tell(StepStarted("verify"))
        # Without the device its wheel computes on the CPU all the same, and that can be proven.
        device = made.device if made.proof == "device" else DEVICES["cpu"]
        beside = Path(made.toolkit.nvcc).parents[2] if made.toolkit and made.toolkit.requires else None
        proof = prove_wheel(Path(wheel.path), python, device, cache, tell, made.environment, beside)
        unproven = "" if device == made.device else f"; {made.device} is not here and not proven"
        tell(StepDone("verify", f"computed on {proof.device}, {proof.agree} operations agree{unproven}"))
        return made, keep(cache, wheel, proof, whole=whole)
    except OSError as error:
        hint = "Look at the permissions there, and run this again."
        if error.errno == errno.ENOSPC:
            hint = free_space_hint(folder)
        raise BuildFailedError(
            f"Building in {folder.root} failed: {error}. {hint}\nWhat was said until then is in {folder.log}"
        ) from error


def _source(system: System, pin: Pin, cache: Path, chosen: Path | None, tell: Listener) -> GgmlSource:
    tell(StepStarted("ggml"))
    source = locate(pin, cache, chosen)
    if source is None:
        source = fetch(system, pin, cache)
    where = (
        "fetched and verified"
        if source.fetched
        else "verified"
        if source.pinned
        else "your own tree, not the pinned one"
    )
    version = pin.version if source.pinned else source.folder
    tell(StepDone("ggml", f"{version}, {where}"))
    return source


def _toolkit(system: System, toolkit: PlannedToolkit, cache: Path, tell: Listener) -> None:
    tell(StepStarted("toolkit"))
    fetched = fetch_toolkit(system, toolkit, cache, tell)
    tell(StepDone("toolkit", f"CUDA {toolkit.version}, {'fetched' if fetched else 'in the cache'}"))


def _bring_runtime(
    system: System, target: Target, toolkit: PlannedToolkit, cache: Path, tell: Listener
) -> None:
    if toolkit.download:
        _toolkit(system, toolkit, cache, tell)
    tell(StepStarted("install"))
    bring_runtime(system, target, toolkit, runtime_wheels(toolkit) if toolkit.download else None, cache)
    tell(StepDone("install", f"CUDA's libraries ({', '.join(toolkit.requires)}) into {target.prefix}"))


def _mind_the_clock(folder: Folder, cache: Path, tell: Listener) -> None:
    """Sees to it that no file of ours lies in the future, where ninja would take old objects for new ones."""
    for kept in (folder.sources, cache / "ggml", cache / "cuda", cache / "tools"):
        for path in in_the_future(kept):
            os.utime(path)
    if in_the_future(folder.out):
        tell(
            Hint("The clock was set back since the last build here: nothing of that can be trusted, so anew.")
        )
        remove_folder(folder.out)


def _room(system: System, host: Host, most: int | None) -> Callable[[int], int]:
    """What `spare` says of the memory that is there now."""
    return lambda used: spare(probe_memory(system, host.os, Findings()), used, most)


def _build(
    made: Plan,
    toolchain: ToolchainFacts,
    source: GgmlSource,
    folder: Folder,
    means: Means,
    key: str,
    tell: Listener,
) -> tuple[Wheel, bool]:
    """The wheel, and whether nothing of the engine was given up to make it."""
    tell(StepStarted("build"))
    built = build(made, toolchain, source.folder, folder, means, tell)
    done = f"{built.units} units in {built.seconds:.0f} s" if built.units else "nothing to compile"
    tell(StepDone("build", done))
    tell(StepStarted("package"))
    wheel = package(made, toolchain, source.folder, folder, key)
    tell(StepDone("package", f"{Path(wheel.path).name} ({show_size(Path(wheel.path).stat().st_size)})"))
    return wheel, built.whole


def _install(system: System, target: Target, wheel: Wheel, cache: Path, tell: Listener) -> None:
    tell(StepStarted("install"))
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
    except (OSError, ValueError) as error:
        raise MissingError(
            f"{manifest} cannot be read ({error}). Run floatllm-build install again."
        ) from error
    return DEVICES[next((backend for backend in BACKENDS if backend in backends), "cpu")]


def _manifest_backends(manifest: Path) -> list[str]:
    backends = json.loads(manifest.read_text(encoding="utf-8")).get("backends", [])
    return [str(backend) for backend in backends]


def describe_host(host: Host) -> str:
    """One line: what the machine is."""
    chain = host.toolchain
    programs = [f"{chain.cxx.kind} {chain.cxx.version}" if chain.cxx else "no C++ compiler"]
    programs += [f"{name} {p.version}" for name, p in (("cmake", chain.cmake), ("ninja", chain.ninja)) if p]
    cpus = "1 CPU" if host.cpu.usable == 1 else f"{host.cpu.usable} CPUs"
    room = f"{show_size(host.memory.room)} free" if host.memory.room else "memory unknown"
    return f"{host.os.name} {host.cpu.arch}, {cpus}, {room}; {', '.join(programs)}"


def describe_plan(made: Plan) -> str:
    """One line: what will be built and why."""
    why = "; ".join(reason.text for reason in made.reasons if reason.rule not in _IN_PLAN_ALONE)
    jobs = "1 job" if made.jobs == 1 else f"{made.jobs} jobs"
    return f"preset {made.preset}, {jobs} ({why})"
