"""How many jobs, in which order, and what is given up: decisions, told by tables and by properties."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import machines
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.build.governor import (
    Phase,
    Rung,
    admitted,
    jobs_that_fit,
    next_rung,
    phases,
    reclaiming_pays,
    spare,
    time_for,
)
from floatllm_build.build.pace import Pace
from floatllm_build.build.peaks import Cost
from floatllm_build.values import MemoryBound, MemoryFacts

MORE = st.integers(0, 5000)
LIMITS = st.integers(1, 64)
ROOMS = st.integers(-500, 5000)
COSTS = st.builds(Cost, st.integers(0, 2000), st.floats(0, 100))
LEFT = st.dictionaries(st.text("abcd", min_size=1, max_size=3), COSTS, max_size=12)


def peaks(*sizes: int) -> dict[str, Cost]:
    return {f"{number}.o": Cost(size, 0.0) for number, size in enumerate(sizes)}


# ---- phases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "limit", "room", "expected"),
    [
        ((), 4, 0, [((), 4)]),
        ((100, 100, 100), 2, 200, [((), 2)]),
        ((100, 100, 100), 2, 199, [(("0.o", "1.o", "2.o"), 1), ((), 2)]),
        # One at a time of the heavy ones, then what any four can do.
        ((900, 50, 60, 40, 70), 4, 1000, [(("0.o",), 4), ((), 4)]),
        ((900, 800, 50, 60, 40), 4, 1000, [(("0.o", "1.o"), 1), ((), 4)]),
        ((400, 300, 300, 50, 60), 4, 1000, [(("0.o", "1.o", "2.o"), 4), ((), 4)]),
        # Nothing fits: one at a time, and the kernel has the last word.
        ((100, 100), 8, 0, [(("0.o", "1.o"), 1), ((), 8)]),
    ],
)
def test_phases(sizes: tuple[int, ...], limit: int, room: int, expected: list[object]) -> None:
    assert phases(peaks(*sizes), limit, room) == tuple(Phase(*phase) for phase in expected)  # type: ignore[misc]


def members(left: Mapping[str, Cost], found: tuple[Phase, ...]) -> list[list[str]]:
    """What each phase builds: the last one what the others have left."""
    named = {unit for phase in found for unit in phase.units}
    return [list(phase.units) or [unit for unit in left if unit not in named] for phase in found]


@given(LEFT, LIMITS, ROOMS)
def test_each_unit_is_built_once_and_the_last_phase_takes_all_that_is_left(
    left: dict[str, Cost], limit: int, room: int
) -> None:
    found = phases(left, limit, room)
    assert sorted(unit for units in members(left, found) for unit in units) == sorted(left)
    assert [bool(phase.units) for phase in found] == [True] * (len(found) - 1) + [False]
    assert all(1 <= phase.jobs <= limit for phase in found)


@given(LEFT, LIMITS, ROOMS)
def test_whichever_units_of_a_phase_run_at_once_they_fit(
    left: dict[str, Cost], limit: int, room: int
) -> None:
    found = phases(left, limit, room)
    for phase, units in zip(found, members(left, found), strict=True):
        largest = sorted((left[unit].peak for unit in units), reverse=True)[: phase.jobs]
        assert not largest or sum(largest) <= room or phase.jobs == 1


@given(LEFT, LIMITS, ROOMS, MORE)
def test_more_room_never_means_fewer_jobs(left: dict[str, Cost], limit: int, room: int, more: int) -> None:
    assert phases(left, limit, room + more)[0].jobs >= phases(left, limit, room)[0].jobs
    sizes = [cost.peak for cost in left.values()]
    assert jobs_that_fit(sizes, limit, room + more) >= jobs_that_fit(sizes, limit, room)


@given(LEFT, LIMITS, ROOMS)
def test_jobs_that_fit_is_the_largest_number_that_does(left: dict[str, Cost], limit: int, room: int) -> None:
    sizes = sorted((cost.peak for cost in left.values()), reverse=True)
    jobs = jobs_that_fit(sizes, limit, room)
    assert jobs == limit or sum(sizes[: jobs + 1]) > room


# ---- admission --------------------------------------------------------------------------------

RUNNING = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), max_size=8)


@pytest.mark.parametrize(
    ("running", "next_peak", "room", "limit", "jobs"),
    [
        ([], 100, 1000, 4, 4),
        ([], 100, 250, 4, 2),
        ([], 100, 0, 4, 1),
        # Two that will grow by 80 each leave 90 of 250: no room for a third.
        ([(20, 100), (20, 100)], 100, 250, 4, 2),
        ([(20, 100), (20, 100)], 100, 260, 4, 3),
        # One that took more than expected has that already.
        ([(300, 100)], 100, 99, 4, 1),
        ([(300, 100)], 100, 100, 4, 2),
        # Memory is gone: one that ends is not followed by another while the rest cannot grow as they will.
        ([(50, 100), (50, 100), (50, 100)], 100, 149, 4, 2),
        ([(50, 100), (50, 100), (50, 100)], 100, 0, 4, 1),
        # They took all they will, but others took of what is to stay free.
        ([(100, 100)] * 4, 100, 0, 4, 4),
        ([(100, 100)] * 4, 100, -1, 4, 3),
        ([(100, 100)] * 4, 100, -150, 4, 2),
        ([(50, 100)] * 6, 0, 10**6, 4, 4),
        ([], 100, -50, 4, 1),
    ],
)
def test_admitted(running: list[tuple[int, int]], next_peak: int, room: int, limit: int, jobs: int) -> None:
    assert admitted(running, next_peak, room, limit) == jobs


@given(RUNNING, st.integers(1, 2000), st.integers(-500, 5000), LIMITS)
def test_admitted_stays_within_one_and_the_limit_and_what_it_lets_run_fits(
    running: list[tuple[int, int]], next_peak: int, room: int, limit: int
) -> None:
    jobs = admitted(running, next_peak, room, limit)
    assert 1 <= jobs <= limit
    growth = sum(max(0, peak - resident) for resident, peak in running)
    assert jobs == 1 or growth + (jobs - len(running)) * next_peak <= room


@given(RUNNING, st.integers(0, 2000), ROOMS, MORE, LIMITS)
def test_more_room_never_admits_fewer(
    running: list[tuple[int, int]], next_peak: int, room: int, more: int, limit: int
) -> None:
    assert admitted(running, next_peak, room + more, limit) >= admitted(running, next_peak, room, limit)


# ---- reclaiming -------------------------------------------------------------------------------


def test_giving_memory_back_early_pays_where_it_doubles_the_jobs_or_makes_it_fit_at_all() -> None:
    plain, reclaimed = peaks(*[400] * 8), peaks(*[160] * 8)
    # Ample: a third slower for nothing.
    assert not reclaiming_pays(plain, reclaimed, 2, 800)
    # One beside none, against two at once that are a third slower each.
    assert reclaiming_pays(plain, reclaimed, 2, 500)
    # With one job nothing is gained by it, unless it does not fit otherwise.
    assert not reclaiming_pays(plain, reclaimed, 1, 500)
    assert reclaiming_pays(plain, reclaimed, 1, 399)
    assert not reclaiming_pays({}, {}, 4, 0)


def test_seconds_count_where_all_are_known() -> None:
    # The heavy units take hardly any time: to hurry them is worth nothing.
    light = {f"light{number}": Cost(50, 30.0) for number in range(8)}
    plain = {"heavy1": Cost(400, 1.0), "heavy2": Cost(400, 1.0), **light}
    reclaimed = {"heavy1": Cost(160, 1.0), "heavy2": Cost(160, 1.0), **light}
    assert not reclaiming_pays(plain, reclaimed, 2, 500)
    unknown = {unit: Cost(cost.peak, 0.0) for unit, cost in plain.items()}
    assert time_for(plain, 2, 500) == pytest.approx(2.0 + 120.0)
    assert time_for(unknown, 2, 500) == pytest.approx(800 + 200)


@given(LEFT, LIMITS, ROOMS)
def test_what_takes_no_less_memory_never_pays_where_it_fits(
    left: dict[str, Cost], limit: int, room: int
) -> None:
    fits = max((cost.peak for cost in left.values()), default=0) <= room
    assert reclaiming_pays(left, left, limit, room) != fits


# ---- the ladder -------------------------------------------------------------------------------


def down(rung: Rung, compiler: str, backend: str, *, alone: bool) -> list[str]:
    said = []
    while step := next_rung(rung, compiler, backend, alone=alone):
        rung, words = step
        said.append(words)
        assert len(said) < 20
    return said


def test_the_ladder_in_its_order() -> None:
    top = Rung(jobs=4, reclaiming=False, smaller=False)
    gcc = "GCC gives memory back early, and compiles a third longer"
    jobs = ["2 jobs at a time", "one job at a time"]
    small = "what is left is optimised for size, which needs less memory"
    last = "GCC gives memory back all the time, and compiles half as long again"
    assert down(top, "gcc", "cpu", alone=False) == [gcc, *jobs, small, last]
    assert down(top, "clang", "cpu", alone=False) == [*jobs, small]
    assert down(top, "gcc", "cuda", alone=False) == [
        gcc,
        *jobs,
        small,
        last,
        "cuda without its flash attention kernels",
    ]
    assert down(top, "clang", "vulkan", alone=False) == [*jobs, small]
    # Where it had all to itself, fewer jobs give it nothing.
    assert down(top, "gcc", "cpu", alone=True) == [gcc, small, last]
    assert not down(Rung(jobs=1, reclaiming=True, smaller=True, sparing=True), "gcc", "cpu", alone=True)


RUNGS = st.builds(
    Rung,
    jobs=st.integers(1, 512),
    reclaiming=st.booleans(),
    smaller=st.booleans(),
    sparing=st.booleans(),
    flash_attention=st.booleans(),
)


@given(
    RUNGS,
    st.sampled_from(("gcc", "clang", "msvc", "unknown")),
    st.sampled_from(("cpu", "cuda", "hip", "vulkan", "metal")),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_each_rung_gives_exactly_one_thing_up_and_the_ladder_ends(
    rung: Rung, compiler: str, backend: str, alone: list[bool]
) -> None:
    def given_up(rung: Rung) -> tuple[int, bool, bool, bool]:
        return -rung.jobs, rung.reclaiming, rung.smaller, rung.sparing, not rung.flash_attention

    for number in itertools.count():
        step = next_rung(rung, compiler, backend, alone=alone[number])
        if step is None:
            break
        pairs = list(zip(given_up(rung), given_up(step[0]), strict=True))
        assert all(before <= after for before, after in pairs)
        assert sum(before != after for before, after in pairs) == 1
        assert step[1]
        rung = step[0]
    assert rung.smaller


# ---- pace -------------------------------------------------------------------------------------


def test_the_time_left_follows_what_units_took_before() -> None:
    pace = Pace(4, {"a": 10.0, "b": 10.0, "c": 60.0})
    assert pace.left(5.0) == 0.0
    pace.end("a", 10.0)
    # 10 of 80 + the average for the unit that nobody knows, in 10 seconds.
    whole = 80 + 80 / 3
    assert pace.left(10.0) == pytest.approx(whole - 10)
    assert pace.left(20.0) == pytest.approx(whole - 20)
    pace.end("b", 15.0)
    assert pace.left(15.0) == pytest.approx(15 / 20 * (whole - 20))
    pace.again(["a", "b", "c"])
    assert pace.left(20.0) == 0.0


def test_without_knowledge_units_count_alike_and_there_is_no_early_guess() -> None:
    pace = Pace(10, {})
    pace.end("a", 1.0)
    assert pace.left(2.0) == 0.0
    pace.end("b", 4.0)
    assert pace.left(4.0) == pytest.approx(16.0)


@given(LEFT, st.integers(0, 10), st.data())
def test_the_time_left_is_never_negative_and_zero_at_the_end(
    left: dict[str, Cost], others: int, data: st.DataObject
) -> None:
    pace = Pace(len(left) + others, {unit: cost.seconds for unit, cost in left.items() if cost.seconds})
    now = 0.0
    for unit in data.draw(st.permutations([*left, *(f"other{number}" for number in range(others))])):
        now += data.draw(st.floats(0, 50))
        pace.end(unit, now)
        assert pace.left(now + data.draw(st.floats(0, 50))) >= 0.0
    assert pace.left(now) == pytest.approx(0.0, abs=1e-6 * max(now, 1.0))


def test_what_is_spare() -> None:
    def memory(*rooms: int) -> MemoryFacts:
        bounds = tuple(MemoryBound(source="a group", limit=1 << 34, room=room) for room in rooms)
        return replace(machines.memory(1 << 34), bounds=bounds, room=min(rooms, default=0))

    assert spare(memory(1000, 300), 50, None, 40) == 260
    assert spare(memory(1000), 50, 400, 40) == 310
    # A full group is no group without a limit.
    assert spare(memory(0), 50, None, 40) == -40
    assert spare(memory(), 50, None, 40) > 1 << 60
    assert spare(memory(), 50, 400, 40) == 310
