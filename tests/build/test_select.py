"""Host and Request in, Plan out: the choices, as tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import machines
import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.presets import load_presets
from floatllm_build.select import arm_arch, make_plan, memory_rung
from floatllm_build.sizes import GIB, MIB
from floatllm_build.values import CudaFacts, HipFacts, Host, MetalFacts, Plan, Request

PRESETS = load_presets(Path(__file__).resolve().parents[2])
NVIDIA = CudaFacts(driver="550.54", devices=(machines.RTX_3060,), nvcc=machines.NVCC)
MAC = machines.pc(
    os=replace(machines.PC.os, name="Darwin", machine="arm64"), metal=MetalFacts(devices=("Apple M4",))
)


def plan(host: Host, **request: object) -> Plan:
    return make_plan(host, Request(**request), PRESETS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "preset", "device"),
    [
        (machines.PC, "cpu", "CPU"),
        (machines.pc(cuda=NVIDIA), "cuda", "CUDA0"),
        (machines.pc(cuda=replace(NVIDIA, nvcc=None)), "cpu", "CPU"),
        (machines.pc(cuda=replace(NVIDIA, nvcc=None), vulkan=machines.GOOD_VULKAN), "vulkan", "Vulkan0"),
        (machines.pc(vulkan=replace(machines.GOOD_VULKAN, headers=239)), "cpu", "CPU"),
        (
            machines.pc(vulkan=machines.GOOD_VULKAN, memory=machines.memory(2 * GIB)),
            "vulkan-low-mem",
            "Vulkan0",
        ),
        (machines.pc(hip=HipFacts(targets=("gfx1100",), hipcc="/opt/rocm/bin/hipcc")), "hip", "ROCm0"),
        (MAC, "metal", "MTL0"),
        (machines.pc(memory=machines.memory(2 * GIB)), "cpu-low-mem", "CPU"),
        (machines.phone("asimd"), "android-low-mem", "CPU"),
        (machines.phone("asimd", "asimddp", "i8mm", capacity=12 * GIB), "cpu", "CPU"),
    ],
)
def test_the_machine_decides(host: Host, preset: str, device: str) -> None:
    made = plan(host)
    assert (made.preset, made.device) == (preset, device)
    assert made.reasons


def test_each_rejected_backend_says_how_to_get_it() -> None:
    rejected = {no.backend: no for no in plan(machines.PC).rejections}
    assert set(rejected) == {"metal", "cuda", "hip", "vulkan"}
    assert all(no.reason and no.fix for no in rejected.values())


@pytest.mark.parametrize("backend", ["metal", "cuda", "hip", "vulkan"])
def test_a_backend_that_cannot_be_had_is_never_replaced(backend: str) -> None:
    with pytest.raises(MissingError, match=f"{backend} was asked for"):
        plan(machines.PC, backend=backend)


def test_old_vulkan_headers_are_named_before_anything_is_compiled() -> None:
    host = machines.pc(vulkan=replace(machines.GOOD_VULKAN, headers=239))
    with pytest.raises(MissingError, match="239"):
        plan(host, backend="vulkan")


@pytest.mark.parametrize(
    "os_facts",
    [
        replace(machines.PC.os, bits=32, machine="armv8l"),
        replace(machines.PC.os, name="Darwin", rosetta=True),
    ],
)
def test_some_machines_are_refused_with_advice(os_facts: object) -> None:
    with pytest.raises(MissingError, match="Use a"):
        plan(machines.pc(os=os_facts))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"preset": "cpu", "backend": "cuda"}, "Give one of the two"),
        ({"preset": "cpu", "low_mem": True}, "no low-memory preset"),
        ({"preset": "nonsense"}, "There are: cpu"),
        ({"preset": "cpu", "portable": True}, "not portable"),
        ({"portable": True, "low_mem": True}, "Leave out"),
    ],
)
def test_contradictions_are_usage_errors(request_: dict[str, object], message: str) -> None:
    with pytest.raises(UsageFaultError, match=message):
        plan(machines.PC, **request_)


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
        cpu=replace(machines.PC.cpu, usable=usable),
        memory=machines.memory(64 * GIB, room),
        toolchain=replace(machines.PC.toolchain, cxx=compiler),
    )
    assert plan(host).jobs == jobs


def test_what_the_user_says_about_jobs_and_memory_wins() -> None:
    assert plan(machines.PC, jobs=3).jobs == 3
    assert plan(machines.PC, memory=512 * MIB).preset == "cpu-low-mem"
    assert plan(machines.PC, low_mem=True).preset == "cpu-low-mem"
    assert plan(machines.phone("asimd", capacity=12 * GIB), low_mem=True).preset == "android-low-mem"


def test_a_phone_is_built_for_what_all_its_cores_can_do() -> None:
    made = plan(machines.phone("asimd", "asimddp", "asimdhp"))
    assert "GGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16" in made.defines
    assert "GGML_NATIVE=OFF" in made.defines


@pytest.mark.parametrize(
    ("features", "arch"),
    [
        ((), "armv8-a"),
        (("asimdhp",), "armv8-a"),
        (("asimddp",), "armv8.2-a+dotprod"),
        (("asimddp", "i8mm", "sve"), "armv8.2-a+dotprod+i8mm"),
    ],
)
def test_arm_architecture(features: tuple[str, ...], arch: str) -> None:
    assert arm_arch(features) == arch


def test_cuda_is_built_for_the_gpus_that_are_here() -> None:
    assert "CMAKE_CUDA_ARCHITECTURES=86-real" in plan(machines.pc(cuda=NVIDIA)).defines


def test_a_portable_plan_does_not_depend_on_the_cpu() -> None:
    assert plan(machines.PC, portable=True).cpu == ""
    assert "avx2" in plan(machines.PC).cpu


def test_cmake_args_are_passed_on_and_said() -> None:
    made = plan(machines.PC, cmake_args=("-DGGML_AVX512=OFF",))
    assert made.cmake[-1] == "-DGGML_AVX512=OFF"
    assert "cmake-args" in {reason.rule for reason in made.reasons}


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_more_memory_never_means_fewer_jobs(one: int, other: int) -> None:
    less, more = sorted((one, other))
    small, large = (plan(machines.pc(memory=machines.memory(16 * GIB, room or 1))) for room in (less, more))
    assert small.jobs <= large.jobs


@given(st.integers(0, 1 << 60))
def test_a_rung_is_never_above_the_size_nor_far_below(size: int) -> None:
    assert memory_rung(size) <= size
    assert memory_rung(size) * 3 >= size * 2


def test_memory_too_small_for_one_compile_is_said() -> None:
    assert "tight-memory" in {reason.rule for reason in plan(machines.PC, memory=10 * MIB).reasons}
    assert "tight-memory" not in {reason.rule for reason in plan(machines.PC).reasons}
