"""What holds of every plan, whatever the machine: hypothesis looks for one where it does not."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import machines
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from machines import CUDA_12_4, GOOD_VULKAN, NVIDIA, PC, ROCM

from floatllm_build.errors import FloatllmBuildError, MissingError, UsageFaultError
from floatllm_build.preflight import check_lacks, find_lacks
from floatllm_build.presets import load_presets
from floatllm_build.rules.cost import memory_rung
from floatllm_build.select import make_plan
from floatllm_build.sizes import GIB, MIB
from floatllm_build.values import BACKENDS, Backend, Host, MetalFacts, Plan, Request, to_json

pytestmark = pytest.mark.slow

PRESETS = load_presets(Path(__file__).resolve().parents[2])
WORDS = st.sampled_from(
    [
        *("", "Linux", "Android", "Darwin", "Windows", "glibc 2.36", "musl 1.2.5", "bionic"),
        *("Debian GNU/Linux 12 (bookworm)", "Ubuntu 24.04", "Fedora Linux 42", "Arch Linux", "macOS 15.1"),
        *("x86_64", "arm64", "aarch64", "armv8l", "linux-x86_64", "avx2", "asimddp", "asimdhp", "i8mm"),
        *("gcc", "clang", "msvc", "c++", "ccache g++", "g++-12", "/usr/bin/cc", "{home}/bin/x", r"C:\x\y"),
        *("86", "89", "61", "120", "90a", "87", "gfx1100", "gfx1031", "gfx90a:xnack-"),
        *("11.5", "12.4", "13.0", "580.65.06", "3.25.0", "3.25.2", "2023.2", "6.3", "1.11", "9" * 5000, "²"),
    ]
)
TEXT = st.one_of(WORDS, st.text(max_size=8))
HUGE = 10**400
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 64, 239, 309, 2 * GIB, 3 * GIB, 16 * GIB]),
    st.integers(-8, 1 << 40),
    st.integers(-HUGE, HUGE),
)


def anything(kind: Any) -> st.SearchStrategy[Any]:
    """Every value that a type of the values allows, sane and silly ones."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(
            kind, **{field.name: anything(hints[field.name]) for field in dataclasses.fields(kind)}
        )
    if kind in {str, int, bool}:
        return {str: TEXT, int: NUMBERS, bool: st.booleans()}[kind]
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(inside)
    if typing.get_origin(kind) is tuple and inside[-1] is not Ellipsis:
        return st.tuples(*map(anything, inside))
    if typing.get_origin(kind) is tuple:
        return st.lists(anything(inside[0]), max_size=2).map(tuple)
    return st.one_of(*(st.none() if one is type(None) else anything(one) for one in inside))


def sane_hosts() -> st.SearchStrategy[Host]:
    """Machines as there are, with parts combined that need not go together."""
    new = replace(CUDA_12_4, version="13.0", architectures=("75", "86", "120"), newest_gcc=15)
    kits = [CUDA_12_4, new, replace(new, newest_glibc="", cublas=False)]
    gpus = [replace(machines.RTX_3060, capability=name) for name in ("61", "86", "89", "120")]
    new_glibc = machines.pc(os=replace(PC.os, libc="glibc 2.42"))
    return st.builds(
        replace,
        st.sampled_from(
            [PC, new_glibc, machines.phone("asimd"), machines.phone("asimddp", "i8mm", capacity=12 * GIB)]
        ),
        cpu=st.builds(
            replace,
            st.just(PC.cpu),
            usable=st.integers(1, 128),
            arch=st.sampled_from(["x86_64", "arm64"]),
            features=st.sampled_from([(), ("avx", "avx2"), ("asimd", "asimddp", "i8mm", "sve")]),
        ),
        memory=st.builds(machines.memory, st.integers(1, 64 * GIB)),
        toolchain=st.builds(
            replace,
            st.just(PC.toolchain),
            cxx=st.sampled_from([machines.GCC, machines.CLANG, replace(machines.GCC, version="14.1"), None]),
        ),
        cuda=st.builds(
            replace,
            st.just(NVIDIA),
            devices=st.lists(st.sampled_from(gpus), max_size=2).map(tuple),
            toolkits=st.lists(st.sampled_from(kits), max_size=2).map(tuple),
            supports=st.sampled_from(["", "11.8", "12.4", "13.0"]),
        ),
        vulkan=st.sampled_from(
            [machines.NO_VULKAN, GOOD_VULKAN, replace(GOOD_VULKAN, devices=(machines.LLVMPIPE,))]
        ),
        hip=st.sampled_from([machines.NO_HIP, ROCM, replace(ROCM, targets=("gfx1031",))]),
    )


ANY_HOST = st.one_of(sane_hosts(), anything(Host))
ANY_REQUEST = st.builds(
    replace,
    anything(Request),
    preset=st.one_of(st.none(), st.sampled_from(sorted(PRESETS)), TEXT),
    # Two of three requests name none of these: else contradictions would be nearly all that is tried.
    architectures=st.one_of(st.just(()), st.just(()), st.lists(TEXT, max_size=2).map(tuple)),
    jobs=st.one_of(st.none(), st.none(), NUMBERS),
    memory=st.one_of(st.none(), st.none(), NUMBERS),
)
thorough = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def plan(host: Host, request: Request) -> Plan | None:
    try:
        return make_plan(host, request, PRESETS)
    except (MissingError, UsageFaultError):
        return None


@thorough
@given(ANY_HOST, ANY_REQUEST)
def test_a_plan_or_a_reason_whatever_the_host_holds(host: Host, request: Request) -> None:
    made = plan(host, request)
    if made is None:
        return
    assert made.jobs >= 1
    assert made.memory_peak >= made.memory_per_job
    assert all(no.reason and no.fix for no in made.rejections)
    assert all(reason.rule and reason.text for reason in made.reasons)
    assert json.loads(json.dumps(to_json(made)))["preset"] == made.preset
    lacks = find_lacks(host)
    assert all(lack.what and lack.why and lack.fix for lack in lacks)
    try:
        check_lacks(lacks)
    except FloatllmBuildError as error:
        assert isinstance(error, MissingError)  # noqa: PT017  whether it raises depends on the host
        assert lacks


@thorough
@given(ANY_HOST, st.sampled_from(BACKENDS), st.booleans())
def test_a_backend_that_was_asked_for_is_that_backend(host: Host, backend: Backend, portable: bool) -> None:
    made = plan(host, Request(backend=backend, portable=portable))
    if made is None:
        return
    assert made.backend == backend
    assert PRESETS[made.preset].backend == backend
    assert made.proof == "device" or portable


@thorough
@given(ANY_HOST)
def test_without_being_asked_nothing_is_built_that_cannot_be_proven(host: Host) -> None:
    made = plan(host, Request(portable=True))
    assert made is None or made.proof == "device"


MEMORIES = st.lists(st.integers(1, 256 * GIB), min_size=4, max_size=4).map(sorted)


@thorough
@given(sane_hosts(), MEMORIES, st.sampled_from([None, *BACKENDS]), st.booleans())
def test_more_memory_never_means_fewer_jobs_or_a_refusal(
    host: Host, sizes: list[int], backend: Backend | None, low_mem: bool
) -> None:
    # Less room and less in all, then more of both; and room is never more than there is in all.
    room, more_room, capacity, more_capacity = sizes
    request = Request(backend=backend, low_mem=low_mem)
    less = plan(replace(host, memory=machines.memory(capacity, room)), request)
    more = plan(replace(host, memory=machines.memory(more_capacity, more_room)), request)
    assume(less is not None)
    assert less
    assert more
    assert more.jobs >= less.jobs
    assert more.backend == less.backend


@thorough
@given(sane_hosts(), st.integers(96 * MIB, 256 * GIB), st.integers(96 * MIB, 256 * GIB))
def test_nor_does_more_memory_by_request(host: Host, one: int, other: int) -> None:
    less, more = (plan(host, Request(memory=size)) for size in sorted((one, other)))
    assert (less is None) == (more is None)
    assert not less or not more or less.jobs <= more.jobs


def cpu_options(made: Plan) -> dict[str, str]:
    defines = dict(define.split("=", 1) for define in made.defines)
    said = {**PRESETS[made.preset].variables, **defines}
    about = ("GGML_NATIVE", "GGML_CPU_", "GGML_SSE", "GGML_AVX", "GGML_BMI", "GGML_FMA", "GGML_F16C")
    return {name: value for name, value in said.items() if name.startswith(about)}


def flags(made: Plan) -> set[str]:
    return {define for define in made.defines if define.startswith(("CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS"))}


@thorough
@given(sane_hosts(), st.sampled_from(["cuda", "hip", "vulkan", "all"]))
def test_removing_a_gpu_never_changes_what_the_cpu_is_told(host: Host, gone: str) -> None:
    nothing = {"cuda": machines.NO_CUDA, "hip": machines.NO_HIP, "vulkan": machines.NO_VULKAN}
    parts: dict[str, Any] = nothing if gone == "all" else {gone: nothing[gone]}
    with_it = plan(host, Request())
    without = plan(replace(host, metal=MetalFacts(devices=()), **parts), Request())
    assert with_it
    assert without
    assert cpu_options(with_it) == cpu_options(without)
    # CUDA and HIP have no low-memory preset; else its flags are the same as well.
    assert with_it.low_mem != without.low_mem or flags(with_it) == flags(without)


@given(st.integers(0, 1 << 60))
def test_a_rung_is_never_above_the_size_nor_far_below(size: int) -> None:
    assert memory_rung(size) <= size
    assert memory_rung(size) * 3 >= size * 2
