"""CMAKE_ARGS against the plan: what contradicts it is said before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from machines import GOOD_VULKAN, NVIDIA, PC, pc
from plans import PRESETS

from floatllm_build.build_folder import Folder, cmake_options
from floatllm_build.errors import MissingError
from floatllm_build.rules.cmake_args import heed, is_off, read, same
from floatllm_build.select import make_plan
from floatllm_build.values import Host, Plan, Request


def plan(host: Host, *arguments: str, **request: object) -> Plan:
    return make_plan(host, Request(cmake_args=arguments, **request), PRESETS)


def said(host: Host, *arguments: str, **request: object) -> str:
    with pytest.raises(MissingError) as caught:
        plan(host, *arguments, **request)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argument", "backend"),
    [
        ("-DGGML_CUDA=on", "cuda"),
        ("-DGGML_CUDA=ON", "cuda"),
        ("-DGGML_CUDA:BOOL=1", "cuda"),
        ("-DGGML_CUDA=yes", "cuda"),
        ("-DGGML_CUDA=2", "cuda"),
        ("-DGGML_CUBLAS=on", "cuda"),
        ("-DLLAMA_CUBLAS=on", "cuda"),
        ("-DLLAMA_CUDA=TRUE", "cuda"),
        ("-DGGML_VULKAN=on", "vulkan"),
        ("-DLLAMA_VULKAN=1", "vulkan"),
        ("-DGGML_HIP=ON", "hip"),
        ("-DGGML_HIPBLAS=y", "hip"),
        ("-DLLAMA_HIPBLAS=on", "hip"),
        ("-DGGML_METAL=on", "metal"),
        ("-DGGML_CUDA=on;-DGGML_CUDA_F16=on", "cuda"),
    ],
)
def test_another_backend_is_refused_with_both_ways_out(argument: str, backend: str) -> None:
    text = said(PC, argument)
    assert "CMAKE_ARGS" in text
    assert f"{argument.partition(';')[0]} asks for {backend}, and cpu is planned" in text
    assert "unset" in text
    assert f"--backend {backend}" in text


def test_the_reason_against_the_other_backend_is_told() -> None:
    assert "(no NVIDIA GPU answered)" in said(PC, "-DGGML_CUDA=on")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-D", "GGML_VULKAN=on"),
        ("-DGGML_VULKAN=off", "-DGGML_VULKAN=on"),
        ("-DGGML_VULKAN:BOOL=off", "-D", "GGML_VULKAN=on"),
    ],
)
def test_the_option_is_found_in_every_form_and_the_last_one_counts(arguments: tuple[str, ...]) -> None:
    assert "GGML_VULKAN=on asks for vulkan" in said(PC, *arguments)
    assert plan(PC, *arguments, "-DGGML_VULKAN=0").backend == "cpu"


def test_what_the_plan_says_too_is_passed_on() -> None:
    made = plan(pc(cuda=NVIDIA), "-DGGML_CUDA=on", "-DGGML_VULKAN=off", "-DBUILD_SHARED_LIBS=0")
    assert (made.backend, made.cmake[-1]) == ("cuda", "-DBUILD_SHARED_LIBS=0")
    assert plan(pc(cuda=NVIDIA), "-DLLAMA_CUBLAS=on").backend == "cuda"
    for off in ("off", "OFF", "0", "no", "False", "n", "IGNORE", "NOTFOUND", "GGML-NOTFOUND", ""):
        assert plan(PC, f"-DGGML_CUDA={off}").backend == "cpu"


def test_the_planned_backend_is_not_turned_off_unseen() -> None:
    host = pc(vulkan=GOOD_VULKAN)
    assert "turns off vulkan, which is planned" in said(host, "-DGGML_VULKAN=off")
    assert "-DGGML_CUDA=on asks for cuda, and vulkan is planned" in said(
        host, "-DGGML_CUDA=on", backend="vulkan"
    )
    # A former switch turns nothing off.
    assert plan(host, "-DLLAMA_VULKAN=off").backend == "vulkan"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("-DGGML_BLAS=ON", "-DGGML_BLAS_VENDOR=OpenBLAS"),
            "-DGGML_BLAS=ON turns on what this tool does not",
        ),
        (("-DGGML_SYCL=on",), "turns on what this tool does not build"),
        (("-DLLAMA_CLBLAST=on",), "turns on what this tool does not build"),
        (("-DBUILD_SHARED_LIBS=ON",), "the preset decides how the wheel is packed"),
        (("-DGGML_BACKEND_DL=ON",), "the preset decides how the wheel is packed"),
        (("-DGGML_DIR=/src/ggml",), "--ggml-dir"),
        (("-DCMAKE_CXX_COMPILER=g++-12",), "name the compiler in CXX"),
        (("-DCMAKE_CUDA_ARCHITECTURES=86",), "--architectures"),
        (("-DCMAKE_TOOLCHAIN_FILE=arm.cmake",), "plain cmake"),
        (("--toolchain", "arm.cmake"), "--toolchain arm.cmake: build for another machine with plain cmake"),
        (("--toolchain=arm.cmake",), "plain cmake"),
        (("-G", "Unix Makefiles"), "-G Unix Makefiles: take it out"),
        (("-GXcode",), "the build is made by ninja"),
        (("-S", "elsewhere"), "-S elsewhere: take it out"),
        (("-Bbuild",), "the plan sets it"),
        (("--preset", "cuda"), "the plan sets it"),
        (("-A", "x64"), "the plan sets it"),
        (("-DFLOATLLM_PROOF=device",), "sets what the plan sets"),
        (("-DFLOATLLM_PRESET=mine",), "sets what the plan sets"),
        (("-DFLOATLLM_FLAGS_FILE=/tmp/flags",), "sets what the plan sets"),
        (("-DFLOATLLM_PLUGIN=vulkan",), "the preset decides how the wheel is packed"),
        (("GGML_CUDA=on",), "write -D before it"),
        (("-D",), "is no option of cmake"),
    ],
)
def test_what_the_plan_stands_on_is_refused_with_the_way_to_ask_for_it(
    arguments: tuple[str, ...], told: str
) -> None:
    assert told in said(PC, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-G", "Ninja"),
        ("-GNinja",),
        ("--fresh", "-Wno-dev"),
        ("-DGGML_AVX512=OFF",),
        ("-DGGML_CUDA_FORCE_MMQ=on",),
        ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_AR=/opt/bin/ar"),
        ("-DGGML_NATIVE=1",),
        ("-U", "GGML_*_F16"),
        # Options of native/ that this plan does not set.
        ("-DFLOATLLM_SANITIZE=ON", "-DFLOATLLM_WERROR=ON"),
        ("-DFLOATLLM_LOW_MEM=ON",),
        ("-DFLOATLLM_PLUGIN=",),
    ],
)
def test_what_does_not_contradict_is_passed_on_and_said(arguments: tuple[str, ...]) -> None:
    made = plan(PC, *arguments)
    assert made.cmake[-len(arguments) :] == arguments
    (text,) = [reason.text for reason in made.reasons if reason.rule == "cmake-args"]
    assert text == "CMAKE_ARGS is set and is passed on"


def test_every_variable_of_ours_on_the_line_of_cmake_is_the_plans() -> None:
    toolchain = PC.toolchain
    for request in ({}, {"portable": True}, {"low_mem": True}):
        made = plan(PC, **request)
        line = cmake_options(made, toolchain, "/ggml", Folder(Path("/build")))
        names = {*PRESETS[made.preset].variables, *(one.name for one in read(line))}
        for name in names:
            if name.startswith("FLOATLLM_"):
                assert f"-D{name}=other sets what the plan sets" in said(PC, f"-D{name}=other", **request)


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("-DGGML_NATIVE=OFF", "-DGGML_NATIVE=OFF instead of ON"),
        ("-DGGML_OPENMP=ON", "-DGGML_OPENMP=ON instead of OFF"),
        ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_BUILD_TYPE=Debug instead of Release"),
    ],
)
def test_what_changes_the_plan_is_its_first_reason(argument: str, told: str) -> None:
    made = plan(PC, argument)
    assert made.reasons[0].rule == "cmake-args"
    assert told in made.reasons[0].text
    assert made.cmake[-1] == argument


def test_the_option_that_the_matrix_of_wheels_gives_is_no_contradiction() -> None:
    assert plan(PC, "-DGGML_CPU_ALL_VARIANTS=OFF", portable=True).portable


def test_cmakes_words() -> None:
    assert [is_off(value) for value in ("0.0", "00", "0.1", "on", "x")] == [True, True, False, False, False]
    assert same("on", "TRUE")
    assert same("x", "x")
    assert not same("on", "off")
    assert not same("Release", "on")
    told = list(read(("-DA:STRING=b=c", "--presets", "-UX", "-D", "E")))
    assert [(one.option, one.name, one.value) for one in told] == [
        ("-D", "A", "b=c"),
        ("-U", "", "X"),
        ("-D", "E", ""),
    ]
    assert heed((), "cpu", {}, {}).against == ()
