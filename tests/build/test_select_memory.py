"""What the choices make of memory and CPUs: jobs, their peak, and the presets that need less, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from machines import GOOD_VULKAN, NVIDIA, PC
from plans import PRESETS, plan, rules

from floatllm_build.rules.cost import memory_rung
from floatllm_build.sizes import GIB, MIB
from floatllm_build.values import Host


@pytest.mark.parametrize(
    ("usable", "room", "compiler", "jobs"),
    [
        (8, 12 * GIB, machines.GCC, 8),
        (8, 2 * GIB, machines.GCC, 4),
        (8, 600 * MIB, machines.GCC, 1),
        (8, 2 * GIB, machines.CLANG, 8),
        (2, 64 * GIB, machines.GCC, 2),
        (4, 0, machines.GCC, 4),
    ],
)
def test_jobs_follow_cpus_and_memory(usable: int, room: int, compiler: object, jobs: int) -> None:
    host = machines.pc(
        cpu=replace(PC.cpu, usable=usable),
        memory=machines.memory(64 * GIB, room),
        toolchain=replace(PC.toolchain, cxx=compiler),
    )
    made = plan(host)
    assert made.jobs == jobs
    assert made.memory_peak == jobs * made.memory_per_job + 128 * MIB


@pytest.mark.parametrize(
    ("rung", "compiler", "jobs", "peak"),
    [
        # mul_mm.comp.cpp 3500, ggml-vulkan.cpp 1600, 420 for each further one, and 128 in reserve.
        (3 * GIB, machines.GCC, 1, 3628),
        (4 * GIB, machines.GCC, 1, 3628),
        (6 * GIB, machines.GCC, 4, 3500 + 1600 + 2 * 420 + 128),
        (8 * GIB, machines.GCC, 9, 3500 + 1600 + 7 * 420 + 128),
        (12 * GIB, machines.GCC, 16, 3500 + 1600 + 14 * 420 + 128),
        (4 * GIB, machines.CLANG, 1, 2928),
        (6 * GIB, machines.CLANG, 5, 2800 + 1600 + 3 * 420 + 128),
    ],
)
def test_vulkan_has_two_heavy_units(rung: int, compiler: object, jobs: int, peak: int) -> None:
    host = machines.pc(
        cpu=replace(PC.cpu, usable=16),
        memory=machines.memory(64 * GIB, rung),
        vulkan=GOOD_VULKAN,
        toolchain=replace(PC.toolchain, cxx=compiler),
    )
    made = plan(host)
    assert (made.preset, made.memory_rung, made.jobs) == ("vulkan", rung, jobs)
    assert made.memory_peak == peak * MIB


def test_jobs_that_were_asked_for_have_their_peak_too() -> None:
    host = machines.pc(vulkan=GOOD_VULKAN)
    assert plan(host, jobs=1).memory_peak == 3628 * MIB
    assert plan(host, jobs=2).memory_peak == (3500 + 1600 + 128) * MIB
    assert plan(host, jobs=3).memory_peak == (3500 + 1600 + 420 + 128) * MIB


def test_what_the_user_says_about_jobs_and_memory_wins() -> None:
    assert plan(PC, jobs=3).jobs == 3
    assert plan(PC, memory=512 * MIB).preset == "cpu-low-mem"
    assert plan(PC, low_mem=True).preset == "cpu-low-mem"
    assert plan(machines.phone("asimd", capacity=12 * GIB), low_mem=True).preset == "android-low-mem"


def test_a_raspberry_pi_with_2_gib_makes_gcc_collect_its_garbage() -> None:
    pi = machines.pc(memory=machines.memory(2 * GIB), cpu=replace(PC.cpu, arch="arm64", usable=4))
    made = plan(pi)
    assert (made.preset, made.jobs, made.memory_per_job) == ("cpu-low-mem", 1, 160 * MIB)
    flags = PRESETS["cpu-low-mem"].variables["CMAKE_CXX_FLAGS"]
    wanted = f"{flags} --param ggc-min-expand=10 --param ggc-min-heapsize=32768"
    assert f"CMAKE_CXX_FLAGS={wanted}" in made.defines
    assert f"CMAKE_C_FLAGS={wanted}" in made.defines
    assert f"-DCMAKE_CXX_FLAGS={wanted}" in made.cmake
    assert "gcc-reclaim" in rules(made)


def test_clang_knows_no_such_flags() -> None:
    made = plan(machines.phone("asimd"))
    assert (made.preset, made.jobs) == ("android-low-mem", 1)
    assert "gcc-reclaim" not in rules(made)
    assert not any("ggc" in word for word in made.cmake)


SCARCE = machines.pc(memory=machines.memory(8 * GIB, 400 * MIB))


@pytest.mark.parametrize("request_", [{}, {"jobs": 2}, {"preset": "cpu"}, {"portable": True}])
def test_where_gcc_fits_once_it_saves_memory_that_is_said(request_: dict[str, Any]) -> None:
    told = {reason.rule: reason.text for reason in plan(SCARCE, **request_).reasons}
    assert "420 MiB and 384 MiB are there" in told["gcc-reclaim-if-short"]
    assert "(160 MiB)" in told["gcc-reclaim-if-short"]
    assert "tight-memory" not in told


@pytest.mark.parametrize(
    ("host", "request_", "fix"),
    [
        (machines.pc(memory=machines.memory(8 * GIB, 400 * MIB), cuda=NVIDIA), {}, "close other programs"),
        (machines.pc(memory=machines.memory(8 * GIB, 100 * MIB)), {}, "close other programs"),
        (machines.phone("asimd", capacity=100 * MIB), {}, "close other programs"),
        (PC, {"memory": 100 * MIB}, "name more --memory"),
    ],
)
def test_memory_too_small_for_one_compile_is_said(host: Host, request_: dict[str, Any], fix: str) -> None:
    told = next(reason.text for reason in plan(host, **request_).reasons if reason.rule == "tight-memory")
    assert "tried again with less" in told
    assert fix in told
    assert not {"tight-memory", "gcc-reclaim"} & set(rules(plan(PC)))


def test_more_jobs_than_fit_now_may_run_when_memory_comes_free() -> None:
    made = plan(machines.pc(memory=machines.memory(8 * GIB, 1 * GIB), cpu=replace(PC.cpu, usable=16)))
    assert (made.jobs, made.jobs_limit) == (2, 16)
    assert plan(PC, jobs=3).jobs_limit == 3
    # The recipe is one at a time.
    assert plan(PC, low_mem=True).jobs_limit == 1


def test_a_low_memory_plan_says_where_the_fast_engine_fits_too() -> None:
    pi = machines.pc(memory=machines.memory(2 * GIB), cpu=replace(PC.cpu, arch="arm64", usable=4))
    told = {reason.rule: reason.text for reason in plan(pi).reasons}
    assert "--preset cpu fits too (160 MiB for a compile)" in told["fast-fits"]
    assert "fast-fits" not in rules(plan(machines.pc(memory=machines.memory(256 * MIB))))
    assert "fast-fits" not in rules(plan(PC))


@pytest.mark.parametrize(("size", "rung"), [(0, 0), (3, 3), (1023, 768), (1024, 1024), (3 * GIB, 3 * GIB)])
def test_rungs(size: int, rung: int) -> None:
    assert memory_rung(size) == rung
