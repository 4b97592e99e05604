"""The package index's CUDA toolkit: offered to whom, taken by whom, and with what."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import machines
import pytest
from fits import CUDA_13, fit, gcc, gpu, nvidia, obstacle, rules, with_compiler
from machines import NVIDIA, PC, RTX_3060
from tool_environment import ROOT
from toolchains import nvcc

from floatllm_build.host.cuda_toolkits import parse_architectures, parse_ceilings, parse_newest_glibc
from floatllm_build.presets import load_presets
from floatllm_build.rules.cuda_index import INDEX_KIT, INDEX_REQUIREMENT, INSTALL
from floatllm_build.select import make_plan
from floatllm_build.values import Host, Request

NVCC = f"CMAKE_CUDA_COMPILER={INDEX_KIT.nvcc}"


def driver_only(**changes: Any) -> Host:
    facts = {"os": PC.os, "cpu": PC.cpu} | {
        name: changes.pop(name) for name in ("os", "cpu") if name in changes
    }
    return machines.pc(cuda=replace(NVIDIA, **{"supports": "13.0", "toolkits": (), **changes}), **facts)


def test_who_asks_gets_it_and_is_told() -> None:
    answer = fit("cuda", driver_only(), named=True)
    assert NVCC in answer.defines
    assert "CMAKE_CUDA_ARCHITECTURES=86-real" in answer.defines
    assert answer.toolkit is not None
    assert answer.toolkit.download == 619_500_000
    assert answer.toolkit.requires == ("nvidia-cublas>=13,<14", "nvidia-cuda-runtime>=13.4,<14")
    assert "cuda-from-index" in rules(answer)
    assert answer.proven


def test_who_does_not_ask_is_told_that_it_can_be_had() -> None:
    no = obstacle("cuda", driver_only())
    assert "`--backend cuda` brings it from the package index (591 MiB)" in no.reason
    assert no.fix == INSTALL
    presets = load_presets(ROOT)
    assert make_plan(driver_only(), Request(), presets).backend == "cpu"
    asked = make_plan(driver_only(), Request(backend="cuda"), presets)
    assert asked.backend == "cuda"
    assert [one.what for one in asked.downloads][-1] == "CUDA toolkit 13.4.3"


def test_a_toolkit_that_fits_comes_first() -> None:
    answer = fit("cuda", nvidia(kits=(CUDA_13,), supports="13.0"), named=True)
    assert answer.toolkit is not None
    assert answer.toolkit.nvcc == CUDA_13.nvcc
    assert (answer.toolkit.download, answer.toolkit.requires, answer.downloads) == (0, (), ())


def test_it_comes_where_no_toolkit_that_is_here_fits() -> None:
    answer = fit("cuda", with_compiler(nvidia(supports="13.0"), gcc("14.2.0")), named=True)
    assert NVCC in answer.defines
    told = next(reason.text for reason in answer.reasons if reason.rule == "cuda-toolkit")
    assert "gcc 14.2.0 is newer than 13" in told


def test_a_toolkit_of_wheels_that_is_here_requires_its_libraries_too() -> None:
    kit = replace(CUDA_13, layout="wheels")
    answer = fit("cuda", nvidia(kits=(kit,), supports="13.0"))
    assert answer.toolkit is not None
    assert answer.toolkit.requires == ("nvidia-cublas>=13,<14", "nvidia-cuda-runtime>=13.0,<14")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"supports": "12.8"}, "sudo apt install nvidia-cuda-toolkit"),
        ({"supports": ""}, "sudo apt install nvidia-cuda-toolkit"),
        ({"devices": (gpu("61"),)}, "sudo apt install nvidia-cuda-toolkit"),
        ({"devices": (gpu("130"),)}, "install NVIDIA's CUDA toolkit"),
        ({"jetson": "38.1"}, "sudo apt install nvidia-jetpack"),
        ({"cpu": replace(PC.cpu, arch="ppc64le")}, "sudo apt install nvidia-cuda-toolkit"),
        ({"os": replace(PC.os, libc="")}, "sudo apt install nvidia-cuda-toolkit"),
    ],
)
def test_where_it_would_not_run_it_is_neither_taken_nor_offered(changes: dict[str, Any], said: str) -> None:
    for named in (True, False):
        no = obstacle("cuda", driver_only(**changes), named=named)
        assert no.fix.startswith(said)
        assert "package index" not in no.reason


def test_on_windows_it_is_untried_and_that_is_said() -> None:
    windows = replace(PC.os, name="Windows", libc="", version="Windows 11")
    no = obstacle("cuda", driver_only(os=windows), named=True)
    assert "untried on Windows" in no.reason
    assert no.fix.startswith("winget install")


def test_one_gpu_of_two_generations_is_left_out_and_named() -> None:
    answer = fit("cuda", driver_only(devices=(gpu("61", "GTX 1080"), gpu("120", "RTX 5090"))), named=True)
    assert answer.architectures == ("120",)
    assert answer.device == 1
    assert any("GTX 1080" in reason.text and "left out" in reason.text for reason in answer.reasons)


def test_two_gpus_of_different_generations_are_both_compiled_for() -> None:
    answer = fit("cuda", driver_only(devices=(RTX_3060, gpu("120", "RTX 5090"))), named=True)
    assert answer.architectures == ("86", "120")
    assert answer.device == 0


@pytest.mark.parametrize("architectures", [(), ("90",), ("75", "120a")])
def test_a_wheel_for_others_needs_no_driver(architectures: tuple[str, ...]) -> None:
    terms = {"named": True, "portable": True, "without_device": True, "architectures": architectures}
    answer = fit("cuda", machines.PC, **terms)
    assert NVCC in answer.defines
    assert answer.architectures == architectures
    assert not answer.proven


def test_what_it_cannot_compile_for_is_not_promised() -> None:
    no = obstacle("cuda", driver_only(), named=True, architectures=("50",))
    assert "nvcc" in no.reason
    assert no.fix != INSTALL
    both = obstacle("cuda", nvidia(supports="13.0"), named=True, architectures=("130",))
    assert both.fix != INSTALL


def test_a_compiler_too_new_for_it_too_is_told_which_will_do() -> None:
    no = obstacle("cuda", with_compiler(driver_only(), gcc("17.1.0")), named=True)
    assert "CUDA 13.4 of the package index" in no.reason
    assert no.fix == "sudo apt install g++-16"


def test_on_arm_the_download_is_another() -> None:
    arm = fit("cuda", driver_only(cpu=replace(PC.cpu, arch="arm64")), named=True)
    assert arm.toolkit is not None
    assert arm.toolkit.download == 720_500_000


@pytest.mark.network
def test_what_is_known_of_it_is_what_it_says_itself() -> None:
    """The rules must not need a download to answer; so their facts are compared with the real thing."""
    compiler = nvcc()
    said = subprocess.run([compiler, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    assert parse_architectures(said) == INDEX_KIT.architectures
    headers = compiler.parents[1] / "include" / "crt"
    ceilings = parse_ceilings((headers / "host_config.h").read_text())
    # The third is for Windows, where this toolkit is not taken.
    assert ceilings[:2] == (INDEX_KIT.newest_gcc, INDEX_KIT.newest_clang)
    assert parse_newest_glibc((headers / "math_functions.h").read_text()) == INDEX_KIT.newest_glibc
    assert (compiler.parents[1] / "include" / "cublas_v2.h").is_file() == INDEX_KIT.cublas
    assert INDEX_REQUIREMENT.rpartition("==")[2] in str(compiler)
