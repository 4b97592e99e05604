"""Compiles a configured build folder without ever running out of memory.

The decisions are `governor`'s; this module carries them out: it runs ninja in phases, and when a job was
ended for want of memory all the same, gives something up and goes on where ninja stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from floatllm_build.build.governed import Ninja, Outcome, governed
from floatllm_build.build.governor import Phase, Rung, next_rung, phases, reclaiming_pays
from floatllm_build.build.ninja_log import planned_units
from floatllm_build.build.pace import Pace
from floatllm_build.build.peaks import Cost, Costs
from floatllm_build.build_folder import Folder, failure
from floatllm_build.diagnosis import OUT_OF_MEMORY, diagnose, failed_unit
from floatllm_build.errors import BuildFailedError
from floatllm_build.events import Hint, Listener
from floatllm_build.files import write_whole
from floatllm_build.ninja import NinjaReader, unit_name
from floatllm_build.process import run_child
from floatllm_build.rules.unit_memory import RECLAIM_FLAGS, SPARING_FLAGS
from floatllm_build.sizes import show_size

__all__ = ["Order", "Outcome", "compile_all"]

# A unit that was killed for memory needs at least this much more than was seen.
_AFTER_DEATH = 1.3
_SIGKILL = 9
_STAYS = "A former build here was short of memory, and what it gave up for that stays given up."
# In the folder of the objects: what was given up for some of them stays given up as long as they are there.
_GIVEN_UP = "floatllm-given-up.json"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to compile, and within which limits."""

    folder: Folder
    ninja: str
    ninja_version: str
    env: Mapping[str, str]
    jobs: int
    """At most."""
    blind_jobs: int
    """Where nothing is known of the units."""
    compiler: str
    backend: str
    low_mem: bool
    costs: Callable[[bool, bool], Costs]
    """(reclaiming, optimised for size) -> what units cost."""
    learn: Callable[[bool, bool, Mapping[str, Cost]], None]
    """Keeps what units were seen to cost, for `costs`."""
    room: Callable[[int], int]
    """Bytes that may still be taken, while the build's own processes take that many; may be less than 0."""
    reconfigure: Callable[[tuple[str, ...]], None]


@dataclass(frozen=True)
class _Left:
    """What is to be built: outputs that can be named as targets, and the number of all commands."""

    units: tuple[str, ...]
    total: int


@dataclass
class _Course:
    """One call of `compile_all`."""

    order: Order
    tell: Listener
    outcome: Outcome
    needs: dict[str, int] = field(default_factory=dict)
    """Bytes, at least, of units that were ended for want of memory.

    They stay when flags save some of it: what such a unit takes was guessed wrong, and one death is enough.
    """
    started: float = field(default_factory=time.monotonic)
    room: int = 0
    """Bytes that were there when the last phases were planned."""
    made_whole: int | None = None
    """Units that were made before something of the engine was given up, in this call."""
    alone: bool = False
    """Whether the units of the last phase ran one at a time."""


def compile_all(order: Order, tell: Listener, outcome: Outcome) -> None:
    """Builds all that is left. `outcome` is filled as it goes, so that a failure leaves what was seen.

    Raises BuildFailedError with the cause and the fix, once there is nothing more to give up.
    """
    course = _Course(order, tell, outcome)
    left = _left(order)
    given_up = _remembered(order.folder)
    outcome.rung = _first_rung(order, left.units, given_up)
    if given_up:
        tell(Hint(f"{_STAYS} `floatllm-build clean` and another install try it without."))
    pace = Pace(left.total, _known_seconds(order, outcome.rung, left.units))
    while True:
        _write_flags(order, outcome.rung)
        status, text = _run_phases(course, left, pace)
        if status == 0:
            return
        if not _died_of_memory(status, text):
            raise failure("Compiling", text, order.folder)
        _step_down(course, text)
        left = _left(order)
        pace.again(left.units)


def _left(order: Order) -> _Left:
    argv = (order.ninja, "-C", str(order.folder.out), "-n", "-v")
    reader, said = NinjaReader(), list[str]()

    def take(text: str) -> None:
        reader.feed(text)
        said.append(text)

    run_child(argv, cwd=order.folder.native, env=order.env, on_text=take)
    return _Left(planned_units("".join(said)), reader.total)


def _first_rung(order: Order, left: tuple[str, ...], given_up: dict[str, bool]) -> Rung:
    room, gcc = order.room(0), order.compiler == "gcc"
    known = [order.costs(reclaiming, order.low_mem) for reclaiming in (False, True)]
    plain, reclaimed = ({unit: costs.of(unit) for unit in left} for costs in known)
    early = gcc and (order.low_mem or reclaiming_pays(plain, reclaimed, order.jobs, room))
    planned = {"smaller": order.low_mem, "flash_attention": True}
    return Rung(jobs=order.jobs, reclaiming=early, **(planned | given_up))


def _remembered(folder: Folder) -> dict[str, bool]:
    """What objects that are there were made without; nothing where they are as planned."""
    try:
        given_up = json.loads((folder.out / _GIVEN_UP).read_text(encoding="utf-8"))
        return {name: bool(given_up[name]) for name in ("smaller", "flash_attention")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _remember(folder: Folder, rung: Rung) -> None:
    given_up = {"smaller": rung.smaller, "flash_attention": rung.flash_attention}
    write_whole(folder.out / _GIVEN_UP, json.dumps(given_up).encode())


def _known_seconds(order: Order, rung: Rung, left: tuple[str, ...]) -> dict[str, float]:
    costs = _costs(order, rung)
    return {unit: seconds for unit in left if (seconds := costs.of(unit).seconds)}


def _costs(order: Order, rung: Rung) -> Costs:
    return order.costs(rung.reclaiming, rung.smaller)


def _write_flags(order: Order, rung: Rung) -> None:
    # A low-memory plan has the first two among its own flags.
    flags = [] if order.low_mem else [RECLAIM_FLAGS] * rung.reclaiming + ["-Os"] * rung.smaller
    flags += [SPARING_FLAGS] * rung.sparing
    order.folder.flags.write_text("".join(f"{flag}\n" for flag in flags), encoding="utf-8")


def _run_phases(course: _Course, left: _Left, pace: Pace) -> tuple[int, str]:
    """Ninja, phase by phase, with one rung of the ladder: its last exit status, and all that it said."""
    order, outcome = course.order, course.outcome
    costs = _costs(order, outcome.rung)

    def cost(unit: str) -> Cost:
        known = costs.of(unit)
        need = course.needs.get(unit, 0)
        # What was ended once may have been too quick to be seen: it gets all that there is.
        return Cost(max(known.peak, need, course.room) if need else known.peak, known.seconds)

    course.room = order.room(0)
    waiting = {unit: cost(unit) for unit in left.units}
    done, said, status = pace.total - left.total, "", 0
    expected = {unit: known.peak for unit, known in waiting.items()}
    blind = Phase((), min(order.blind_jobs, outcome.rung.jobs))
    for phase in phases(waiting, outcome.rung.jobs, course.room) if waiting else (blind,):
        course.alone = phase.jobs == 1 or len(phase.units or waiting) == 1
        largest = max((waiting[unit].peak for unit in phase.units or waiting), default=0)
        run = governed(_ninja(course, phase, largest, expected), outcome, pace, done)
        order.learn(outcome.rung.reclaiming, outcome.rung.smaller, run.costs)
        done, said, status = done + run.done, said + run.text, run.status
        if status != 0:
            break
        for unit in phase.units:
            del waiting[unit]
    return status, said


def _ninja(course: _Course, phase: Phase, next_peak: int, expected: Mapping[str, int]) -> Ninja:
    order = course.order
    return Ninja(
        program=order.ninja,
        version=order.ninja_version,
        folder=order.folder,
        env=order.env,
        targets=phase.units,
        jobs=phase.jobs,
        room=order.room,
        tell=course.tell,
        started=course.started,
        next_peak=next_peak,
        expected=expected,
    )


def _died_of_memory(status: int, text: str) -> bool:
    found = diagnose(text)
    # Nobody but the system kills ninja itself: we ask it to end with a milder signal first.
    return status in {-_SIGKILL, 128 + _SIGKILL} or (found is not None and found.kind == OUT_OF_MEMORY)


def _step_down(course: _Course, text: str) -> None:
    """Gives up what comes next. Raises BuildFailedError where there is nothing."""
    order, before = course.order, course.outcome.rung
    found = diagnose(text)
    # Where ninja itself was killed, it says no unit.
    unit = (found.unit if found else "") or failed_unit(text)
    name = unit_name(f"Building {unit}") if unit else "a unit"
    seen, needed = course.outcome.peaks.get(unit, 0), 0
    if unit:
        known = _costs(order, before).of(unit)
        there = int(course.room * (_AFTER_DEATH if course.alone else 1))
        probable = max(known.peak, int(seen * _AFTER_DEATH))
        needed = max(probable, course.needs.get(unit, 0), there)
        # What was there is no measure of what it needs: others may have taken it meanwhile.
        order.learn(before.reclaiming, before.smaller, {unit: Cost(probable, known.seconds)})
        course.needs[unit] = needed
    step = next_rung(before, order.compiler, order.backend, alone=course.alone)
    if step is None:
        if course.made_whole == len(course.outcome.spans):
            # Nothing came of it: with more memory there is no need to go on like this.
            (order.folder.out / _GIVEN_UP).unlink(missing_ok=True)
        raise _too_little(order, name, seen, needed)
    course.outcome.rung, words = step
    rung = course.outcome.rung
    if (rung.smaller, rung.flash_attention) != (before.smaller, before.flash_attention):
        if course.made_whole is None and not _remembered(order.folder):
            course.made_whole = len(course.outcome.spans)
        _remember(order.folder, rung)
    course.tell(Hint(f"{name} was ended for want of memory; from here on: {words}"))
    if before.flash_attention != course.outcome.rung.flash_attention:
        order.reconfigure(("-DGGML_CUDA_FA=OFF",))


def _too_little(order: Order, name: str, seen: int, needed: int) -> BuildFailedError:
    free = max(0, order.room(0))
    took = f"it took {show_size(seen)} before the system ended it, " if seen else "the system ended it, "
    # It was alone with what is free.
    wanted = show_size(max(needed, int(free * _AFTER_DEATH)))
    return BuildFailedError(
        f"There is too little memory to compile {name}: {took}{show_size(free)} are free, and there is "
        f"nothing left to give up. {wanted} have to be free: close programs, add swap, or raise the "
        f"container's limit, and run this again; it goes on where it stopped.\n"
        f"Everything it said is in {order.folder.log}",
        log=str(order.folder.log),
    )
