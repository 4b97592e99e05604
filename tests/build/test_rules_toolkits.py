"""CUDA toolkit x C library and cuBLAS, and which toolkit is offered to whom, as tables."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import machines
import pytest
from fits import CUDA_13, fit, gcc, gpu, nvidia, obstacle, rules, with_compiler
from machines import CUDA_12_4, NVIDIA, PC, RTX_3060
from plans import PRESETS

from floatllm_build.rules import FITTERS
from floatllm_build.rules.cuda_apt import packages_of
from floatllm_build.rules.cuda_index import INDEX_KIT, planned
from floatllm_build.rules.fit import Fit, Obstacle, Terms
from floatllm_build.select import make_plan
from floatllm_build.values import Compiler, CudaToolkit, Host, Request

PIP = "/srv/.venv/bin/python -m pip install"
INSTALL = "floatllm-build install --backend cuda"
CUDA_13_1 = replace(CUDA_13, version="13.1")
CUDA_13_2 = replace(CUDA_13, version="13.2", newest_glibc="any")


def on_glibc(version: str, *kits: CudaToolkit, supports: str = "13.0", **facts: Any) -> Host:
    os_facts = replace(PC.os, libc=f"glibc {version}", version="Ubuntu 26.04")
    return nvidia(*facts.pop("gpus", ()), kits=kits, supports=supports, os=os_facts, **facts)


# ---- toolkit x C library ----------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["header", "version"])
@pytest.mark.parametrize(
    ("glibc", "kit", "fits"),
    [
        ("2.40", CUDA_12_4, True),
        ("2.41", CUDA_12_4, False),  # NVIDIA/cuda-samples#378
        ("2.41", CUDA_13, True),
        ("2.42", CUDA_13, False),  # ggml-org/llama.cpp#17615
        ("2.42", CUDA_13_1, False),  # ggml-org/llama.cpp#19100
        ("2.43", CUDA_13_2, True),  # llvm/llvm-project#185701
    ],
)
def test_headers_of_a_toolkit_and_of_glibc(glibc: str, kit: CudaToolkit, fits: bool, asked: str) -> None:
    kit = kit if asked == "header" else replace(kit, newest_glibc="")
    answer = FITTERS["cuda"](on_glibc(glibc, kit), Terms())
    assert isinstance(answer, Fit) == fits
    if isinstance(answer, Obstacle):
        assert f"glibc {glibc}" in answer.reason
        assert "exception specification" in answer.reason
        assert answer.fix == INSTALL


def test_a_header_that_was_mended_fits_whatever_its_version() -> None:
    # As Nix does, and who follows the advice in ggml-org/llama.cpp#19100.
    fit("cuda", on_glibc("2.42", replace(CUDA_12_4, newest_glibc="any")))


@pytest.mark.parametrize("libc", ["", "glibc", "glibc unknown"])
def test_a_c_library_of_unknown_version_is_no_obstacle(libc: str) -> None:
    fit("cuda", nvidia(os=replace(PC.os, libc=libc)))


def test_condas_compilers_have_a_glibc_of_their_own() -> None:
    conda = Compiler(command="/opt/conda/bin/x86_64-conda-linux-gnu-c++", kind="gcc", version="13.3.0")
    fit("cuda", with_compiler(on_glibc("2.42", CUDA_12_4), conda))


def test_a_toolkit_that_goes_with_glibc_is_taken_before_one_that_does_not() -> None:
    answer = fit("cuda", on_glibc("2.42", CUDA_12_4, CUDA_13_2))
    assert f"CMAKE_CUDA_COMPILER={CUDA_13_2.nvcc}" in answer.defines
    told = next(reason.text for reason in answer.reasons if reason.rule == "cuda-toolkit")
    assert "CUDA 12.4" in told
    assert "glibc 2.42" in told


@pytest.mark.parametrize(
    ("facts", "fix"),
    [
        ({"supports": "12.8"}, f"sudo ubuntu-drivers install && {INSTALL}"),
        ({"gpus": (gpu("61"),)}, "use a system with glibc 2.40 or older"),
        ({"gpus": (gpu("61"), gpu("86"))}, INSTALL),
        ({"cpu": replace(PC.cpu, arch="ppc64le")}, "install NVIDIA's CUDA toolkit 13.2 or newer"),
    ],
)
def test_what_goes_with_a_new_glibc(facts: dict[str, Any], fix: str) -> None:
    assert obstacle("cuda", on_glibc("2.42", CUDA_12_4, **facts)).fix.startswith(fix)


def test_debian_13s_own_driver_is_no_way_to_the_indexs_toolkit() -> None:
    # Its nvcc is 12.4, which its glibc contradicts, and its driver is 550.
    debian = replace(PC.os, libc="glibc 2.41", version="Debian GNU/Linux 13 (trixie)")
    fix = obstacle("cuda", nvidia(kits=(CUDA_12_4,), supports="12.4", os=debian)).fix
    assert "sudo apt install cuda-drivers" in fix
    assert "nvidia-driver" not in fix
    assert fix.endswith(f"; then {INSTALL}")


def test_an_older_toolkit_is_no_way_out_where_glibc_is_new() -> None:
    older = "older CUDA toolkit"
    assert older in obstacle("cuda", on_glibc("2.40", CUDA_13_2, supports="12.8")).reason
    assert older not in obstacle("cuda", on_glibc("2.41", CUDA_13_2, supports="12.8")).reason


def test_an_architecture_that_was_asked_for_decides_too() -> None:
    host = on_glibc("2.42", CUDA_12_4)
    assert obstacle("cuda", host, named=True, architectures=("61",)).fix.startswith("use a system with glibc")
    assert fit("cuda", host, named=True, architectures=("75",)).toolkit == planned(host, INDEX_KIT)


# ---- cuBLAS -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "system", "fix"),
    [
        ({}, {}, "sudo apt install libcublas-dev-12-4 (from NVIDIA's repository)"),
        ({}, {"container": "docker"}, "apt install libcublas-dev-12-4"),
        ({}, {"version": "Fedora Linux 41"}, "sudo dnf install libcublas-devel-12-4"),
        ({}, {"version": "Arch Linux"}, INSTALL),
        ({"nvcc": "{home}/cuda/bin/nvcc"}, {}, INSTALL),
        ({"layout": "wheels", "version": "13.4"}, {}, f"{PIP} 'cuda-toolkit[cublas]==13.4.*'"),
    ],
)
def test_a_toolkit_without_cublas_cannot_build_ggml(
    changes: dict[str, Any], system: dict[str, Any], fix: str
) -> None:
    kit = replace(CUDA_12_4, cublas=False, **changes)
    host = nvidia(kits=(kit,), supports="13.0", os=replace(PC.os, **system))
    no = obstacle("cuda", host)
    assert "cublas_v2.h" in no.reason
    assert no.fix.startswith(fix)
    # A wheel for others is compiled as well.
    obstacle("cuda", host, portable=True, without_device=True)


def test_a_toolkit_with_cublas_is_taken_before_one_without() -> None:
    answer = fit("cuda", nvidia(kits=(replace(CUDA_13, cublas=False), CUDA_12_4), supports="13.0"))
    assert f"CMAKE_CUDA_COMPILER={CUDA_12_4.nvcc}" in answer.defines
    assert "cuda-toolkit" in rules(answer)


# ---- which toolkit is offered -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "fix"),
    [
        ({}, "sudo apt install nvidia-cuda-toolkit"),
        ({"container": "docker"}, "apt install nvidia-cuda-toolkit"),
        ({"version": "Fedora Linux 41"}, "sudo dnf install cuda-toolkit-12-9"),
        ({"version": "openSUSE Leap 15.6"}, "sudo zypper install cuda-toolkit-12-9"),
        ({"version": "Arch Linux"}, "install NVIDIA's CUDA toolkit 12.9 from NVIDIA"),
        (
            {"name": "Windows", "libc": "", "version": "Windows 11"},
            "winget install Nvidia.CUDA --version 12.9",
        ),
    ],
)
@pytest.mark.parametrize(
    ("facts", "architectures"),
    [
        ({"devices": (gpu("61"),)}, ()),
        ({"devices": (gpu("61"), gpu("70"))}, ()),
        ({"devices": (RTX_3060,)}, ("61",)),
        ({"devices": (RTX_3060,)}, ("61", "86")),
        ({"devices": (RTX_3060,), "supports": "12.8"}, ()),
    ],
)
def test_cuda_13_is_not_offered_where_it_would_not_do(
    facts: dict[str, Any], architectures: tuple[str, ...], system: dict[str, Any], fix: str
) -> None:
    cuda = replace(NVIDIA, **{"supports": "13.0", "toolkits": (), **facts})
    host = machines.pc(cuda=cuda, os=replace(PC.os, **system))
    terms = {"named": True, "architectures": architectures} if architectures else {}
    assert obstacle("cuda", host, **terms).fix.startswith(fix)


UBUNTU_22, UBUNTU_24 = "Ubuntu 22.04.5 LTS", "Ubuntu 24.04.2 LTS"
DEBIAN_11 = "Debian GNU/Linux 11 (bullseye)"


def done_as_told(host: Host, fix: str) -> Host:
    """The machine on which the fix for its CUDA was carried out."""
    cuda, others = host.cuda, host.toolchain.others
    if re.search("driver|akmod-nvidia", fix):
        cuda = replace(cuda, driver="580.95.05", supports="13.0")
    if "nvidia-cuda-toolkit" in fix:
        own = packages_of(host.os)
        assert own
        version = ".".join(map(str, own.cuda))
        # It brings a compiler that it takes, where the system's is newer.
        oldest = min(own.gcc, {11: 11, 12: 13}[own.cuda[0]])
        kits: tuple[CudaToolkit, ...] = (
            replace(CUDA_12_4, version=version, newest_gcc=oldest, architectures=()),
        )
        others = (gcc(f"{oldest}.1.0", f"g++-{oldest}"),)
    else:
        assert re.search(r"\b12[.-]9\b", fix), fix
        kits = (replace(CUDA_12_4, version="12.9", newest_gcc=14, architectures=()),)
    changed = replace(host, cuda=replace(cuda, toolkits=kits))
    return replace(changed, toolchain=replace(host.toolchain, others=others))


@pytest.mark.parametrize("said", ["by the driver", "by its version"])
@pytest.mark.parametrize("capability", ["61", "86"])
@pytest.mark.parametrize(
    ("system", "cxx", "fix"),
    [
        ({"version": UBUNTU_24}, "13.3.0", "sudo ubuntu-drivers install && sudo apt install nvidia-cuda"),
        ({"version": UBUNTU_22}, "11.4.0", "sudo ubuntu-drivers install; then install NVIDIA's CUDA"),
        # Of the 11 series, which such a driver runs.
        ({}, "12.2.0", "sudo apt install nvidia-cuda-toolkit"),
        ({"version": DEBIAN_11}, "10.2.1", "sudo apt install nvidia-cuda-toolkit"),
        ({"version": "Fedora Linux 40"}, "14.1.1", "sudo dnf install akmod-nvidia (from RPM Fusion); then "),
        (
            {"version": "openSUSE Leap 15.6"},
            "7.5.0",
            "install NVIDIA's driver 525 or newer; then sudo zypper",
        ),
        (
            {"version": UBUNTU_24, "container": "docker"},
            "13.3.0",
            "install NVIDIA's driver 525 or newer on the machine that runs the container; then apt install",
        ),
        (
            {"name": "Windows", "libc": "", "version": "Windows 11"},
            "13.1.0",
            "install NVIDIA's driver 525 or newer; then ",
        ),
    ],
)
def test_what_is_told_to_an_old_driver_leads_to_a_plan(
    system: dict[str, Any], cxx: str, fix: str, capability: str, said: str
) -> None:
    """Of 470, which runs CUDA 11 alone."""
    cuda = replace(
        NVIDIA,
        driver="470.256.02",
        supports="11.4" if said == "by the driver" else "",
        devices=(gpu(capability),),
        toolkits=(),
    )
    host = with_compiler(machines.pc(cuda=cuda, os=replace(PC.os, **system)), gcc(cxx))
    told = obstacle("cuda", host).fix
    assert told.startswith(fix)
    assert make_plan(done_as_told(host, told), Request(), PRESETS).backend == "cuda"


def test_a_toolkit_that_cannot_compile_for_what_was_asked() -> None:
    host = nvidia(kits=(CUDA_13,), supports="13.0")
    asked = obstacle("cuda", host, named=True, architectures=("61",))
    assert "cannot compile for 61" in asked.reason
    assert asked.fix == "sudo apt install nvidia-cuda-toolkit"
    newer = fit("cuda", nvidia(supports="13.0"), named=True, architectures=("120",))
    assert newer.toolkit == planned(host, INDEX_KIT)
    assert any("cannot compile for 120" in reason.text for reason in newer.reasons)
    nobody = obstacle("cuda", nvidia(supports="13.0"), named=True, architectures=("130",))
    assert nobody.fix.startswith("install NVIDIA's CUDA toolkit")


def test_a_driver_is_no_business_of_a_container() -> None:
    no = obstacle("cuda", nvidia(kits=(CUDA_13,), os=replace(PC.os, container="docker")))
    assert no.fix.startswith("install NVIDIA's driver 580 or newer on the machine that runs the container")
