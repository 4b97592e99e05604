"""Host and Request in, Plan out. Pure: no file, no process, no clock.

The rules that fired and the backends that were rejected are part of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.presets import Preset, find_preset
from floatllm_build.rules import FITTERS
from floatllm_build.rules.cmake_args import heed
from floatllm_build.rules.cost import (
    GCC_RECLAIM,
    LEAST_MEMORY,
    LOW_MEM_CAPACITY,
    LOW_MEM_COST,
    RESERVE,
    downloads,
    job_memory,
    jobs_within,
    least_memory,
    low_mem_flags,
    memory_peak,
    memory_rung,
    sane_size,
)
from floatllm_build.rules.cpu import cpu_defines
from floatllm_build.rules.disk import disk_needed
from floatllm_build.rules.fit import Fit, Obstacle, Terms, join
from floatllm_build.rules.limits import address_space_binds
from floatllm_build.rules.machine import refusal
from floatllm_build.sizes import show_size
from floatllm_build.values import BACKENDS, Backend, Host, Plan, Reason, Rejection, Request

DEVICES: Mapping[Backend, str] = {
    "metal": "MTL0",
    "cuda": "CUDA0",
    "hip": "ROCm0",
    "vulkan": "Vulkan0",
    "cpu": "CPU",
}
# The preset of the wheel that plugins depend on.
_BASE = "wheel-cpu"
# How the architectures of a backend are written.
_ARCHITECTURES: Mapping[Backend, str] = {"cuda": r"[1-9][0-9]{1,2}a?", "hip": r"gfx[0-9a-f]{3,5}"}


def make_plan(host: Host, request: Request, presets: Mapping[str, Preset]) -> Plan:
    """The plan, with reasons.

    Raises MissingError where this machine cannot run the engine at all or not the backend that was asked
    for, and UsageFaultError if options contradict each other or name no preset.
    """
    if refused := refusal(host, portable=_is_portable(request, presets)):
        raise MissingError(refused)
    check_request(request, presets)
    reasons: list[Reason] = []
    backend, fit, rejections = _choose_backend(host, request, presets, reasons)
    preset = _choose_preset(host, request, presets, backend, reasons)
    reasons += _plugin(preset)
    reasons += fit.reasons
    reasons += _hidden(host, backend)
    rung = memory_rung(sane_size(request.memory or host.memory.room))
    peaks = job_memory(host, preset)
    jobs = _choose_jobs(host, request, preset, rung, peaks, reasons)
    if rung and rung < peaks[0]:
        reasons.append(_tight(host, request, presets, preset, peaks[0], rung))
    defines = _defines(host, preset, fit, reasons)
    _heed_cmake_args(request, preset, defines, rejections, reasons)
    if preset.low_mem and not request.preset:
        reasons += _fast_fits(host, request, presets, backend)
    cc, cxx = host.toolchain.c, host.toolchain.cxx
    fetched = (*downloads(host, portable=preset.portable), *fit.downloads)
    return Plan(
        preset=preset.name,
        backend=backend,
        device=f"{DEVICES[backend][:-1]}{fit.device}" if fit.device else DEVICES[backend],
        portable=preset.portable,
        plugin=preset.plugin,
        low_mem=preset.low_mem,
        jobs=jobs,
        jobs_limit=request.jobs or (preset.jobs if preset.low_mem else 0) or max(jobs, host.cpu.usable),
        memory_rung=rung,
        memory_per_job=peaks[0],
        memory_peak=memory_peak(peaks, jobs),
        disk=disk_needed(preset, fetched, fit.toolkit),
        architectures=fit.architectures,
        downloads=fetched,
        toolkit=fit.toolkit,
        proof="device" if fit.proven else "none",
        environment=fit.environment,
        defines=defines,
        cmake=(
            *("cmake", "--preset", preset.name, "-S", "{build}/src/native", "-B", "{build}/out"),
            "-DGGML_DIR={ggml}",
            *(f"-D{define}" for define in defines),
            # Recorded in the manifest; a wheel leaves this tool only after its proof.
            f"-DFLOATLLM_PROOF={'device' if fit.proven else 'none'}",
            *request.cmake_args,
        ),
        cc=cc.command if cc else "",
        cxx=cxx.command if cxx else "",
        cpu="" if preset.portable else " ".join((host.cpu.arch, host.cpu.name, *host.cpu.features)),
        reasons=tuple(reasons),
        rejections=rejections,
    )


def _is_portable(request: Request, presets: Mapping[str, Preset]) -> bool:
    named = presets.get(request.preset or "")
    return request.portable or (named is not None and named.portable)


def check_request(request: Request, presets: Mapping[str, Preset]) -> None:
    """What can be said without a machine. Raises UsageFaultError as `make_plan` does."""
    _check_numbers(request)
    _check_machine(request, presets)
    _asked_backend(request, presets)
    _check_kind(request, presets)


def make_plans(host: Host, request: Request, presets: Mapping[str, Preset]) -> tuple[Plan, ...]:
    """The plan, behind that of the wheel that its own depends on. Raises as `make_plan` does."""
    made = make_plan(host, request, presets)
    if not made.plugin:
        return (made,)
    base = make_plan(host, replace(request, backend=None, preset=_BASE, architectures=()), presets)
    needed = Reason(rule="base", text=f"{made.distribution} depends on it")
    reasons = tuple(reason for reason in base.reasons if reason.rule != "asked")
    return (replace(base, reasons=(needed, *reasons)), made)


def _plugin(preset: Preset) -> tuple[Reason, ...]:
    if not preset.plugin:
        return ()
    text = (
        f"two wheels are made: floatllm, by preset {_BASE}, and floatllm-{preset.plugin}, which adds "
        f"{preset.backend} to it"
    )
    return (Reason(rule="plugin", text=text),)


def _check_numbers(request: Request) -> None:
    for name, value in (("memory", request.memory), ("jobs", request.jobs)):
        if value is not None and value < 1:
            raise UsageFaultError(f"--{name} is {value}. Give a number of 1 or more, or leave it out.")
    if request.memory and request.memory < LEAST_MEMORY:
        raise UsageFaultError(
            f"--memory is {show_size(request.memory)}, and no compiler builds the engine in less than "
            f"{show_size(LEAST_MEMORY)}. Give more, with a unit (512M, 2GiB), or leave it out."
        )


def _check_machine(request: Request, presets: Mapping[str, Preset]) -> None:
    if request.preset and find_preset(presets, request.preset).cross:
        raise UsageFaultError(
            f"Preset `{request.preset}` is for another machine, where this one cannot prove the result. "
            f"Use plain cmake: cmake --preset {request.preset} -S native"
        )


def _check_kind(request: Request, presets: Mapping[str, Preset]) -> None:
    if request.preset:
        preset = find_preset(presets, request.preset)
        if request.low_mem and not preset.low_mem:
            raise UsageFaultError(
                f"Preset `{preset.name}` is no low-memory preset. Leave out --low-mem or --preset."
            )
        if request.portable and not preset.portable:
            raise UsageFaultError(
                f"Preset `{preset.name}` is not portable. Leave out --portable or --preset."
            )
    elif request.portable and request.low_mem:
        raise UsageFaultError("There is no low-memory preset for portable wheels. Leave out one of the two.")


# ---- backend ----------------------------------------------------------------------------------


def _choose_backend(
    host: Host, request: Request, presets: Mapping[str, Preset], reasons: list[Reason]
) -> tuple[Backend, Fit, tuple[Rejection, ...]]:
    asked, what = _asked_backend(request, presets)
    answers = {
        backend: FITTERS[backend](host, _terms(request, presets, backend, asked)) for backend in BACKENDS
    }
    rejections = tuple(
        Rejection(backend=backend, reason=answer.reason, fix=answer.fix)
        for backend, answer in answers.items()
        if isinstance(answer, Obstacle)
    )
    if asked:
        answer = answers[asked]
        if isinstance(answer, Obstacle):
            raise MissingError(f"{what} was asked for, but {answer.reason}. To get it: {answer.fix}.")
        reasons.append(Reason(rule="asked", text=f"{what} was asked for"))
        return asked, answer, rejections
    backend, fit = next((b, answer) for b, answer in answers.items() if isinstance(answer, Fit))
    best = f"{backend} is the fastest backend that this machine can build and run"
    reasons.append(Reason(rule="best-backend", text="no GPU can be used" if backend == "cpu" else best))
    return backend, fit, rejections


def _hidden(host: Host, backend: Backend) -> tuple[Reason, ...]:
    """The probe and the proof see all GPUs, whatever this shell lets programs see."""
    notes = (note for note in host.notes if note.source == "CUDA_VISIBLE_DEVICES")
    if backend != "cuda" or not any(notes):
        return ()
    text = (
        "CUDA_VISIBLE_DEVICES is set: while it is, programs see no GPU but those that it names, and none "
        "where it is empty; the proof is made without it"
    )
    return (Reason(rule="hidden-gpus", text=text),)


def _asked_backend(request: Request, presets: Mapping[str, Preset]) -> tuple[Backend | None, str]:
    """The backend that the request leaves as the only one, and the words that asked for it.

    Architectures ask for a backend too: where 86 was named, a build without CUDA is not what was meant.
    """
    asks: dict[str, Backend] = {}
    if request.preset:
        asks[f"preset {request.preset}"] = find_preset(presets, request.preset).backend
    if request.backend:
        asks[request.backend] = request.backend
    for name in request.architectures:
        kind = (backend for backend, form in _ARCHITECTURES.items() if re.fullmatch(form, name))
        backend = next(kind, None)
        if backend is None:
            raise UsageFaultError(
                f"`{name}` is no architecture of a GPU. Write 86 or 90a for NVIDIA's, gfx1100 for AMD's."
            )
        asks[f"architecture {name}"] = backend
    if len(set(asks.values())) > 1:
        told = join([f"{words} is {backend}" for words, backend in asks.items()])
        raise UsageFaultError(f"These options contradict each other: {told}. Give only one of them.")
    return next(((backend, words) for words, backend in asks.items()), (None, ""))


def _terms(request: Request, presets: Mapping[str, Preset], backend: Backend, asked: Backend | None) -> Terms:
    named = backend == asked
    preset = presets.get(request.preset or (f"wheel-{backend}" if request.portable else backend))
    return Terms(
        named=named,
        portable=request.portable or (preset is not None and preset.portable),
        plugin=preset.plugin if preset else "",
        architectures=request.architectures if named else (),
        without_device=named and request.portable,
    )


# ---- preset, jobs, flags ----------------------------------------------------------------------


def _choose_preset(
    host: Host, request: Request, presets: Mapping[str, Preset], backend: Backend, reasons: list[Reason]
) -> Preset:
    if request.preset:
        return find_preset(presets, request.preset)
    if request.portable:
        reasons.append(Reason(rule="portable", text="a wheel for any machine of the platform was asked for"))
        return find_preset(presets, f"wheel-{backend}")
    capacity = sane_size(request.memory or host.memory.capacity)
    small = 0 < capacity < LOW_MEM_CAPACITY
    low_name = _low_name(host, backend)
    if request.low_mem:
        if low_name not in presets:
            raise UsageFaultError(f"There is no low-memory preset for {backend}. Leave out --low-mem.")
        reasons.append(Reason(rule="low-mem", text="low memory was asked for"))
        return presets[low_name]
    if small and low_name in presets:
        what = "to build with" if request.memory else "of memory in all"
        if not request.memory and address_space_binds(host):
            what = "of address space, to which RLIMIT_AS (`ulimit -v`) limits this shell,"
        text = f"{show_size(capacity)} {what} is less than {show_size(LOW_MEM_CAPACITY)}"
        reasons.append(Reason(rule="low-mem", text=text))
        return presets[low_name]
    return find_preset(presets, backend)


def _fast_fits(
    host: Host, request: Request, presets: Mapping[str, Preset], backend: Backend
) -> tuple[Reason, ...]:
    """Says so where the engine that is optimised for speed could be compiled all the same."""
    capacity = sane_size(request.memory or host.memory.capacity)
    need = least_memory(host, presets[backend]) if backend in presets else 0
    if not 0 < need + RESERVE <= capacity:
        return ()
    text = f"--preset {backend} fits too ({show_size(need)} for a compile): {LOW_MEM_COST}"
    return (Reason(rule="fast-fits", text=text),)


def _low_name(host: Host, backend: Backend) -> str:
    return "android-low-mem" if host.os.name == "Android" and backend == "cpu" else f"{backend}-low-mem"


def _choose_jobs(
    host: Host,
    request: Request,
    preset: Preset,
    rung: int,
    peaks: tuple[int, ...],
    reasons: list[Reason],
) -> int:
    if request.jobs:
        reasons.append(Reason(rule="jobs", text=f"{request.jobs} jobs were asked for"))
        return request.jobs
    usable = host.cpu.usable
    fitting = jobs_within(peaks, rung) if rung else usable
    jobs = max(1, min(usable, fitting))
    peak, there = show_size(peaks[0]), show_size(rung)
    cpus = "1 usable CPU" if usable == 1 else f"{usable} usable CPUs"
    text = f"{cpus}, {there} to plan with, {peak} per compile at most"
    if preset.low_mem and preset.jobs:
        jobs, text = preset.jobs, f"{text}; the low-memory recipe runs {preset.jobs} at a time"
    reasons.append(Reason(rule="jobs", text=text))
    return jobs


def _tight(
    host: Host, request: Request, presets: Mapping[str, Preset], preset: Preset, peak: int, rung: int
) -> Reason:
    least = least_memory(host, preset)
    text = f"one compile can take {show_size(peak)} and {show_size(rung)} are there"
    if least <= rung:
        return Reason(rule="gcc-reclaim-if-short", text=f"{text}. {GCC_RECLAIM} ({show_size(least)})")
    low = presets.get(_low_name(host, preset.backend))
    less = job_memory(host, low)[0] if low else least
    # Clang takes what it takes, and so does the largest file of Vulkan's shaders.
    fix = "close other programs, or add swap"
    if request.memory:
        fix = "name more --memory"
    elif address_space_binds(host):
        fix = "lift the limit RLIMIT_AS on address space (`ulimit -v unlimited`)"
    if low and not preset.portable and less <= rung:
        option = f"--preset {low.name}" if request.preset else "--low-mem"
        fix = f"{option} makes it {show_size(less)}"
    return Reason(
        rule="tight-memory",
        text=f"{text}: a compile that is killed is tried again with less, as long as there is something to "
        f"give up. To be sure: {fix}",
    )


def _defines(host: Host, preset: Preset, fit: Fit, reasons: list[Reason]) -> tuple[str, ...]:
    defines: tuple[str, ...] = ()
    for ours, why in (
        ((), ()) if preset.portable else cpu_defines(host),
        low_mem_flags(host, preset),
    ):
        defines += ours
        reasons += why
    return (*defines, *fit.defines)


def _heed_cmake_args(
    request: Request,
    preset: Preset,
    defines: tuple[str, ...],
    rejections: tuple[Rejection, ...],
    reasons: list[Reason],
) -> None:
    """Raises MissingError where CMAKE_ARGS would have something else built than what is planned."""
    if not request.cmake_args:
        return
    variables = {**preset.variables, **dict(define.split("=", 1) for define in defines)}
    why_not = {no.backend: no.reason for no in rejections}
    heard = heed(request.cmake_args, preset.backend, variables, why_not)
    if heard.against:
        told = "".join(f"\n  {one}." for one in heard.against)
        raise MissingError(f"CMAKE_ARGS contradicts the plan (preset {preset.name}):{told}")
    if heard.instead:
        text = f"CMAKE_ARGS changes the plan: {join(list(heard.instead))}"
        reasons.insert(0, Reason(rule="cmake-args", text=text))
    else:
        reasons.append(Reason(rule="cmake-args", text="CMAKE_ARGS is set and is passed on"))
