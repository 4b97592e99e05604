"""Vulkan, HIP and Metal devices that are there and cannot be used, and what mends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from fits import fit, obstacle, rules
from machines import GOOD_VULKAN, LLVMPIPE, PC, RADEON

from floatllm_build.rules import FITTERS
from floatllm_build.rules.fit import Fit, Obstacle, Terms
from floatllm_build.values import Backend, Host, MetalDevice, MetalFacts, VulkanDevice


def on(container: str = "", **changes: Any) -> Host:
    return machines.pc(os=replace(PC.os, container=container, **changes))


# ---- Vulkan -------------------------------------------------------------------------------------------


def device(name: str, driver: str = "", **changes: Any) -> VulkanDevice:
    unknown = {"type": "integrated", "storage_16_bit": None, "shared_memory": 0, "api": "1.3.0", **changes}
    return replace(RADEON, name=name, driver=driver, **unknown)


def with_vulkan(*devices: VulkanDevice, **facts: Any) -> Host:
    return machines.pc(vulkan=replace(GOOD_VULKAN, devices=devices, **facts))


V3D = device("V3D 7.1.10.2", "V3DV Mesa Mesa 25.0.7")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (V3D, "16 KiB"),
        (device("V3D 4.2.14", "V3DV Mesa"), "16 KiB"),
        (device("PowerVR B-Series BXE-4-32 MC1", "Imagination open-source Mesa driver"), "16 KiB"),
        (device("Turnip Adreno (TM) 619", "turnip Mesa driver Mesa 24.3.0"), "16-bit"),
        (device("Turnip Adreno (TM) 630", "turnip Mesa driver"), "16-bit"),
        (device("Turnip FD610", "turnip Mesa driver"), "16-bit"),
        (device("Intel(R) HD Graphics 4600 (HSW GT2)", "Intel open-source Mesa driver"), "16-bit"),
        (device("Mali-G52", "panvk", api="1.1.0"), "Vulkan 1.1.0"),
        (device("Some GPU", api="1.0.3"), "1.2"),
        (device("Some GPU", storage_16_bit=False), "16-bit"),
        (device("Some GPU", shared_memory=16384), "16 KiB"),
    ],
)
def test_devices_that_ggml_refuses(bad: VulkanDevice, said: str) -> None:
    for host in (with_vulkan(bad), with_vulkan(bad, LLVMPIPE)):
        no = obstacle("vulkan", host)
        assert bad.name in no.reason
        assert said in no.reason
    assert said in obstacle("vulkan", with_vulkan(bad), named=True).reason


@pytest.mark.parametrize(
    "good",
    [
        device("Mali-G610 MC4", "panvk Mesa 25.2.0", api="1.4.310"),
        device("Turnip Adreno (TM) 740v3", "turnip Mesa driver"),
        device("Turnip Adreno (TM) 660", "turnip Mesa driver"),
        device("Turnip Adreno (TM) 690", "turnip Mesa driver"),
        device("Intel(R) UHD Graphics 620 (KBL GT2)", "Intel open-source Mesa driver"),
        device("GPU of which nobody knows", api=""),
        # What the device says itself comes before what is known of its kind.
        replace(V3D, shared_memory=32768),
        device("Turnip Adreno (TM) 619", "turnip", storage_16_bit=True),
    ],
)
def test_devices_that_ggml_takes(good: VulkanDevice) -> None:
    answer = fit("vulkan", with_vulkan(good, LLVMPIPE))
    assert (answer.device, answer.environment) == (0, ())


def test_the_number_is_ggmls_and_not_the_loaders() -> None:
    no_16_bit = device("Old", storage_16_bit=False)
    # ggml leaves out the first by itself, and would start with the second.
    assert fit("vulkan", with_vulkan(no_16_bit, RADEON)).device == 0
    answer = fit("vulkan", with_vulkan(V3D, RADEON))
    assert (answer.device, answer.environment) == (1, ())
    assert any("V3D" in reason.text for reason in answer.reasons if reason.rule == "vulkan-device")
    # A virtual GPU is taken only if there is no other.
    virtual = device("Virtio-GPU Venus (Radeon)", type="virtual")
    assert fit("vulkan", with_vulkan(virtual, LLVMPIPE)).environment == ()
    assert fit("vulkan", with_vulkan(V3D, virtual)).environment == ("GGML_VK_VISIBLE_DEVICES=1",)
    asked = fit("vulkan", with_vulkan(V3D, LLVMPIPE), named=True)
    assert asked.environment == ("GGML_VK_VISIBLE_DEVICES=1",)
    assert "software-device" in rules(asked)


@pytest.mark.parametrize(
    "name",
    [
        "llvmpipe (LLVM 19)",
        "SwiftShader Device (Subzero)",
        "Microsoft Direct3D12 (Microsoft Basic Render Driver)",
    ],
)
def test_a_software_device_is_one_whatever_type_it_says(name: str) -> None:
    for kind in ("cpu", "virtual", "other"):
        software = device(name, type=kind)
        assert "only a software device" in obstacle("vulkan", with_vulkan(software)).reason
        assert "software-device" in rules(fit("vulkan", with_vulkan(software), named=True))


def test_a_phone_in_proot_deserves_the_caution_of_android() -> None:
    adreno = device("Turnip Adreno (TM) 740", "turnip Mesa driver")
    for changes in (
        {"container": "proot"},
        {"release": "6.2.1-PRoot-Distro"},
        {"release": "5.15.1-android13-8"},
    ):
        host = replace(with_vulkan(adreno), os=replace(PC.os, **changes))
        assert "phones compute wrong numbers" in obstacle("vulkan", host).reason
        assert fit("vulkan", host, named=True).proven


def test_a_gpu_that_this_user_may_not_open() -> None:
    host = with_vulkan(closed="/dev/dri/renderD128")
    no = obstacle("vulkan", host)
    assert "/dev/dri/renderD128" in no.reason
    assert "usermod -aG render,video" in no.fix
    assert "--group-add" in obstacle("vulkan", replace(host, os=on("docker").os)).fix
    software = obstacle("vulkan", with_vulkan(LLVMPIPE, closed="/dev/dri/renderD128"))
    assert "only a software device answered" in software.reason
    assert software.fix == no.fix


# ---- HIP ----------------------------------------------------------------------------------------------


def rocm(os: Any = PC.os, **changes: Any) -> Host:
    return machines.pc(hip=replace(machines.ROCM, **changes), os=os)


@pytest.mark.parametrize(
    ("kfd", "container", "fix"),
    [
        ("ENOENT", "docker", "--device /dev/kfd --device /dev/dri"),
        ("ENOENT", "kubernetes", "amd.com/gpu"),
        ("ENOENT", "", "modprobe amdgpu"),
        ("EACCES", "", "sudo usermod -aG render,video $USER"),
        ("EACCES", "docker", "--group-add render"),
        ("EPERM", "podman", "--device /dev/kfd"),
    ],
)
def test_a_gpu_that_the_kernel_lists_and_programs_do_not_reach(kfd: str, container: str, fix: str) -> None:
    no = obstacle("hip", rocm(on(container).os, kfd=kfd))
    assert "/dev/kfd" in no.reason
    assert fix in no.fix
    assert fit("hip", rocm(on(container).os, kfd="yes")).proven
    assert fit("hip", rocm(on(container).os, kfd="")).proven  # a record of an older tool


@pytest.mark.parametrize(
    ("version", "rocm_folder", "fix"),
    [
        ("Ubuntu 24.04.2 LTS", "/opt/rocm", "hipblas-dev rocblas-dev from AMD's repository"),
        ("Ubuntu 25.10", "", "libhipblas-dev"),
        ("Fedora Linux 42", "/usr", "hipblas-devel"),
        ("Rocky Linux 9.4", "/opt/rocm", "hipblas-devel rocblas-devel from AMD's repository"),
        ("Arch Linux", "/opt/rocm", "rocm-hip-sdk"),
    ],
)
def test_rocm_without_the_libraries_that_ggml_asks_for(version: str, rocm_folder: str, fix: str) -> None:
    os = replace(PC.os, version=version, id="", codename="")
    no = obstacle("hip", rocm(os, rocm=rocm_folder, missing=("hipblas", "rocblas")))
    assert "hipBLAS and rocBLAS" in no.reason
    assert fix in no.fix


def test_a_distributions_rocm_that_is_too_old_is_not_advised() -> None:
    for version, own in (("Ubuntu 24.04.2 LTS", False), ("Debian GNU/Linux 13 (trixie)", True)):
        fix = obstacle("hip", rocm(replace(PC.os, version=version, id="", codename=""), hipcc="")).fix
        assert ("apt install hipcc" in fix) == own


def test_the_override_is_what_the_runtime_takes_the_gpus_for() -> None:
    answer = fit("hip", rocm(targets=("gfx1103",), override="gfx1100"))
    assert (answer.architectures, answer.device) == (("gfx1100",), 0)
    assert "hsa-override" in rules(answer)
    assert fit("hip", rocm(targets=("gfx1036", "gfx1031"), override="gfx1030")).defines == (
        "GPU_TARGETS=gfx1030",
    )
    unset = "unset HSA_OVERRIDE_GFX_VERSION"
    assert obstacle("hip", rocm(targets=("gfx1100",), override="gfx1102")).fix == unset  # no kernels for it
    assert (
        obstacle("hip", rocm(targets=("gfx90a",), override="gfx1030")).fix == unset
    )  # of another generation
    asked = fit("hip", rocm(targets=("gfx1103",), override="gfx1100"), named=True, architectures=("gfx1030",))
    assert asked.architectures == ("gfx1030",)


@pytest.mark.parametrize(
    ("chip", "override", "runs"),
    [
        ("gfx1032", "gfx1030", True),
        ("gfx1151", "gfx1100", True),
        ("gfx906", "gfx900", True),
        ("gfx1030", "gfx1030", True),
        ("gfx1010", "gfx1030", False),  # an RX 5700 XT
        ("gfx900", "gfx90a", False),
        ("gfx1100", "gfx1151", False),
        ("gfx1030", "gfx1010", False),
    ],
)
def test_only_code_that_the_gpu_is_known_to_run_is_compiled_for_an_override(
    chip: str, override: str, runs: bool
) -> None:
    answer = FITTERS["hip"](rocm(targets=(chip,), override=override, rocblas=(chip, override)), Terms())
    assert isinstance(answer, Fit) == runs
    if isinstance(answer, Obstacle):
        assert answer.fix == "unset HSA_OVERRIDE_GFX_VERSION"
        assert f"{chip} is not known to run" in answer.reason


# ---- Macs ---------------------------------------------------------------------------------------------


def mac(name: str, arch: str = "arm64") -> Host:
    devices = (MetalDevice(name=name, working_set=0),) if name else ()
    return replace(
        machines.pc(metal=MetalFacts(devices=devices)),
        os=replace(PC.os, name="Darwin", machine=arch),
        cpu=replace(PC.cpu, arch=arch),
    )


@pytest.mark.parametrize(
    "name", ["Apple Paravirtual device", "Apple M1 (Virtual)", "Apple Software Renderer"]
)
def test_a_virtual_metal_device_is_taken_only_if_it_is_named(name: str) -> None:
    no = obstacle("metal", mac(name))
    assert name in no.reason
    assert "CPU" in obstacle("vulkan", mac(name)).fix
    assert "virtual-device" in rules(fit("metal", mac(name), named=True))
    assert not fit("metal", mac(name), named=True, without_device=True).proven


def test_what_a_mac_is_told_about_vulkan_is_what_works_on_it() -> None:
    assert "use Metal" in obstacle("vulkan", mac("Apple M4")).fix
    intel = obstacle("vulkan", mac("", "x86_64")).fix
    assert "CPU" in intel
    assert "Metal" not in intel


@pytest.mark.parametrize("backend", ["cuda", "hip", "vulkan"])
def test_no_advice_about_a_gpu_tells_a_container_to_reboot_itself(backend: Backend) -> None:
    for host in (on("docker"), on("kubernetes")):
        assert "sudo reboot" not in obstacle(backend, host).fix
