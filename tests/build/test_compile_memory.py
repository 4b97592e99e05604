"""Real builds of units in too little memory: governed, killed, done with less, gone on with."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import LIMIT
from tiny_build import (
    Group,
    Told,
    Unit,
    build,
    build_command,
    group_or_skip,
    known,
    make_project,
    ninja_from_wheel,
)

from floatllm_build.events import Event, Hint

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="made for POSIX"),
    pytest.mark.compiler,
    pytest.mark.usefixtures("cc"),
    pytest.mark.network,
]


@pytest.fixture
def group() -> Iterator[Group]:
    yield from group_or_skip("compile")


def at_once(spans: list[dict[str, Any]]) -> int:
    """The most units that ran at the same time."""
    return max(
        (sum(o["start"] <= s["start"] < o["end"] for o in spans) for s in spans),
        default=0,
    )


def hints(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Hint)]


SIX = [Unit(f"dir/{letter}.cpp.o", 60) for letter in "abcdef"]
# The build's own Python and ninja take 30 MiB of it: two fit, three do not.
ROOM_FOR_TWO = 200


def test_no_more_at_once_than_fit_and_none_is_killed(tmp_path: Path, group: Group, ninja: str) -> None:
    make_project(tmp_path / "b", SIX)
    group.limit(ROOM_FOR_TWO)
    found = group.build(Told(str(tmp_path / "b"), 6, ninja, known(SIX)))
    assert (found["code"], found["error"], found["hints"]) == (0, "", [])
    assert group.kills == 0
    assert sorted(span["unit"] for span in found["spans"]) == [unit.name for unit in SIX]
    assert at_once(found["spans"]) == 2
    assert all((tmp_path / "b" / "out" / unit.name).is_file() for unit in SIX)


def test_without_the_governor_they_are_killed(tmp_path: Path, group: Group, ninja: str) -> None:
    folder = make_project(tmp_path / "b", SIX)
    group.limit(ROOM_FOR_TWO)
    process = group.start(ninja, "-C", folder.out, "-j6")
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode != 0
    assert "Killed signal" in said
    assert group.kills > 0


MANY = [Unit(f"{number}.o", 70, 300) for number in range(140)]


# Takes 4 MiB for each unit that is made, up to 300: so it is as slow as the build, however busy the machine;
# and no more than 27 MiB in a second.
INTRUDER = """
import pathlib, sys, time
held = []
while True:
    made = sum(1 for _ in pathlib.Path(sys.argv[1]).glob("*.o"))
    if len(held) < min(75, made):
        held.append(b"x" * (4 << 20))
    time.sleep(0.15)
"""


def with_an_intruder(folder: Path, group: Group, ninja: str) -> dict[str, Any]:
    """What came of a build in the group, where another process takes 300 MiB little by little."""
    make_project(folder, MANY)
    # Two at once fit beside the intruder for a while, should the machine be busy; four never.
    group.limit(520)
    told = Told(str(folder), 4, ninja, known(MANY), reserve=80)
    process = group.start(*build_command(told))
    intruder = group.start(sys.executable, "-S", "-c", INTRUDER, folder / "out")
    try:
        said, _ = process.communicate(timeout=LIMIT)
    finally:
        intruder.kill()
        intruder.communicate()
    return dict(json.loads(said))


@pytest.mark.ci
def test_memory_that_vanishes_meanwhile_means_fewer_jobs(tmp_path: Path, group: Group, modern: str) -> None:
    # Memory is taken while the governor waits for a CPU: beside other work that may be too long once.
    for attempt in range(3):
        before = group.kills
        found = with_an_intruder(tmp_path / f"b{attempt}", group, modern)
        if group.kills == before:
            break
    assert (found["code"], found["hints"], group.kills) == (0, [], before)
    assert at_once(found["spans"]) == 4
    jobs = [moment["jobs"] for moment in found["progress"]]
    assert max(jobs) == 4
    assert jobs[-1] <= 2


@pytest.mark.ci
def test_without_the_governor_vanished_memory_kills(tmp_path: Path, group: Group) -> None:
    """An old ninja has its number once and for all."""
    with_an_intruder(tmp_path / "b", group, ninja_from_wheel("ninja==1.11.1.*"))
    assert group.kills > 0


def test_one_that_fits_nowhere_and_the_way_down(tmp_path: Path, group: Group, ninja: str) -> None:
    """Twice as much as there is even with all flags; what is believed of it says that four fit."""
    small = [Unit(f"{number}.cpp.o", 10, 100) for number in range(6)]
    big = Unit("dir/big.cpp.o", 1200, 300)
    folder = make_project(tmp_path / "b", [*small, big])
    told = Told(str(tmp_path / "b"), 4, ninja, known(small) | {big.name: 20}, compiler="gcc")
    group.limit(150)
    found = group.build(told)
    assert found["code"] == 4
    assert "big.cpp" in found["error"]
    assert re.search(r"\d+(\.\d)? [MG]iB have to be free", found["error"])
    assert str(folder.log) in found["error"]
    start = "dir/big.cpp was ended for want of memory; from here on: "
    assert all(hint.startswith(start) for hint in found["hints"])
    # After the first death it is alone, and fewer jobs would give it nothing.
    assert [hint.removeprefix(start) for hint in found["hints"]] == [
        "GCC gives memory back early, and compiles a third longer",
        "what is left is optimised for size, which needs less memory",
        "GCC gives memory back all the time, and compiles half as long again",
    ]
    assert not (folder.out / big.name).exists()
    assert group.kills == 4
    made_before = {span["unit"] for span in found["spans"]}
    times = {unit: (folder.out / unit).stat().st_mtime_ns for unit in made_before}

    # With more memory it goes on where it stopped: what is made is not made again.
    group.limit(900)
    again = group.build(told)
    assert again["code"] == 0
    assert [hint.removeprefix(start) for hint in again["hints"]] == [
        "GCC gives memory back early, and compiles a third longer",
    ]
    assert {span["unit"] for span in again["spans"]} == {unit.name for unit in [*small, big]} - made_before
    assert times == {unit: (folder.out / unit).stat().st_mtime_ns for unit in made_before}
    # It is known now what it takes, and the next build does it right at once.
    (folder.out / big.name).unlink()
    later = group.build(told)
    assert (later["code"], later["hints"], later["rung"]["reclaiming"]) == (0, [], True)


def test_what_killed_a_build_is_known_to_the_next_one(tmp_path: Path, group: Group, ninja: str) -> None:
    """Two that do not fit beside each other, and are believed to: one death, then no more."""
    two = [Unit("a.o", 90, 1500), Unit("b.o", 90, 1500)]
    folder = make_project(tmp_path / "b", two)
    told = Told(str(tmp_path / "b"), 2, ninja, {"a.o": 3, "b.o": 3})
    group.limit(150)
    first = group.build(told)
    assert at_once(first["spans"]) == 1
    assert (first["code"], len(first["hints"])) == (0, 1), first["progress"][:3]
    assert "one job at a time" in first["hints"][0]
    kills = group.kills
    for unit in two:
        (folder.out / unit.name).unlink()
    second = group.build(told)
    assert (second["code"], second["hints"]) == (0, [])
    assert group.kills == kills
    assert at_once(second["spans"]) == 1


def test_what_was_given_up_stays_given_up_where_the_objects_stay(tmp_path: Path, ninja: str) -> None:
    """Else the next build would take the smaller engine for a whole one."""
    big = Unit("big.cpp.o", 20, 200, "starves")
    folder = make_project(tmp_path / "b", [big])
    told = Told(str(tmp_path / "b"), 2, ninja, known([big]), room=1000)
    first, events = build(told)
    assert hints(events) == [
        f"big.cpp was ended for want of memory; from here on: {what}"
        for what in ("what is left is optimised for size, which needs less memory",)
    ]
    assert (first.rung.smaller, folder.flags.read_text()) == (True, "-Os\n")
    folder.flags.write_text("")
    again, events = build(told)
    assert (again.spans, again.rung.smaller, folder.flags.read_text()) == ([], True, "-Os\n")
    assert [hint.endswith("try it without.") for hint in hints(events)] == [True]
    # Anew, it is whole where memory is there.
    shutil.rmtree(folder.root)
    make_project(tmp_path / "b", [replace(big, kind="")])
    whole, events = build(told)
    assert (len(whole.spans), whole.rung.smaller) == (1, False)
