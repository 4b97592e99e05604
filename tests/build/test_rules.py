"""What fits together on a machine, backend by backend (CUDA's has a file of its own), as tables."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import Any

import machines
import pytest
from fits import CUDA_13, fit, gcc, gpu, nvidia, obstacle, rules, with_compiler
from machines import CUDA_12_4, NVIDIA, PC
from tool_environment import skip_or_fail

from floatllm_build.rules import FITTERS
from floatllm_build.rules.cpu import arm_arch
from floatllm_build.rules.fit import Fit, Obstacle, Terms
from floatllm_build.rules.packages import install_command
from floatllm_build.values import Backend, Host, OsFacts, Program
from floatllm_build.versions import version_tuple

# ---- wheels for machines other than this one ------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "host"),
    [
        ("cuda", machines.pc(cuda=replace(NVIDIA, devices=()))),
        ("cuda", nvidia(kits=(CUDA_13,))),  # the driver is too old for it
        ("cuda", nvidia(gpu("61"), kits=(CUDA_13,), supports="13.0")),
        ("hip", machines.pc(hip=replace(machines.ROCM, targets=()))),
        ("vulkan", machines.pc(vulkan=replace(machines.GOOD_VULKAN, devices=()))),
        ("metal", machines.pc(os=replace(PC.os, name="Darwin"), cpu=replace(PC.cpu, arch="arm64"))),
    ],
)
def test_a_wheel_for_others_needs_no_device_here(backend: Backend, host: Host) -> None:
    obstacle(backend, host, named=True, portable=True)
    answer = fit(backend, host, named=True, portable=True, without_device=True)
    assert not answer.proven
    assert "no-device" in rules(answer)
    assert answer.architectures == ()


@pytest.mark.parametrize(
    ("backend", "host"),
    [
        ("cuda", machines.pc(os=replace(PC.os, libc="glibc"))),
        ("cuda", with_compiler(nvidia(), gcc("17.1.0"))),
        ("hip", machines.pc(hip=replace(machines.ROCM, hipcc=""))),
        ("vulkan", machines.pc(vulkan=replace(machines.GOOD_VULKAN, headers=239))),
        ("metal", machines.PC),
    ],
)
def test_but_it_needs_what_compiles(backend: Backend, host: Host) -> None:
    obstacle(backend, host, named=True, portable=True, without_device=True)


# ---- Vulkan ------------------------------------------------------------


def vulkan(**changes: Any) -> Host:
    return machines.pc(vulkan=replace(machines.GOOD_VULKAN, **changes))


@pytest.mark.parametrize("kind", ["discrete", "integrated", "virtual", "other"])
def test_every_real_vulkan_device_counts(kind: str) -> None:
    assert fit("vulkan", vulkan(devices=(replace(machines.RADEON, type=kind),))).defines == ()


def test_a_software_device_counts_only_when_asked_for() -> None:
    host = vulkan(devices=(machines.LLVMPIPE,))
    no = obstacle("vulkan", host)
    assert "llvmpipe" in no.reason
    assert "--backend vulkan" in no.fix
    assert "software-device" in rules(fit("vulkan", host, named=True))
    both = vulkan(devices=(machines.LLVMPIPE, machines.RADEON))
    assert "software-device" not in rules(fit("vulkan", both, named=True))


def test_naming_a_software_device_is_no_fix_where_it_could_not_be_built() -> None:
    # Debian 12 with its own packages and no GPU.
    host = vulkan(devices=(machines.LLVMPIPE,), headers=239)
    no = obstacle("vulkan", host)
    assert "llvmpipe" in no.reason
    assert "1.3.239" in no.reason
    assert "trixie" in no.fix
    assert "; then floatllm-build install --backend vulkan" in no.fix
    assert "llvmpipe" not in obstacle("vulkan", host, named=True).reason


def test_vulkan_on_a_phone_is_taken_only_when_asked_for() -> None:
    phone = replace(machines.phone("asimd"), vulkan=machines.GOOD_VULKAN)
    assert "wrong numbers" in obstacle("vulkan", phone).reason
    fit("vulkan", phone, named=True)


@pytest.mark.parametrize(("headers", "fits"), [(239, False), (271, False), (272, True), (309, True)])
def test_vulkan_headers(headers: int, fits: bool) -> None:
    answer = FITTERS["vulkan"](vulkan(headers=headers), Terms())
    assert isinstance(answer, Fit) == fits
    if isinstance(answer, Obstacle):
        assert str(headers) in answer.reason
        assert "trixie" in answer.fix  # Debian 12


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        ({"glslc": None}, "glslc", "sudo apt install glslc"),
        ({"headers": 0}, "Vulkan's headers", "sudo apt install libvulkan-dev; then add the suite trixie"),
        ({"spirv_headers": ""}, "SPIRV-Headers could", "sudo apt install spirv-headers"),
        (
            {"glslc": None, "headers": 0, "spirv_headers": ""},
            "and SPIRV-Headers could not be found",
            "sudo apt install glslc libvulkan-dev spirv-headers",
        ),
        ({"glslc": None, "headers": 239}, "glslc", "sudo apt install glslc; then add the suite trixie"),
        ({"devices": ()}, "no Vulkan GPU", "sudo apt install mesa-vulkan-drivers vulkan-tools"),
    ],
)
def test_what_vulkan_lacks(changes: dict[str, Any], said: str, fix: str) -> None:
    no = obstacle("vulkan", vulkan(**changes))
    assert said in no.reason
    assert no.fix.startswith(fix)


@pytest.mark.parametrize(
    ("system", "headers", "fix"),
    [
        ("Ubuntu 24.04", 0, "sudo apt install libvulkan-dev"),
        ("Ubuntu 22.04.5 LTS", 0, "sudo apt install libvulkan-dev; then install LunarG's Vulkan SDK"),
        ("Ubuntu 22.04.5 LTS", 204, "install LunarG's Vulkan SDK"),
        ("Ubuntu 23.04", 239, "install LunarG's Vulkan SDK"),
        ("Debian GNU/Linux 11 (bullseye)", 0, "sudo apt install libvulkan-dev; then add the suite trixie"),
        ("Fedora Linux 38", 243, "sudo dnf install vulkan-headers vulkan-loader-devel"),
    ],
)
def test_a_fix_never_leads_to_headers_that_are_too_old(system: str, headers: int, fix: str) -> None:
    host = replace(vulkan(headers=headers), os=replace(PC.os, version=system))
    told = obstacle("vulkan", host).fix
    assert told.startswith(fix)
    assert ("; then" in told) == ("; then" in fix)


@pytest.mark.parametrize("system", ["Ubuntu 22.04.5 LTS", "Linux Mint 21.3", "Pop!_OS 22.04 LTS"])
@pytest.mark.parametrize("changes", [{}, {"headers": 204}, {"headers": 0, "spirv_headers": ""}])
def test_where_apt_has_no_shader_compiler(system: str, changes: dict[str, Any]) -> None:
    # ros/rosdistro#43891
    host = replace(vulkan(glslc=None, **changes), os=replace(PC.os, version=system))
    fix = obstacle("vulkan", host).fix
    assert fix == "install LunarG's Vulkan SDK 1.3.275 or newer and set VULKAN_SDK to its folder"


@pytest.mark.parametrize("changes", [{"glslc": None}, {"headers": 204}])
def test_lunarg_makes_no_sdk_for_linux_on_arm(changes: dict[str, Any]) -> None:
    host = replace(
        vulkan(**changes),
        os=replace(PC.os, version="Ubuntu 22.04.5 LTS", machine="aarch64"),
        cpu=replace(PC.cpu, arch="arm64"),
    )
    fix = obstacle("vulkan", host).fix
    assert "install LunarG's" not in fix
    assert "apt install glslc" not in fix
    assert "Ubuntu 24.04" in fix
    assert "from source" in fix
    jetson = replace(host, cuda=replace(machines.NO_CUDA, jetson="36.4"))
    assert obstacle("vulkan", jetson).fix.startswith("use CUDA")


def test_vulkan_under_wsl() -> None:
    wsl = replace(PC.os, wsl=2, version="Ubuntu 24.04.2 LTS")
    none = obstacle("vulkan", replace(vulkan(devices=()), os=wsl))
    assert none.fix.startswith("use CUDA if the GPU is NVIDIA's")
    assert "dzn" in none.fix
    assert "apt install mesa" not in none.fix
    software = obstacle("vulkan", replace(vulkan(devices=(machines.LLVMPIPE,)), os=wsl))
    assert software.fix == "floatllm-build install --backend vulkan"
    assert "dzn" in software.reason


@pytest.mark.parametrize("backend", ["cuda", "vulkan"])
def test_wsl_1_reaches_no_gpu(backend: Backend) -> None:
    host = replace(vulkan(devices=()), os=replace(PC.os, wsl=1))
    no = obstacle(backend, host)
    assert no.fix == "wsl --set-version DISTRO 2"
    assert "WSL 1 reaches no GPU" in no.reason
    assert "DISTRO" in no.reason
    assert no.fix != obstacle(backend, replace(host, os=replace(PC.os, wsl=2))).fix
    software = obstacle("vulkan", replace(vulkan(devices=(machines.LLVMPIPE,)), os=host.os))
    assert "wsl --set-version DISTRO 2" in software.reason


UBUNTU_26 = replace(PC.os, version="Ubuntu 26.04 LTS", libc="glibc 2.42")


# Fixes that are commands are such to a shell: no words beside them.
@pytest.mark.parametrize(
    ("backend", "host"),
    [
        ("vulkan", vulkan(devices=(machines.LLVMPIPE,))),
        ("vulkan", vulkan(devices=(machines.LLVMPIPE,), glslc=None)),
        ("vulkan", replace(machines.phone("asimd"), vulkan=machines.GOOD_VULKAN)),
        ("vulkan", replace(vulkan(headers=243), os=replace(PC.os, version="Fedora Linux 38"))),
        ("hip", machines.pc(hip=replace(machines.ROCM, targets=("gfx1031",)))),
        ("cuda", nvidia(kits=(CUDA_13,), os=UBUNTU_26)),
        ("cuda", nvidia(kits=(CUDA_12_4,), supports="11.4")),  # Debian 12, whose own driver is new enough
        ("cuda", nvidia(kits=(replace(CUDA_13, newest_glibc="2.40"),), os=UBUNTU_26)),
        ("cuda", machines.pc(cuda=replace(machines.NO_CUDA, jetson="36.4"))),
        ("cuda", machines.pc(cuda=replace(NVIDIA, supports="13.0", toolkits=()))),
    ],
)
def test_a_fix_that_is_a_command_can_be_pasted(backend: Backend, host: Host) -> None:
    fix = obstacle(backend, host).fix
    bash = shutil.which("bash")
    if not bash:
        skip_or_fail("no bash here")
    stubs = "sudo() { :; }; floatllm-build() { :; }; pkg() { :; }; /srv/.venv/bin/python() { :; };"
    done = subprocess.run(
        [bash, "-c", f"{stubs}\n{fix}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/nowhere"},  # no program is really run
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({}, "/srv/.venv/bin/python -m pip install 'cuda-toolkit["),
        ({"executable": "{home}/v/bin/python"}, "{home}/v/bin/python -m pip install '"),
        ({"executable": "/a b/python"}, "'/a b/python' -m pip install '"),
        ({"has_pip": False}, "/srv/.venv/bin/python -m ensurepip && /srv/.venv/bin/python -m pip install '"),
        ({"kind": "pipx"}, "python3 -m venv .venv && .venv/bin/python -m pip install '"),
        ({"externally_managed": True}, "python3 -m venv .venv && .venv/bin/python -m pip install '"),
    ],
)
def test_what_a_toolkit_of_wheels_lacks_goes_where_the_engine_goes(
    changes: dict[str, Any], start: str
) -> None:
    kit = replace(CUDA_13, layout="wheels", cublas=False)
    host = replace(nvidia(kits=(kit,), supports="13.0"), target=replace(machines.VENV, **changes))
    assert obstacle("cuda", host).fix.startswith(start)
    assert obstacle("cuda", replace(host, target=None)).fix.startswith("python -m pip install '")


def test_an_old_shader_compiler_is_said() -> None:
    old = Program(path="/usr/bin/glslc", version="2023.2")
    assert "old-glslc" in rules(fit("vulkan", vulkan(glslc=old)))
    assert "old-glslc" not in rules(fit("vulkan", vulkan(glslc=replace(old, version="2025.3"))))


def test_cmake_is_told_where_vulkan_lies_outside_the_usual_folders() -> None:
    sdk = "{home}/sdk"
    host = vulkan(
        include=f"{sdk}/include",
        spirv_headers=f"{sdk}/share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake",
        glslc=Program(path=f"{sdk}/bin/glslc", version="2025.3"),
    )
    assert fit("vulkan", host).defines == (
        f"Vulkan_INCLUDE_DIR={sdk}/include",
        f"SPIRV-Headers_DIR={sdk}/share/cmake/SPIRV-Headers",
        f"Vulkan_GLSLC_EXECUTABLE={sdk}/bin/glslc",
    )


def test_windows_paths_reach_cmake_with_slashes() -> None:
    kit = replace(CUDA_12_4, nvcc=r"C:\CUDA\v12.4\bin\nvcc.exe")
    assert "CMAKE_CUDA_COMPILER=C:/CUDA/v12.4/bin/nvcc.exe" in fit("cuda", nvidia(kits=(kit,))).defines
    defines = fit("vulkan", vulkan(include=r"C:\VulkanSDK\1.4\Include")).defines
    assert defines == ("Vulkan_INCLUDE_DIR=C:/VulkanSDK/1.4/Include",)


# ---- HIP and Metal ------------------------------------------------------------


def rocm(**changes: Any) -> Host:
    return machines.pc(hip=replace(machines.ROCM, **changes))


def test_hip_is_built_for_the_gpus_that_are_here() -> None:
    answer = fit("hip", rocm(targets=("gfx1100", "gfx1100", "gfx1036")))
    assert answer.architectures == ("gfx1100",)
    assert answer.defines == ("GPU_TARGETS=gfx1100",)
    assert any("gfx1036" in reason.text for reason in answer.reasons)
    assert fit("hip", rocm(targets=("gfx1036",), rocblas=())).architectures == ("gfx1036",)


@pytest.mark.parametrize(
    ("changes", "said", "fix"),
    [
        (
            {"targets": ()},
            "no AMD GPU",
            "with an AMD GPU in the machine, load its driver: sudo modprobe amdgpu",
        ),
        ({"hipcc": ""}, "hipcc", "install ROCm 6.1 or newer"),  # Debian 12 has 5.2
        ({"version": "6.0.2"}, "6.1", "install ROCm 6.1"),
        ({"targets": ("gfx1031",)}, "rocBLAS", "HSA_OVERRIDE_GFX_VERSION=10.3.0 floatllm-build install"),
        ({"targets": ("gfx1032",)}, "rocBLAS", "HSA_OVERRIDE_GFX_VERSION=10.3.0 floatllm-build install"),
        ({"targets": ("gfx1034",)}, "rocBLAS", "HSA_OVERRIDE_GFX_VERSION=10.3.0 floatllm-build install"),
        ({"targets": ("gfx1031",), "rocblas": ("gfx90a",)}, "rocBLAS", "install a newer ROCm"),
        ({"targets": ("gfx1033",)}, "rocBLAS", "install a newer ROCm"),
        ({"targets": ("gfx1035",)}, "rocBLAS", "install a newer ROCm"),
        ({"targets": ("gfx1036",)}, "rocBLAS", "install a newer ROCm"),
        ({"targets": ("gfx1103",)}, "rocBLAS", "install a newer ROCm"),
        ({"targets": ("gfx803",)}, "gfx803", "install a newer ROCm"),
    ],
)
def test_what_hip_lacks(changes: dict[str, Any], said: str, fix: str) -> None:
    no = obstacle("hip", rocm(**changes))
    assert said in no.reason
    assert no.fix.startswith(fix)


def test_the_override_that_the_fix_names_is_then_taken() -> None:
    host = rocm(targets=("gfx1031",))
    assert "--architectures gfx1030" in obstacle("hip", host).fix
    assert fit("hip", host, named=True, architectures=("gfx1030",)).architectures == ("gfx1030",)


def test_rocm_elsewhere_is_told_to_cmake() -> None:
    defines = fit("hip", rocm(rocm="/srv/rocm-6.3")).defines
    assert "CMAKE_PREFIX_PATH=/srv/rocm-6.3" in defines


@pytest.mark.parametrize(("name", "arch", "fits"), [("Darwin", "arm64", True), ("Darwin", "x86_64", False)])
def test_metal_is_for_apple_silicon(name: str, arch: str, fits: bool) -> None:
    host = machines.pc(
        os=replace(PC.os, name=name, libc=""), cpu=replace(PC.cpu, arch=arch), metal=machines.M4
    )
    assert isinstance(FITTERS["metal"](host, Terms()), Fit) == fits


# ---- CPU, packages, versions ------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "arch"),
    [
        ((), "armv8-a"),
        (("asimdhp",), "armv8-a"),
        (("asimddp",), "armv8.2-a+dotprod"),
        (("asimddp", "asimdhp"), "armv8.2-a+dotprod+fp16"),
        (("asimddp", "i8mm", "sve", "sve2"), "armv8.2-a+dotprod+i8mm"),
    ],
)
def test_arm_architecture(features: tuple[str, ...], arch: str) -> None:
    assert arm_arch(features) == arch


@pytest.mark.parametrize(
    ("system", "manager"), [("Fedora Linux 42", "dnf"), ("openSUSE Leap 15.6", "zypper")]
)
def test_nvidia_s_own_packages_come_from_its_own_repository(system: str, manager: str) -> None:
    told = install_command(replace(PC.os, version=system), "cuda")
    assert told == f"sudo {manager} install cuda-toolkit (from NVIDIA's repository)"


@pytest.mark.parametrize(
    ("os_facts", "command"),
    [
        ({"version": "Debian GNU/Linux 12 (bookworm)"}, "sudo apt install g++"),
        ({"version": "Ubuntu 24.04.2 LTS"}, "sudo apt install g++"),
        ({"version": "Fedora Linux 42"}, "sudo dnf install gcc-c++"),
        ({"version": "Arch Linux"}, "sudo pacman -S gcc"),
        ({"version": "Alpine Linux v3.22"}, "sudo apk add build-base"),
        ({"version": "openSUSE Tumbleweed"}, "sudo zypper install gcc-c++"),
        ({"name": "Android", "termux": True, "version": "Android 15"}, "pkg install clang"),
        ({"name": "Darwin", "version": "macOS 15.1"}, "xcode-select --install"),
    ],
)
def test_the_command_is_that_of_the_system(os_facts: dict[str, Any], command: str) -> None:
    assert install_command(replace(PC.os, **os_facts), "c++") == command


# Every fix that could hold a command for the administrator; the driver's are for the machine outside.
@pytest.mark.parametrize(
    "system", ["Debian GNU/Linux 12 (bookworm)", "Fedora Linux 41", "Alpine Linux v3.21", "?"]
)
def test_in_a_container_no_command_asks_for_sudo(system: str) -> None:
    os_facts = replace(PC.os, version=system, container="docker")
    too_new = with_compiler(nvidia(), gcc("15.1.0"))
    hosts: list[tuple[Backend, Host]] = [
        ("cuda", nvidia(kits=())),
        ("cuda", nvidia(kits=(CUDA_13,))),
        ("cuda", nvidia(kits=(replace(CUDA_12_4, cublas=False),))),
        ("cuda", too_new),
        ("cuda", machines.PC),
        ("hip", machines.pc(hip=replace(machines.ROCM, hipcc=""))),
        ("hip", machines.pc(hip=replace(machines.ROCM, targets=()))),
        ("vulkan", vulkan(devices=())),
        ("vulkan", vulkan(glslc=None, headers=239, spirv_headers="")),
    ]
    for backend, host in hosts:
        no = obstacle(backend, replace(host, os=os_facts))
        assert "sudo" not in no.fix
    for need in ("c++", "glslc", "vulkan-headers", "spirv-headers", "vulkan", "cuda", "rocm"):
        assert "sudo" not in install_command(os_facts, need)
    assert "sudo" in install_command(replace(os_facts, container=""), "c++")


def test_an_unknown_linux_gets_the_two_most_common_commands() -> None:
    unknown: OsFacts = replace(PC.os, version="Plan 9 from Linux")
    told = install_command(unknown, "glslc", "spirv-headers")
    assert told == (
        "sudo apt install glslc spirv-headers (Debian, Ubuntu), "
        "sudo dnf install glslc spirv-headers-devel (Fedora)"
    )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("12.4", (12, 4)),
        ("2023.2", (2023, 2)),
        ("²", ()),
        ("9" * 5000, (999999,)),
        ("", ()),
        ("x1", ()),
        ("3.25.1-rc2", (3, 25, 1)),
    ],
)
def test_versions_of_any_text(text: str, numbers: tuple[int, ...]) -> None:
    assert version_tuple(text) == numbers
