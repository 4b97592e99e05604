"""NVIDIA's drivers that do not start, GPUs in containers, and toolkits that do not go with what is here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from fits import CUDA_11_5, fit, gcc, gpu, nvidia, obstacle, with_compiler
from machines import CUDA_12_4, NVIDIA, PC, RTX_3060

from floatllm_build.rules.cuda_apt import apt_version
from floatllm_build.tables.cuda_errors import INIT_ERRORS, SMI_ERRORS
from floatllm_build.values import (
    Compiler,
    Host,
    Note,
    Program,
)

NO_DEVICE = replace(NVIDIA, library="", devices=())
LISTED = replace(NVIDIA, library="")


def on(container: str = "", **changes: Any) -> Host:
    return machines.pc(os=replace(PC.os, container=container, **changes))


# ---- NVIDIA's driver ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "said", "here", "contained"),
    [
        (34, "stub", "LD_LIBRARY_PATH", "LD_LIBRARY_PATH"),
        (46, "exclusive", "nvidia-smi -c 0", "nvidia-smi -c 0"),
        (101, "does not accept", "nvidia-smi -r", "restart the container"),
        (102, "licence", "nvidia-gridd", "licensed on the machine"),
        (214, "memory", "nvidia-smi -r", "on the machine"),
        (304, "/dev", "nvidia-modprobe", "/dev/nvidia-uvm"),
        (802, "Fabric Manager", "systemctl enable --now nvidia-fabricmanager", "on the machine"),
        (803, "MISMATCH", "sudo reboot", "reboot the machine that runs the container"),
        (804, "compat", "cuda-compat", "no newer than the driver"),
        (807, "MPS", "nvidia-cuda-mps-control", "nvidia-cuda-mps-control"),
        (999, "suspend", "modprobe nvidia_uvm", "start the container again"),
        (719, "does not start", "dmesg", "start the container again"),
    ],
)
def test_a_driver_that_does_not_start_is_not_taken_for_none(
    code: int, said: str, here: str, contained: str
) -> None:
    for cuda in (replace(NO_DEVICE, init_error=code), replace(LISTED, init_error=code)):
        host = machines.pc(cuda=cuda)
        no = obstacle("cuda", host)
        assert f"cuInit returns {code}" in no.reason
        assert said in no.reason
        assert here in no.fix
        assert "ubuntu-drivers" not in no.fix
        assert contained in obstacle("cuda", replace(host, os=on("docker").os)).fix
    # A wheel for other machines needs no driver here.
    assert not fit("cuda", host, named=True, portable=True, without_device=True).proven


@pytest.mark.parametrize("code", [34, 803])
def test_a_driver_that_works_behind_a_library_that_does_not_needs_no_reboot(code: int) -> None:
    no = obstacle("cuda", machines.pc(cuda=replace(NVIDIA, init_error=code)))
    assert NVIDIA.library in no.reason
    assert str(code) in no.reason
    assert "LD_LIBRARY_PATH" in no.fix
    assert "reboot" not in no.fix
    compat = obstacle("cuda", machines.pc(cuda=replace(NVIDIA, init_error=804)))
    assert "cuda-compat" in compat.fix


def test_every_error_says_what_it_means_and_what_to_do() -> None:
    for code, meaning in {**INIT_ERRORS, **SMI_ERRORS}.items():
        assert meaning.what, code
        assert meaning.here, code


def test_in_windows_nobody_is_told_to_use_sudo() -> None:
    for code in (46, 101, 214, 304, 803, 999, 719):
        windows = machines.pc(cuda=replace(NO_DEVICE, init_error=code), os=replace(PC.os, name="Windows"))
        assert "sudo" not in obstacle("cuda", windows).fix


def test_no_device_is_told_like_none_but_not_if_nvidia_smi_lists_some() -> None:
    host = machines.pc(cuda=replace(NO_DEVICE, init_error=100))
    assert "no NVIDIA GPU answered" in obstacle("cuda", host).reason
    host = machines.pc(cuda=replace(LISTED, init_error=100))
    no = obstacle("cuda", host)
    assert RTX_3060.name in no.reason
    assert "MIG" in no.fix
    assert "--gpus all" in obstacle("cuda", replace(host, os=on("docker").os)).fix


def test_gpus_that_nvidia_smi_alone_lists_are_no_gpus_for_programs() -> None:
    no = obstacle("cuda", machines.pc(cuda=LISTED))
    assert "no library of the driver (libcuda) starts" in no.reason
    assert "libnvidia-compute" in no.fix
    assert "in Windows" in obstacle("cuda", machines.pc(cuda=LISTED, os=on(wsl=2).os)).fix
    inside = obstacle("cuda", machines.pc(cuda=LISTED, os=on("docker").os))
    assert "NVIDIA_DRIVER_CAPABILITIES" in inside.fix


@pytest.mark.parametrize(
    ("code", "fix"),
    [(18, "reboot"), (15, "reboot"), (9, "modprobe nvidia"), (6, "apt install nvidia-driver")],
)
def test_nvidia_smis_exit_status_if_no_library_says_more(code: int, fix: str) -> None:
    assert fix in obstacle("cuda", machines.pc(cuda=replace(NO_DEVICE, smi_error=code))).fix


# ---- containers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "cuda", "hip", "vulkan"),
    [
        ("docker", "docker run --gpus all", "--device /dev/kfd --device /dev/dri", "--device /dev/dri"),
        ("podman", "--device nvidia.com/gpu=all", "--group-add keep-groups", "--device /dev/dri"),
        ("toolbox", "--device nvidia.com/gpu=all", "--device /dev/kfd", "--device /dev/dri"),
        ("distrobox", "distrobox create --nvidia", "--device /dev/kfd", "--device /dev/dri"),
        ("kubernetes", "nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com"),
        ("containerd", "nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com"),
        ("lxc", "lxc config device add", "/dev/kfd", "lxc config device add"),
        ("apptainer", "apptainer exec --nv", "apptainer exec --rocm", "--bind /dev/dri"),
        ("singularity", "apptainer exec --nv", "apptainer exec --rocm", "--bind /dev/dri"),
        ("proot", "phone", "phone", "turnip"),
        ("container", "--gpus all", "--device /dev/kfd", "--device /dev/dri"),
    ],
)
def test_a_gpu_gets_into_a_container_as_that_kind_takes_it(
    container: str, cuda: str, hip: str, vulkan: str
) -> None:
    host = on(container)
    for backend, part in (("cuda", cuda), ("hip", hip), ("vulkan", vulkan)):
        assert part in obstacle(backend, host).fix, backend  # type: ignore[arg-type]


def test_under_wsl_a_container_needs_the_gpu_and_not_a_driver() -> None:
    host = on("docker", wsl=2)
    assert "docker run --gpus all" in obstacle("cuda", host).fix
    assert "docker run --gpus all" in obstacle("vulkan", host).fix
    assert "in Windows" in obstacle("cuda", on(wsl=2)).fix


def test_docker_on_a_mac_reaches_no_gpu_whatever_it_is_started_with() -> None:
    host = on("docker", release="6.10.14-linuxkit")
    arm = replace(host, cpu=replace(PC.cpu, arch="arm64"))
    assert "on the Mac itself" in obstacle("vulkan", arm).fix
    assert "--gpus" not in obstacle("cuda", arm).fix
    assert "on the machine itself" in obstacle("hip", host).fix
    assert "and there:" not in obstacle("vulkan", arm).fix


def test_a_jetson_has_a_way_of_its_own() -> None:
    host = machines.pc(cuda=replace(NO_DEVICE, jetson="36.4"), os=on("docker").os)
    assert "--runtime nvidia" in obstacle("cuda", host).fix


@pytest.mark.parametrize(
    ("jetson", "capability", "fix"),
    [
        ("35.4.1", "87", "apt install nvidia-jetpack"),
        ("32.7.5", "53", "no JetPack for this board"),
        ("32.7.5", "62", "no JetPack for this board"),
        ("32.7.5", "72", "SDK Manager"),
    ],
)
def test_old_boards_of_nvidias_get_no_newer_jetpack(jetson: str, capability: str, fix: str) -> None:
    host = nvidia(gpu(capability, integrated=True), kits=(replace(CUDA_11_5, version="10.2"),))
    assert fix in obstacle("cuda", replace(host, cuda=replace(host.cuda, jetson=jetson))).fix


# ---- toolkit x compiler x C library -------------------------------------------------------------------


def test_gcc_11_is_too_new_for_cuda_11_5_whatever_its_header_says() -> None:
    host = with_compiler(nvidia(kits=(CUDA_11_5,)), gcc("11.4.0"))
    no = obstacle("cuda", host)
    assert "std_function.h" in no.reason
    assert no.fix == "sudo apt install g++-10"
    with_10 = with_compiler(host, gcc("11.4.0"), gcc("10.5.0", "g++-10"))
    assert "CMAKE_CUDA_HOST_COMPILER=g++-10" in fit("cuda", with_10).defines
    for version, works in (("11.4", False), ("11.6", False), ("11.7", True), ("11.8", True)):
        kit = replace(CUDA_11_5, version=version)
        answer = machines.pc(cuda=replace(NVIDIA, toolkits=(kit,)))
        answer = with_compiler(answer, gcc("11.4.0"))
        if works:
            assert fit("cuda", answer).toolkit
        else:
            assert version in obstacle("cuda", answer).reason


def named(compiler: Compiler | None, variable: str = "CUDAHOSTCXX", **facts: Any) -> Host:
    chain = replace(PC.toolchain, cxx=gcc("15.2.1"), nvcc_host=compiler, nvcc_host_by=variable, **facts)
    return nvidia(toolchain=chain)


def test_a_compiler_that_is_named_for_nvcc_comes_first() -> None:
    answer = fit("cuda", named(gcc("13.3.0", "/opt/gcc-13/bin/g++")))
    assert "CMAKE_CUDA_HOST_COMPILER=/opt/gcc-13/bin/g++" in answer.defines
    assert any("CUDAHOSTCXX" in reason.text for reason in answer.reasons)
    newer = obstacle("cuda", named(gcc("14.1.0", "g++-14"), "NVCC_CCBIN"))
    assert "NVCC_CCBIN names g++-14" in newer.reason
    assert "sudo apt install g++-13; then set NVCC_CCBIN" in newer.fix
    other = obstacle("cuda", named(gcc("14.1.0", "g++-14"), others=(gcc("12.4.0", "g++-12"),)))
    assert "g++-12" in other.fix


def test_one_that_is_named_and_does_not_answer_is_no_reason_to_take_another() -> None:
    host = replace(named(None), notes=(Note(source="CUDAHOSTCXX", said="names `/gone`"),))
    no = obstacle("cuda", host)
    assert "names `/gone`" in no.reason
    assert no.fix == "correct or unset CUDAHOSTCXX"


@pytest.mark.parametrize(
    ("msvc", "version", "newest", "fits"),
    [
        ("19.50.35719", "12.9", 1949, False),
        ("19.44.35211", "12.9", 1949, True),
        ("19.41.34120", "12.3", 1939, False),
        ("19.39.33523", "12.3", 1939, True),
        # The header could not be asked.
        ("19.50.35719", "12.8", 0, False),
        ("19.40.33811", "12.1", 0, False),
        ("19.38.33130", "11.4", 0, False),
        ("19.29.30154", "11.4", 0, True),
        ("19.50.35719", "13.0", 0, False),
        ("19.50.35719", "13.4", 0, True),
        ("19.50.35719", "13.2", 1959, True),
    ],
)
def test_msvc_that_is_newer_than_the_toolkit_takes(msvc: str, version: str, newest: int, fits: bool) -> None:
    kit = replace(CUDA_12_4, version=version, newest_msvc=newest)
    cxx = Compiler(command="cl", kind="msvc", version=msvc)
    host = with_compiler(nvidia(kits=(kit,), supports="13.0"), cxx)
    if fits:
        assert fit("cuda", host).toolkit
        return
    no = obstacle("cuda", host)
    assert msvc in no.reason
    assert version in no.reason
    assert "x64 Native Tools" in no.fix
    year = "2019" if version == "11.4" else "2022"
    assert f"Visual Studio {year}" in no.fix


def test_an_older_visual_studio_that_is_here_is_named() -> None:
    path = r"C:\VS\2022\BuildTools"
    chain = replace(PC.toolchain, msvc=(Program(path=path, version="17.13.3"),))
    host = nvidia(toolchain=replace(chain, cxx=Compiler(command="cl", kind="msvc", version="19.50")))
    assert path in obstacle("cuda", host).fix
    older = replace(host.cuda, toolkits=(replace(CUDA_12_4, version="12.1", newest_msvc=1939),))
    assert path not in obstacle("cuda", replace(host, cuda=older)).fix  # 17.13 has 19.43


@pytest.mark.parametrize(
    ("arch", "libc", "version", "header", "fits"),
    [
        ("arm64", "glibc 2.39", "12.0", "", False),
        ("arm64", "glibc 2.39", "12.4", "", False),
        ("arm64", "glibc 2.39", "12.5", "", True),
        ("arm64", "glibc 2.36", "11.8", "", True),
        ("x86_64", "glibc 2.39", "12.0", "", True),
        ("arm64", "glibc 2.39", "12.0", "guarded", True),
        ("arm64", "glibc 2.37", "12.0", "bare", False),
    ],
)
def test_glibcs_vector_functions_for_arm(arch: str, libc: str, version: str, header: Any, fits: bool) -> None:
    kit = replace(CUDA_12_4, version=version)
    host = nvidia(kits=(kit,), os=replace(PC.os, libc=libc), cpu=replace(PC.cpu, arch=arch))
    host = replace(host, cuda=replace(host.cuda, vector_math=header))
    if fits:
        assert fit("cuda", host).toolkit
        return
    no = obstacle("cuda", host)
    assert "math-vector.h" in no.reason
    assert "apt install nvidia-cuda-toolkit" not in no.fix or libc != "glibc 2.39"


# ---- the distribution's own toolkit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "capability", "apt"),
    [
        ({"version": "Ubuntu 20.04.6 LTS"}, "86", False),  # 10.1
        ({"version": "Ubuntu 22.04.5 LTS"}, "86", False),  # 11.5, and gcc 11
        ({"version": "Ubuntu 24.04.2 LTS"}, "86", True),
        ({"version": "Ubuntu 24.04.2 LTS"}, "120", False),
        ({"version": "Linux Mint 21.3"}, "86", False),
        ({"version": "Zorin OS 17.2", "ubuntu_codename": "jammy", "id": "zorin"}, "86", False),
        ({"version": "Pop!_OS 22.04 LTS"}, "86", False),
        ({"version": "Debian GNU/Linux 11 (bullseye)"}, "86", True),
        ({"version": "Debian GNU/Linux 11 (bullseye)"}, "90", False),
        ({"version": "Debian GNU/Linux 12 (bookworm)"}, "89", True),
        ({"version": "Debian GNU/Linux 13 (trixie)"}, "89", True),
        ({"version": "LMDE 6 (faye)", "id": "linuxmint", "debian_codename": "bookworm"}, "89", True),
        ({"version": "Something 1"}, "86", False),
    ],
)
def test_whether_the_distributions_own_toolkit_will_do(
    system: dict[str, str], capability: str, apt: bool
) -> None:
    host = replace(machines.pc(os=replace(PC.os, **{"id": "", **system})))
    assert bool(apt_version(host, (capability,))) == apt


def test_where_it_will_not_nvidias_own_is_advised() -> None:
    host = nvidia(gpu("89"), kits=(), os=replace(PC.os, version="Ubuntu 22.04.5 LTS"))
    assert "12.9 from NVIDIA" in obstacle("cuda", host).fix
    arm = replace(
        host,
        os=replace(PC.os, version="Ubuntu 24.04.2 LTS", libc="glibc 2.39"),
        cpu=replace(PC.cpu, arch="arm64"),
    )
    assert "from NVIDIA" in obstacle("cuda", arm).fix


def test_a_card_that_ggml_is_not_written_for_is_left_out_because_of_ggml() -> None:
    answer = fit("cuda", nvidia(gpu("52", "GTX 970"), gpu("37", "Tesla K80"), kits=(CUDA_12_4,)))
    told = next(reason.text for reason in answer.reasons if reason.rule == "cuda-device")
    assert "Tesla K80" in told
    assert "ggml is written for 5.0" in told
