"""CUDA: what fits together, as tables: the machine, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from fits import CUDA_11_5, CUDA_13, fit, gcc, gpu, nvidia, obstacle, rules, with_compiler
from machines import CUDA_12_4, NVIDIA, PC

from floatllm_build.rules import FITTERS
from floatllm_build.rules.cuda_targets import known_architectures, target_for
from floatllm_build.rules.fit import Fit, Obstacle, Terms
from floatllm_build.values import Compiler, CudaToolkit, Host, Program

INSTALL = "floatllm-build install --backend cuda"


# ---- CUDA: GPU x toolkit ------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "known", "target"),
    [
        ("86", ("80", "86"), "86"),
        ("89", ("75", "80", "86", "87"), "86"),  # Ubuntu 22.04's own toolkit and an RTX 40
        ("90", ("75", "80", "86"), ""),  # another major version
        ("80", ("86",), ""),  # code for a newer one does not run
        ("87", ("80", "86"), ""),  # Tegra runs its own code only
        ("89", ("87",), ""),  # and others do not run Tegra's
        ("121", ("120",), ""),  # ggml compiles 120 as 120a, which runs on nothing else
        ("103", ("100",), "100"),
        ("37", ("35", "37"), ""),  # older than what ggml is written for
        ("", ("86",), ""),
    ],
)
def test_what_a_gpu_runs(capability: str, known: tuple[str, ...], target: str) -> None:
    assert target_for(gpu(capability), known) == target


def test_the_toolkit_s_own_word_comes_before_the_table() -> None:
    assert known_architectures(replace(CUDA_12_4, architectures=("99",))) == ("99",)


@pytest.mark.parametrize(
    ("version", "has", "has_not"),
    [("11.7", "86", "89"), ("11.8", "89", "120"), ("12.8", "120", "121"), ("13.0", "75", "70")],
)
def test_the_table_where_a_toolkit_says_nothing(version: str, has: str, has_not: str) -> None:
    known = known_architectures(replace(CUDA_12_4, version=version, architectures=()))
    assert has in known
    assert has_not not in known


@pytest.mark.parametrize(
    ("host", "architectures"),
    [
        (nvidia(), ("86",)),
        (nvidia(gpu("90"), gpu("86"), gpu("86")), ("86", "90")),
        (nvidia(gpu("120"), kits=(CUDA_13,), supports="13.0"), ("120",)),
        (nvidia(gpu("61"), gpu("86"), kits=(CUDA_13,), supports="13.0"), ("86",)),
        (nvidia(gpu("90", mig=True)), ("90",)),
        (nvidia(gpu("87", "Orin", integrated=True, memory=0)), ("87",)),
        (nvidia(os=replace(PC.os, wsl=2)), ("86",)),
    ],
)
def test_all_gpus_that_the_toolkit_knows_are_compiled_for(host: Host, architectures: tuple[str, ...]) -> None:
    answer = fit("cuda", host)
    assert answer.architectures == architectures
    named = ";".join(f"{name}-real" for name in architectures)
    assert f"CMAKE_CUDA_ARCHITECTURES={named}" in answer.defines
    assert answer.proven


def test_a_gpu_that_is_left_out_is_named() -> None:
    answer = fit("cuda", nvidia(gpu("61", "GTX 1080"), gpu("86"), kits=(CUDA_13,), supports="13.0"))
    told = next(reason.text for reason in answer.reasons if reason.rule == "cuda-device")
    assert "GTX 1080" in told
    assert "61" in told


def test_no_gpu_that_the_toolkit_knows() -> None:
    no = obstacle("cuda", nvidia(gpu("61", "GTX 1080"), kits=(CUDA_13,), supports="13.0"))
    assert "GTX 1080" in no.reason
    assert no.fix == "sudo apt install nvidia-cuda-toolkit"  # the index has CUDA 13 only, which is no better


# ---- CUDA: driver, CMake, several toolkits ------------------------------------------------------------


@pytest.mark.parametrize(
    ("supports", "driver", "kit", "runs"),
    [
        ("12.0", "", CUDA_12_4, True),  # minor versions do not matter to code that is no PTX
        ("13.0", "", CUDA_12_4, True),
        ("12.9", "", CUDA_13, False),
        ("", "580.65.06", CUDA_13, True),
        ("", "575.57", CUDA_13, False),
        ("", "", CUDA_13, True),  # nobody knows: the proof will
    ],
)
def test_a_toolkit_of_a_newer_major_version_than_the_driver(
    supports: str, driver: str, kit: CudaToolkit, runs: bool
) -> None:
    cuda = replace(NVIDIA, supports=supports, driver=driver, toolkits=(kit,))
    answer = FITTERS["cuda"](machines.pc(cuda=cuda), Terms())
    assert isinstance(answer, Fit) == runs
    if isinstance(answer, Obstacle):
        assert "driver" in answer.reason
        assert "CUDA 13 needs driver 580 or newer" in answer.reason
        # Debian 12's own is 535.
        assert "sudo apt install cuda-drivers" in answer.fix


def test_the_first_toolkit_that_fits_is_taken_and_the_others_are_explained() -> None:
    answer = fit("cuda", nvidia(kits=(CUDA_13, CUDA_12_4)))
    assert f"CMAKE_CUDA_COMPILER={CUDA_12_4.nvcc}" in answer.defines
    assert any("13.0" in reason.text and "passed over" in reason.text for reason in answer.reasons)
    assert f"CMAKE_CUDA_COMPILER={CUDA_13.nvcc}" in (
        fit("cuda", nvidia(kits=(CUDA_13, CUDA_12_4), supports="13.0")).defines
    )


def test_a_toolkit_that_is_too_old_for_ggml() -> None:
    assert "11.1" in obstacle("cuda", nvidia(kits=(replace(CUDA_11_5, version="10.2"),))).reason


@pytest.mark.parametrize(
    ("cmake", "works"), [("3.25.0", False), ("3.25.1", True), ("4.4.4", True), ("3.20.0", True), ("", True)]
)
def test_the_index_s_toolkit_and_cmake(cmake: str, works: bool) -> None:
    # An older CMake than ours is not used at all, but a new one fetched.
    program = Program(path="/usr/bin/cmake", version=cmake) if cmake else None
    host = nvidia(
        kits=(replace(CUDA_13, layout="wheels"),),
        supports="13.0",
        toolchain=replace(PC.toolchain, cmake=program),
    )
    assert isinstance(FITTERS["cuda"](host, Terms()), Fit) == works


# ---- CUDA: host compiler ------------------------------------------------------------


@pytest.mark.parametrize(
    ("cxx", "others", "define"),
    [
        (gcc("13.3.0"), (), None),
        (gcc("12.2.0", "/opt/gcc/bin/g++-12"), (), "/opt/gcc/bin/g++-12"),  # nvcc would not look at CXX
        (gcc("14.2.0"), (gcc("13.3.0", "g++-13"), gcc("12.4.0", "g++-12")), "g++-13"),
        (gcc("14.2.0"), (gcc("14.1.0", "g++-14"), gcc("11.4.0", "g++-11")), "g++-11"),
        (Compiler(command="clang++", kind="clang", version="16.0.6"), (), "clang++"),
        (gcc("14.2.0"), (Compiler(command="clang++-17", kind="clang", version="17.0.1"),), "clang++-17"),
        (Compiler(command="cl", kind="msvc", version="19.40"), (), None),
    ],
)
def test_nvcc_gets_a_compiler_that_it_takes(
    cxx: Compiler, others: tuple[Compiler, ...], define: str | None
) -> None:
    answer = fit("cuda", with_compiler(nvidia(), cxx, *others))
    told = [word.partition("=")[2] for word in answer.defines if word.startswith("CMAKE_CUDA_HOST_COMPILER=")]
    assert told == ([define] if define else [])
    assert ("cuda-host-compiler" in rules(answer)) == bool(others)


@pytest.mark.parametrize(
    ("system", "fix"),
    [
        ("Ubuntu 25.04", "sudo apt install g++-13"),
        ("Fedora Linux 42", "sudo dnf install gcc13-c++"),
        ("Arch Linux", "sudo pacman -S gcc13"),
        ("Something", "install g++ 13 or older and set CXX to it"),
    ],
)
def test_no_compiler_that_nvcc_takes(system: str, fix: str) -> None:
    host = with_compiler(nvidia(os=replace(PC.os, version=system)), gcc("15.1.0"), gcc("14.2.0", "g++-14"))
    no = obstacle("cuda", host)
    assert "gcc 15.1.0 is newer than 13" in no.reason
    assert no.fix == fix


def test_the_fix_that_is_shown_is_that_of_the_toolkit_nearest_to_working() -> None:
    host = with_compiler(nvidia(kits=(CUDA_13, CUDA_12_4)), gcc("14.2.0"))
    assert obstacle("cuda", host).fix == "sudo apt install g++-13"


# ---- CUDA: what is missing ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, INSTALL),
        ({"supports": "12.8"}, "sudo apt install nvidia-cuda-toolkit"),
        ({"devices": (gpu("61"),)}, "sudo apt install nvidia-cuda-toolkit"),
        ({"devices": (gpu("61"), gpu("86"))}, INSTALL),
        ({"devices": (gpu("120"),), "supports": "12.9"}, "install NVIDIA's CUDA toolkit 12.8"),
        ({"jetson": "36.4"}, "sudo apt install nvidia-jetpack"),
    ],
)
def test_no_nvcc(changes: dict[str, Any], fix: str) -> None:
    cuda = replace(NVIDIA, **{"supports": "13.0", "toolkits": (), **changes})
    no = obstacle("cuda", machines.pc(cuda=cuda))
    assert "nvcc" in no.reason
    assert no.fix.startswith(fix)


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"version": "Fedora Linux 42"}, INSTALL),
        ({"libc": "", "name": "Windows", "version": "Windows 11"}, "winget install Nvidia.CUDA"),
    ],
)
def test_no_nvcc_elsewhere(changes: dict[str, Any], fix: str) -> None:
    cuda = replace(NVIDIA, supports="13.0", toolkits=())
    assert obstacle("cuda", machines.pc(cuda=cuda, os=replace(PC.os, **changes))).fix == fix


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, "with an NVIDIA GPU in the machine: sudo apt install nvidia-driver"),
        ({"version": "Ubuntu 24.04"}, "with an NVIDIA GPU in the machine: sudo ubuntu-drivers install"),
        (
            {"version": "Fedora Linux 42"},
            "with an NVIDIA GPU in the machine: sudo dnf install akmod-nvidia (from RPM Fusion)",
        ),
        (
            {"version": "Fedora Linux 42 (Silverblue)", "id": "fedora", "variant_id": "silverblue"},
            "with an NVIDIA GPU in the machine: sudo rpm-ostree install akmod-nvidia",
        ),
        ({"id": "bazzite"}, "with an NVIDIA GPU in the machine: rebase to its -nvidia image"),
        ({"id": "vanilla"}, "with an NVIDIA GPU in the machine: sudo abroot pkg add nvidia-driver"),
        ({"id": "steamos"}, "with an NVIDIA GPU in the machine: use another system"),
        ({"root": True}, "with an NVIDIA GPU in the machine: apt install nvidia-driver"),
        # Nothing that fits its glibc runs with its own driver, 550.
        (
            {"version": "Debian GNU/Linux 13 (trixie)", "libc": "glibc 2.41"},
            "with an NVIDIA GPU in the machine: add NVIDIA's own apt repository",
        ),
        ({"wsl": 2}, "install NVIDIA's driver in Windows"),
        ({"container": "docker"}, "start the container with the GPU: docker run --gpus all"),
    ],
)
def test_no_gpu(changes: dict[str, Any], fix: str) -> None:
    host = machines.pc(cuda=replace(NVIDIA, devices=()), os=replace(PC.os, **changes))
    assert obstacle("cuda", host).fix.startswith(fix)


@pytest.mark.parametrize(
    ("changes", "has", "lacks"),
    [
        ({"version": "Debian GNU/Linux 13 (trixie)"}, "apt install cuda-drivers", "nvidia-driver"),
        ({"version": "Debian GNU/Linux trixie/sid"}, "apt install cuda-drivers", "nvidia-driver"),
        ({"version": "Debian GNU/Linux 11 (bullseye)"}, "newer release", "apt install"),
        ({"version": "Ubuntu 20.04.6 LTS"}, "newer release", "ubuntu-drivers"),
        ({"version": "Ubuntu 24.04.2 LTS"}, "sudo ubuntu-drivers install", "newer release"),
        ({"version": "Ubuntu 24.04.2 LTS", "root": True}, "ubuntu-drivers install", "sudo"),
        ({"id": "fedora", "variant_id": "silverblue"}, "sudo rpm-ostree upgrade", "dnf"),
        ({"id": "bazzite"}, "sudo rpm-ostree upgrade", "dnf"),
        ({"id": "vanilla"}, "sudo abroot upgrade", "apt"),
        ({"id": "bazzite", "container": "distrobox"}, "on the machine that runs the container", "rpm-ostree"),
        ({"id": "debian", "container": "docker"}, "on the machine that runs the container", "apt"),
    ],
)
def test_a_driver_that_is_too_old_is_not_brought_again(changes: dict[str, Any], has: str, lacks: str) -> None:
    host = nvidia(kits=(CUDA_13,), supports="12.4", os=replace(PC.os, **changes))
    fix = obstacle("cuda", host).fix
    assert has in fix
    assert lacks not in fix


@pytest.mark.parametrize(
    ("name", "libc", "said"),
    [("Darwin", "", "macOS"), ("Linux", "musl 1.2.5", "musl"), ("Android", "", "And")],
)
def test_where_there_is_no_cuda(name: str, libc: str, said: str) -> None:
    no = obstacle("cuda", nvidia(os=replace(PC.os, name=name, libc=libc)))
    assert said in no.reason


# ---- CUDA: what was asked for ------------------------------------------------------------


def test_architectures_that_were_asked_for_replace_the_probed_ones() -> None:
    answer = fit("cuda", nvidia(), named=True, architectures=("75", "90a"))
    assert answer.architectures == ("75", "90a")
    assert "CMAKE_CUDA_ARCHITECTURES=75-real;90a-real" in answer.defines
    no = obstacle("cuda", nvidia(), named=True, architectures=("120",))
    assert "120" in no.reason


def test_a_portable_build_leaves_the_list_to_ggml() -> None:
    answer = fit("cuda", nvidia(), portable=True)
    assert answer.architectures == ()
    assert answer.defines == (f"CMAKE_CUDA_COMPILER={CUDA_12_4.nvcc}",)
    assert answer.proven
    asked = fit("cuda", nvidia(), portable=True, architectures=("86",))
    assert "CMAKE_CUDA_ARCHITECTURES=86" in asked.defines  # with PTX: newer GPUs run it too
