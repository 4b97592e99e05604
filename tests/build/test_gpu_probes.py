"""What is asked about Vulkan, HIP and Metal, and answers that make no sense."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import PC
from probed_machines import MAC, Looks, notes, nvcc, replay, said, script
from tool_environment import skip_or_fail

from floatllm_build.host import answers
from floatllm_build.host.cuda import probe_cuda
from floatllm_build.host.findings import Findings
from floatllm_build.host.hip import gfx_name, parse_kernels, parse_override, parse_version, probe_hip
from floatllm_build.host.metal import probe_metal
from floatllm_build.host.others import probe_others
from floatllm_build.host.vulkan import parse_glslc, parse_header, probe_vulkan, show_api
from floatllm_build.system import LiveSystem
from floatllm_build.values import Program


def test_the_software_vulkan_device_is_listed_as_a_cpu() -> None:
    if ctypes.util.find_library("vulkan") is None or not LiveSystem().glob(
        "/usr/share/vulkan/icd.d/lvp_icd*.json"
    ):
        skip_or_fail(
            "there is no Vulkan loader with llvmpipe (Debian: apt install libvulkan1 mesa-vulkan-drivers)"
        )
    findings = Findings()
    facts = probe_vulkan(LiveSystem(), PC.os, findings)
    assert facts.library, notes(findings)
    device = next(device for device in facts.devices if device.name.startswith("llvmpipe"))
    assert device.type == "cpu"
    assert re.fullmatch(r"1\.\d+\.\d+", device.api)
    # From a structure that is chained to another one.
    assert re.match(r"llvmpipe Mesa \d+\.\d+", device.driver)
    # What Mesa's lavapipe has since it was written.
    assert (device.storage_16_bit, device.shared_memory) == (True, 32768)


def test_vulkans_structures_have_the_layout_of_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(answers.__file__).parent / "ask"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    question = runpy.run_path(str(folder / "vulkan.py"))
    monkeypatch.delitem(sys.modules, "_answer")
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("the numbers are those of 64 bits")
    properties, chained = question["_Properties"], question["_Properties2"]
    driver = question["_DriverProperties"]
    # sizeof and offsetof as a C compiler gives them for vulkan_core.h on x86-64.
    assert [ctypes.sizeof(kind) for kind in (properties, chained, driver)] == [824, 840, 536]
    assert [properties.name.offset, properties.limits.offset, properties.sparse.offset] == [20, 296, 800]
    assert chained.properties.offset == 16
    assert [driver.name.offset, driver.info.offset] == [20, 276]
    limits, storage, features = question["_Limits"], question["_Storage16"], question["_Features2"]
    assert [ctypes.sizeof(limits), limits.shared_memory.offset] == [504, 216]
    assert [ctypes.sizeof(storage), storage.storage_buffer.offset] == [32, 16]
    assert [ctypes.sizeof(features), features.features.offset] == [240, 16]
    application, create = question["_ApplicationInfo"], question["_InstanceCreateInfo"]
    assert [ctypes.sizeof(application), application.api.offset] == [48, 44]
    assert [ctypes.sizeof(create), create.application.offset] == [64, 24]


def test_what_a_vulkan_build_needs_is_found_in_the_sdk_first() -> None:
    system = replay(
        environ={"VULKAN_SDK": "/sdk"},
        files={
            "/sdk/include/vulkan/vulkan_core.h": {"text": "#define VK_HEADER_VERSION 309\n"},
            "/usr/include/vulkan/vulkan_core.h": {"text": "#define VK_HEADER_VERSION 239\n"},
        },
        globs={
            "/sdk/bin/glslc": ["/sdk/bin/glslc"],
            "/usr/share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake": [
                "/usr/share/c/SPIRV-HeadersConfig.cmake"
            ],
        },
        which={"glslc": "/usr/bin/glslc"},
        commands={"/sdk/bin/glslc --version": {"rc": 0, "out": "shaderc v2025.1 v2025.1\n", "err": ""}},
    )
    findings = Findings()
    facts = probe_vulkan(system, PC.os, findings)
    assert (facts.headers, facts.include) == (309, "/sdk/include")
    assert facts.glslc is not None
    assert (facts.glslc.path, facts.glslc.version) == ("/sdk/bin/glslc", "2025.1")
    assert facts.spirv_headers == "/usr/share/c/SPIRV-HeadersConfig.cmake"
    assert (facts.library, facts.devices) == ("", ())
    assert "libvulkan.so.1" in notes(findings)


def test_what_a_vulkan_device_says_of_itself_and_what_older_records_do_not() -> None:
    told = {"name": "V3D 7.1", "type": 1, "api": 4206897, "driver": "V3DV", "shared_memory": 16384}
    devices = [
        {**told, "storage_16_bit": False},
        told,
        {**told, "storage_16_bit": "yes", "shared_memory": -1},
    ]
    system = replay(asked={"vulkan libvulkan.so.1": said({"devices": devices})})
    facts = probe_vulkan(system, PC.os, Findings())
    assert [(one.storage_16_bit, one.shared_memory) for one in facts.devices] == [
        (False, 16384),
        (None, 16384),
        (None, 0),
    ]


def test_a_gpu_that_may_not_be_opened_is_said_if_no_gpu_answers() -> None:
    node = "/dev/dri/renderD129"
    nodes = {"/dev/dri/renderD128": {"errno": "ENOENT"}, node: {"errno": "EACCES"}}
    answer = {"devices": [{"name": "llvmpipe", "type": 4, "api": 4206822, "driver": "llvmpipe"}]}
    system = replay(files=nodes, asked={"vulkan libvulkan.so.1": said(answer)})
    findings = Findings()
    assert probe_vulkan(system, PC.os, findings).closed == node
    assert node in notes(findings)
    assert probe_vulkan(replay(files={node: {"text": ""}}), PC.os, Findings()).closed == ""
    answer["devices"].append({"name": "Radeon", "type": 2, "api": 4206822, "driver": "radv"})
    system = replay(files=nodes, asked={"vulkan libvulkan.so.1": said(answer)})
    assert probe_vulkan(system, PC.os, Findings()).closed == ""


def test_headers_that_may_not_be_read_are_noted() -> None:
    path = "/usr/local/include/vulkan/vulkan_core.h"
    findings = Findings()
    assert probe_vulkan(replay(files={path: {"errno": "EACCES"}}), PC.os, findings).headers == 0
    assert notes(findings)[path] == "Permission denied"


def test_on_android_vulkan_is_not_asked_but_said_to_be_there_for_the_asking() -> None:
    findings = Findings()
    system = replay(asked={"vulkan libvulkan.so.1": said({"devices": [{"name": "Adreno", "type": 1}]})})
    assert probe_vulkan(system, replace(PC.os, name="Android", termux=True), findings).devices == ()
    assert "name the backend yourself" in notes(findings)["vulkan.devices"]


@pytest.mark.parametrize(
    ("number", "text"), [(4206822, "1.3.230"), (0x00401000, "1.1.0"), (0, ""), (2**40, ""), (True, "")]
)
def test_vulkan_versions(number: object, text: str) -> None:
    assert show_api(number) == text


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("shaderc v2023.8 v2024.0\nspirv-tools v2024.1\n", "2023.8"),
        ("shaderc 2023.2-1\nspirv-tools 2022.4+1.3.236.0-1\n", "2023.2"),
        ("spirv-tools v2024.1\n", ""),
    ],
)
def test_versions_of_glslc(said: str, version: str) -> None:
    assert parse_glslc(said) == version


def test_the_header_version_is_not_the_complete_one() -> None:
    complete = "#define VK_HEADER_VERSION_COMPLETE VK_MAKE_API_VERSION(0, 1, 4, VK_HEADER_VERSION)\n"
    assert parse_header(f"{complete}#define VK_HEADER_VERSION 309\n") == 309
    assert parse_header(complete) == 0


@pytest.mark.parametrize(
    ("version", "name"), [(90010, "gfx90a"), (110001, "gfx1101"), (100300, "gfx1030"), (90402, "gfx942")]
)
def test_gfx_names(version: int, name: str) -> None:
    assert gfx_name(version) == name


def test_words_of_rocm() -> None:
    assert [parse_override(value) for value in ("10.3.0", "9.0.10", "gfx1030", "10.3")] == [
        *("gfx1030", "gfx90a", "", "")
    ]
    assert [parse_version(text) for text in ("6.3.1-48\n", "7.0.0\n", "", "new")] == [
        "6.3.1",
        "7.0.0",
        "",
        "",
    ]
    files = (
        "Kernels.so-000-gfx90a-xnack+.hsaco",
        "TensileLibrary_Type_HH_gfx1100.co",
        "TensileLibrary_lazy_gfx90a.dat",
        "Kernels.so-000-gfx11-generic.hsaco",
    )
    assert parse_kernels(files) == ("gfx90a", "gfx1100")


def test_an_amd_gpu_and_the_kernels_that_rocblas_has() -> None:
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    system = replay(
        environ={"HSA_OVERRIDE_GFX_VERSION": "10.3.0"},
        globs={
            f"{nodes}/*/properties": [f"{nodes}/{number}/properties" for number in range(3)],
            "/opt/rocm*/bin": ["/opt/rocm-6.2.4/bin", "/opt/rocm-6.10.0/bin", "/opt/rocm/bin"],
            "/opt/rocm/bin/hipcc": ["/opt/rocm/bin/hipcc"],
            "/opt/rocm/lib/rocblas/library/*gfx*": ["/opt/rocm/lib/rocblas/library/a_gfx1030.co"],
        },
        files={
            f"{nodes}/0/properties": {"text": "cpu_cores_count 8\ngfx_target_version 0\n"},
            f"{nodes}/1/properties": {"text": "simd_count 72\ngfx_target_version 100301\n"},
            f"{nodes}/2/properties": {"errno": "EPERM"},
            "/opt/rocm/.info/version": {"text": "6.10.0-65\n"},
        },
    )
    findings = Findings()
    facts = probe_hip(system, PC.os, findings)
    assert facts.targets == ("gfx1031",)
    assert (facts.rocm, facts.version, facts.hipcc) == ("/opt/rocm", "6.10.0", "/opt/rocm/bin/hipcc")
    assert facts.rocblas == ("gfx1030",)
    assert notes(findings)[f"{nodes}/2/properties"] == "Operation not permitted"
    assert "gfx1030" in notes(findings)["HSA_OVERRIDE_GFX_VERSION"]


NODE = "/sys/class/kfd/kfd/topology/nodes/1/properties"


@pytest.mark.parametrize(
    ("kinds", "kfd"),
    [
        ({}, ""),  # a record of an older tool
        ({"files": {"/dev/kfd": {"errno": "ENOENT"}}}, "ENOENT"),
        ({"files": {"/dev/kfd": {"errno": "EACCES"}}}, "EACCES"),
        ({"files": {"/dev/kfd": {"text": ""}}}, "yes"),
        ({"globs": {"/dev/kfd": []}}, "ENOENT"),
        ({"globs": {"/dev/kfd": ["/dev/kfd"]}}, "yes"),
    ],
)
def test_whether_the_file_by_which_programs_reach_amds_gpus_opens(kinds: dict[str, Any], kfd: str) -> None:
    files = {NODE: {"text": "gfx_target_version 110000\n"}, **kinds.get("files", {})}
    globs = {"/sys/class/kfd/kfd/topology/nodes/*/properties": [NODE], **kinds.get("globs", {})}
    findings = Findings()
    facts = probe_hip(replay(files=files, globs=globs), PC.os, findings)
    assert (facts.targets, facts.kfd) == (("gfx1100",), kfd)
    assert ("/dev/kfd" in notes(findings)) == (kfd not in {"", "yes"})
    assert probe_hip(replay(files=kinds.get("files", {})), PC.os, Findings()).kfd == ""


@pytest.mark.parametrize(
    ("said_there", "missing"),
    [
        ({}, ()),
        ({"/opt/rocm/lib/cmake/hipblas/hipblas-config.cmake": "ENOENT"}, ("hipblas",)),
        ({"/opt/rocm/include/rocblas/rocblas.h": "ENOENT"}, ("rocblas",)),
        (
            {
                "/opt/rocm/lib/cmake/hipblas/hipblas-config.cmake": "ENOENT",
                "/usr/lib64/cmake/hipblas/hipblas-config.cmake": "",
            },
            (),
        ),
        ({"/opt/rocm/lib/cmake/hip/hip-config.cmake": "ENOENT"}, ("hip",)),
    ],
)
def test_libraries_that_ggml_asks_for_next_to_hipcc(
    said_there: dict[str, str], missing: tuple[str, ...]
) -> None:
    globs = {"/opt/rocm*/bin": ["/opt/rocm/bin"], "/opt/rocm/bin/hipcc": ["/opt/rocm/bin/hipcc"]}
    files = {path: {"errno": code} if code else {"text": ""} for path, code in said_there.items()}
    assert probe_hip(replay(globs=globs, files=files), PC.os, Findings()).missing == missing
    del globs["/opt/rocm/bin/hipcc"]
    assert probe_hip(replay(globs=globs, files=files), PC.os, Findings()).missing == ()


def test_a_rocm_path_that_leads_nowhere_hides_no_rocm() -> None:
    system = replay(
        environ={"ROCM_PATH": "/gone"},
        globs={"/opt/rocm*/bin": ["/opt/rocm/bin"]},
        files={"/opt/rocm/.info/version": {"text": "7.0.0\n"}},
    )
    findings = Findings()
    facts = probe_hip(system, PC.os, findings)
    assert (facts.rocm, facts.version) == ("/opt/rocm", "7.0.0")
    assert "'/gone', where there is no ROCm" in notes(findings)["ROCM_PATH"]


def test_folders_that_variables_name_are_no_patterns(tmp_path: Path) -> None:
    odd = tmp_path / "[x] *y?"
    for name in ("lib/libvulkan.so.1", "share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake"):
        (odd / name).parent.mkdir(parents=True, exist_ok=True)
        (odd / name).write_text("")
    glslc = script(odd / "bin/glslc", body="echo shaderc v2025.1 v2025.1")
    hipcc = script(odd / "bin/hipcc", body="")
    kernels = odd / "lib/rocblas/library"
    kernels.mkdir(parents=True)
    (kernels / "TensileLibrary_lazy_gfx1100.dat").write_text("")
    variables = dict.fromkeys(("VULKAN_SDK", "ROCM_PATH"), str(odd))
    machine = Looks(variables=variables, prefix=str(tmp_path))
    facts = probe_vulkan(machine, PC.os, Findings())
    assert facts.glslc == Program(path=glslc, version="2025.1")
    assert facts.spirv_headers == str(odd / "share/cmake/SPIRV-Headers/SPIRV-HeadersConfig.cmake")
    assert str(odd / "lib/libvulkan.so.1") in machine.asked
    hip = probe_hip(machine, PC.os, Findings())
    assert (hip.rocm, hip.hipcc, hip.rocblas) == (str(odd), hipcc, ("gfx1100",))
    program = nvcc(odd, "13.0")
    icpx = script(odd / "compiler/latest/bin/icpx", body="")
    machine.variables = dict.fromkeys(("CONDA_PREFIX", "ONEAPI_ROOT"), str(odd))
    assert [kit.nvcc for kit in probe_cuda(machine, PC.os, Findings()).toolkits] == [program]
    assert [one.where for one in probe_others(machine, PC.os, Findings())] == [icpx]


METAL = "metal /System/Library/Frameworks/Metal.framework/Metal"


def test_metal_devices_and_the_chips_name_where_metal_does_not_answer() -> None:
    answer = said({"devices": [{"name": "Apple M4", "working_set": 12 << 30}]})
    facts = probe_metal(replay(asked={METAL: answer}), MAC, Findings())
    assert [(device.name, device.working_set) for device in facts.devices] == [("Apple M4", 12 << 30)]
    chip = {"sysctl -n machdep.cpu.brand_string": {"rc": 0, "out": "Apple M1\n", "err": ""}}
    findings = Findings()
    facts = probe_metal(replay(commands=chip), MAC, findings)
    assert [(device.name, device.working_set) for device in facts.devices] == [("Apple M1", 0)]
    assert "xcode-select -p" in notes(findings)
    assert (
        probe_metal(replay(asked={METAL: answer}), replace(MAC, machine="x86_64"), Findings()).devices == ()
    )


# ---- answers that make no sense ------------------------------------------------------------------------


def test_names_hold_nothing_that_a_terminal_would_obey() -> None:
    assert answers.text("NVIDIA\x1b[31m\nRTX\ud800 4090\x07") == "NVIDIA[31m RTX 4090"
    assert len(answers.text("x" * 10_000_000)) == 200


KEYS = st.sampled_from(
    [
        *("devices", "platforms", "error", "loaded", "version", "name", "type", "api", "driver"),
        *("major", "minor", "integrated", "memory", "working_set"),
        *("init", "storage_16_bit", "shared_memory"),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.integers(0, 9)
ANSWERS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


@given(
    answer=ANSWERS.map(json.dumps)
    | st.text()
    | st.sampled_from(["[" * 100_000, "9" * 5000, '{"devices": [{"major": 8, "memory": 1e999}]}'])
)
def test_no_answer_makes_a_probe_raise(answer: str) -> None:
    done = {"rc": 0, "out": answer, "err": ""}
    library = "/usr/lib/x/libOpenCL.so.1"
    system = replay(
        asked={
            "cuda libcuda.so.1": done,
            "vulkan libvulkan.so.1": done,
            METAL: done,
            f"opencl {library}": done,
        },
        globs={"/usr/lib/*-linux-gnu/libOpenCL.so.1": [library]},
    )
    for device in probe_cuda(system, PC.os, Findings()).devices:
        assert re.fullmatch(r"[1-9]\d?\d", device.capability)
        assert 0 <= device.memory < 2**63
    for shown in probe_vulkan(system, PC.os, Findings()).devices:
        assert shown.type in {"discrete", "integrated", "virtual", "cpu", "other"}
        assert isinstance(shown.name, str)
    for metal in probe_metal(system, MAC, Findings()).devices:
        assert metal.name
        assert 0 <= metal.working_set < 2**63
    probe_others(system, PC.os, Findings())
