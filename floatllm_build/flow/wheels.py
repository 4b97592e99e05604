"""The steps of the wheels that were asked for, in their order."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from floatllm_build.build.governor import spare
from floatllm_build.build.key import digest, plan_inputs, wheel_inputs
from floatllm_build.build.run import NO_TIMELINE, Means, build
from floatllm_build.build.staging import digests, read_sources, requiring, stage
from floatllm_build.build_folder import Folder, free_space_hint
from floatllm_build.cuda_runtime import bring_runtime, libraries_beside
from floatllm_build.cuda_toolkit import fetch_toolkit, runtime_wheels
from floatllm_build.describe import describe_host, describe_plan
from floatllm_build.disk import check_runs_programs
from floatllm_build.errors import (
    BuildFailedError,
    UsageFaultError,
)
from floatllm_build.events import Hint, Listener, StepDone, StepStarted
from floatllm_build.files import in_the_future, remove_folder
from floatllm_build.ggml_source import Pin, check_chosen, fetch, locate, read_pin
from floatllm_build.heap import give_back
from floatllm_build.host import probe_host, probe_memory
from floatllm_build.host.disk import probe_disk
from floatllm_build.host.findings import Findings
from floatllm_build.paths import data_dir
from floatllm_build.preflight import check_lacks, find_lacks
from floatllm_build.presets import Preset, load_presets
from floatllm_build.repair import repair
from floatllm_build.rules.disk import disk_lacks
from floatllm_build.select import DEVICES, check_request, make_plans
from floatllm_build.sizes import show_size
from floatllm_build.symbols import Door
from floatllm_build.system import System
from floatllm_build.tools import bring_repairer, read_tools, tools_at_hand, with_tools
from floatllm_build.trust import make_private
from floatllm_build.values import (
    GgmlSource,
    Host,
    Plan,
    PlannedToolkit,
    Repairer,
    Request,
    Target,
    ToolchainFacts,
    Wheel,
)
from floatllm_build.verify import prove_wheel
from floatllm_build.wheel import keep, package, take_cached


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A request and where its inputs and results are."""

    request: Request
    ggml_dir: Path | None = None
    python: str | None = None
    trace: Path | None = None
    """File for the timeline of the build."""
    passing: bool = False
    """The environment that runs us is thrown away soon: nothing that is kept may lead there."""


def presets() -> dict[str, Preset]:
    return load_presets(data_dir())


def check_wish(wish: Wish) -> None:
    """What is wrong with it in itself, before anybody waits for the cache. Raises UsageFaultError."""
    check_request(wish.request, presets())
    if wish.ggml_dir:
        check_chosen(wish.ggml_dir)


def plan_all(
    door: Door, wish: Wish, cache: Path, tell: Listener, *, alone: bool
) -> tuple[Host, tuple[Plan, ...]]:
    """The machine, and a plan for each wheel that was asked for; the engine's first.

    `alone`: raises UsageFaultError where there would be a plugin's beside it.
    """
    check_runs_programs(cache)
    tell(StepStarted("probe"))
    host = door.symbols.settle(probe_host(door, wish.python))
    tell(StepDone("probe", describe_host(host)))
    plans = make_plans(host, wish.request, presets())
    if alone and len(plans) > 1:
        raise UsageFaultError(
            f"Preset `{plans[-1].preset}` makes wheels for other machines. `floatllm-build wheel` with the "
            f"same options makes them; to install the engine here, ask for backend {plans[-1].backend} alone."
        )
    for made in plans:
        tell(StepDone("plan", describe_plan(made)))
    return host, plans


def make_all(
    door: Door,
    wish: Wish,
    host: Host,
    plans: tuple[Plan, ...],
    python: str,
    cache: Path,
    tell: Listener,
    *,
    installs: bool,
) -> list[tuple[Plan, Wheel]]:
    """Each wheel that was planned, with its plan. `installs`: into a target that the plan must suit."""
    system = door.inner
    pin = read_pin(data_dir())
    # Where a wheel may be at hand, and nothing has to be fetched to know it, it is looked for first.
    made_before = any(one.what.startswith("wheels/") for one in host.disk.kept)
    ready = made_before and tools_at_hand(system, door.symbols.show_in(host).toolchain, cache)
    room = () if ready else disk_lacks(host, plans[-1], str(cache), ggml=pin.folder_name)
    check_lacks((*find_lacks(host, installs=installs), *room))
    # From here on with real folders.
    host, plans = door.symbols.show_in(host), tuple(map(door.symbols.show_in, plans))
    toolchain = with_tools(system, host.toolchain, cache, tell, passing=wish.passing)
    source = find_source(system, pin, cache, wish.ggml_dir, tell)
    wheels: list[Wheel] = []
    for made in plans:
        # The timeline that was asked for is that of the plan that was asked for.
        own = wish if made is plans[-1] else replace(wish, trace=None)
        base = Path(wheels[-1].path) if wheels else None
        wheels.append(_make_wheel(system, host, made, toolchain, source, own, python, cache, base, tell))
    return list(zip(plans, wheels, strict=True))


def _make_wheel(
    system: System,
    host: Host,
    made: Plan,
    toolchain: ToolchainFacts,
    source: GgmlSource,
    wish: Wish,
    python: str,
    cache: Path,
    base: Path | None,
    tell: Listener,
) -> Wheel:
    """One proven wheel; `base` is that of the engine where it is a plugin's."""
    sources, inputs, key = _decided(system, host, made, toolchain, source)
    cached = take_cached(cache, key)
    if cached:
        if wish.trace:
            tell(Hint(NO_TIMELINE))
        tell(StepDone("build", f"nothing changed; reusing {Path(cached.path).name}, built and proven before"))
        return cached
    # Before the compilers take their time.
    now = replace(host, disk=probe_disk(system, Findings()))
    folder = _folder(cache, made, inputs)
    ggml = Path(source.folder).name if source.pinned else ""
    check_lacks(disk_lacks(now, made, str(cache), ggml=ggml, build=folder.root.name))
    toolchain = read_tools(system, toolchain, cache)
    sources, inputs, key = _decided(system, host, made, toolchain, source)
    repairer = bring_repairer(system, host.os.name, cache, tell) if made.portable else None
    if made.toolkit and made.toolkit.download:
        _toolkit(system, made.toolkit, cache, tell, compiles=True)
    # Tools that were brought anew may be of another version, which has its own folder.
    folder = _folder(cache, made, inputs)
    try:
        make_private(folder.root)
        stage(sources, folder.sources)
        _mind_the_clock(folder, cache, tell)
        means = Means(
            room=_room(system, host, wish.request.memory), learned=cache / "costs", trace=wish.trace
        )
        wheel, whole = _build(made, toolchain, source, folder, means, key, tell)
        if repairer:
            wheel = _repair(wheel, made, toolchain, repairer, folder, tell)
        tell(StepStarted("verify"))
        # Without the device its wheel computes on the CPU all the same, and that can be proven.
        device = made.device if made.proof == "device" else DEVICES["cpu"]
        beside = libraries_beside(made.toolkit) if made.toolkit else {}
        proof = prove_wheel(Path(wheel.path), python, device, cache, tell, made.environment, beside, base)
        unproven = "" if device == made.device else f"; {made.device} is not here and not proven"
        chunks = f"{proof.chunks} chunks mapped, " if proof.chunks else ""
        tell(
            StepDone(
                "verify", f"{chunks}computed on {proof.device}, {proof.agree} operations agree{unproven}"
            )
        )
        return keep(cache, wheel, proof, whole=whole)
    except OSError as error:
        hint = "Look at the permissions there, and run this again."
        if error.errno == errno.ENOSPC:
            hint = free_space_hint(folder)
        raise BuildFailedError(
            f"Building in {folder.root} failed: {error}. {hint}\nWhat was said until then is in {folder.log}",
            log=str(folder.log),
        ) from error


def _folder(cache: Path, made: Plan, inputs: dict[str, Any]) -> Folder:
    return Folder(cache / "build" / f"{made.preset}-{digest(inputs)[:10]}")


def _decided(
    system: System, host: Host, made: Plan, toolchain: ToolchainFacts, source: GgmlSource
) -> tuple[dict[str, bytes], dict[str, Any], str]:
    """The sources of a wheel, what decides its build folder, and the key of all that decides it."""
    requires = made.toolkit.requires if made.toolkit else ()
    sources = requiring(read_sources(data_dir()), requires, made.plugin)
    inputs = plan_inputs(made, presets()[made.preset].variables, host, toolchain, source.folder)
    tags = (host.python.platform, system.getenv("AUDITWHEEL_PLAT") if made.portable else None)
    key = digest(wheel_inputs(inputs, digests(sources), source.tree_sha256, " ".join(filter(None, tags))))
    return sources, inputs, key


def key_now(system: System, host: Host, made: Plan, cache: Path, ggml_dir: Path | None) -> str:
    """The key of the wheel that `install` would make of this plan, with real folders in it and in the host.

    Empty where something has to be fetched to know it. Nothing is written.
    """
    toolchain = tools_at_hand(system, host.toolchain, cache)
    if not toolchain:
        return ""
    pin = read_pin(data_dir())
    pinned = GgmlSource(
        folder=str(cache / "ggml" / pin.folder_name), tree_sha256=pin.tree_sha256, pinned=True
    )
    source = locate(pin, data_dir(), cache, ggml_dir) if ggml_dir else pinned
    return _decided(system, host, made, toolchain, source or pinned)[2]


def find_source(system: System, pin: Pin, cache: Path, chosen: Path | None, tell: Listener) -> GgmlSource:
    tell(StepStarted("ggml"))
    source = locate(pin, data_dir(), cache, chosen)
    if source is None:
        tell(Hint(f"fetching {pin.what} ({show_size(pin.archive_bytes)})"))
        source = fetch(system, pin, cache)
    where = (
        "fetched and verified"
        if source.fetched
        else "verified"
        if source.pinned
        else "your own tree, not the pinned one"
    )
    version = pin.what if source.pinned else source.folder
    tell(StepDone("ggml", f"{version}, {where}"))
    return source


def _toolkit(system: System, toolkit: PlannedToolkit, cache: Path, tell: Listener, *, compiles: bool) -> None:
    tell(StepStarted("toolkit"))
    fetched = fetch_toolkit(system, toolkit, cache, tell, compiles=compiles)
    tell(StepDone("toolkit", f"CUDA {toolkit.version}, {'fetched' if fetched else 'in the cache'}"))


def bring_libraries(
    system: System, target: Target, toolkit: PlannedToolkit, cache: Path, tell: Listener
) -> None:
    if toolkit.download:
        _toolkit(system, toolkit, cache, tell, compiles=False)
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
    give_back()
    built = build(made, toolchain, source.folder, folder, means, tell)
    done = f"{built.units} units in {built.seconds:.0f} s" if built.units else "nothing to compile"
    tell(StepDone("build", done))
    tell(StepStarted("package"))
    wheel = package(made, toolchain, source.folder, folder, key)
    tell(StepDone("package", f"{Path(wheel.path).name} ({show_size(Path(wheel.path).stat().st_size)})"))
    return wheel, built.whole


def _repair(
    wheel: Wheel,
    made: Plan,
    toolchain: ToolchainFacts,
    repairer: Repairer,
    folder: Folder,
    tell: Listener,
) -> Wheel:
    tell(StepStarted("repair"))
    repaired = repair(wheel, made, toolchain, repairer, folder)
    size = show_size(Path(repaired.path).stat().st_size)
    tell(StepDone("repair", f"{Path(repaired.path).name} ({size}), by {repairer.name} {repairer.version}"))
    return repaired
