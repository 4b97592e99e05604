"""What GPU drivers and toolkits say. Drivers that crash, hang and talk are made by a real compiler."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import PC, VENV
from tool_environment import skip_or_fail

from floatllm_build.host import answers, probe_host
from floatllm_build.host.cuda import (
    mark_slices,
    parse_jetson,
    parse_query,
    parse_short,
    parse_slices,
    parse_supports,
    probe_cuda,
)
from floatllm_build.host.cuda_toolkits import (
    parse_architectures,
    parse_ceilings,
    parse_newest_glibc,
    parse_release,
)
from floatllm_build.host.findings import Findings
from floatllm_build.host.hip import gfx_name, parse_kernels, parse_override, parse_version, probe_hip
from floatllm_build.host.metal import probe_metal
from floatllm_build.host.others import probe_others
from floatllm_build.host.vulkan import parse_glslc, parse_header, probe_vulkan, show_api
from floatllm_build.record import RECORD_VERSION
from floatllm_build.system import Completed, LiveSystem, Recorder, Replay
from floatllm_build.values import Program

MAC = replace(PC.os, name="Darwin", machine="arm64")
GLOB = "/usr/lib/*-linux-gnu/libcuda.so.1"
LATER_GLOB = "/usr/local/cuda*/compat/libcuda.so.1"

# A libcuda with two devices, and what may be wrong with one.
LIBCUDA = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifndef EMPTY
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
int cuGetErrorName(int code, const char **name) {
    if (code != 100) return 1;
    *name = "CUDA_ERROR_NO_DEVICE";
    return 0;
}
int cuInit(unsigned flags) {
#if defined(ABORTS)
    abort();
#elif defined(POINTS_NOWHERE)
    *(volatile int *)0 = 1;
#elif defined(HANGS)
    sleep(60);
#elif defined(TALKS)
    for (int i = 0; i < 20000; i++) puts("{\"devices\": [\"a driver that talks\"]}");
    fflush(stdout);
#elif defined(NO_DEVICE)
    return 100;
#elif defined(ODD_ERROR)
    return 46;
#endif
    return 0;
}
int cuDeviceGetCount(int *count) { *count = getenv("CUDA_VISIBLE_DEVICES") ? 0 : 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 7 ? "NVIDIA GeForce RTX 3060" : "NVIDIA H100 80GB HBM3 MIG 1g.10gb", size);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
    case 75: *value = device == 7 ? 8 : 9; return 0;
    case 76: *value = device == 7 ? 6 : 0; return 0;
    case 18: *value = 0; return 0;
    }
    return 1;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)(device == 7 ? 12 : 10) << 30;
    return 0;
}
#ifdef HANGS_AT_THE_END
__attribute__((destructor)) static void end(void) { sleep(60); }
#endif
#endif
"""
LIBOPENCL = r"""
#include <stddef.h>
#include <string.h>
int clGetPlatformIDs(unsigned room, void **platforms, unsigned *count) {
    static int first, second;
    if (count) *count = 2;
    if (room > 0) platforms[0] = &first;
    if (room > 1) platforms[1] = &second;
    return 0;
}
int clGetPlatformInfo(void *platform, unsigned what, size_t size, void *text, size_t *needed) {
    if (what != 0x0902) return -30;
    strncpy(text, "Portable Computing Language", size);
    return 0;
}
"""

Make = Callable[..., str]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Compiles a library, with the fault that is named switched on; returns its path."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        skip_or_fail("there is no C compiler on PATH (Debian: apt install gcc)")
    folder = tmp_path_factory.mktemp("libraries")

    def compile_library(fault: str = "NONE", source: str = LIBCUDA, name: str = "libcuda.so.1") -> str:
        path = folder / fault / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            (path.parent / "driver.c").write_text(source)
            subprocess.run(
                [compiler, "-shared", "-fPIC", f"-D{fault}", "-o", path, path.parent / "driver.c"], check=True
            )
        return str(path)

    return compile_library


@dataclass
class Machine(LiveSystem):
    """The real machine with other files, programs and variables on it; children and programs really run."""

    globs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    prefix: str = "/nowhere"
    hangs: str = ""
    """The library that is not waited for longer than a second."""
    asked: list[str] = field(default_factory=list)

    def glob(self, pattern: str) -> tuple[str, ...]:
        return self.globs.get(pattern, ())

    def which(self, name: str) -> str | None:
        return self.programs.get(name)

    def getenv(self, name: str) -> str | None:
        return self.variables.get(name)

    def read(self, path: str, only: str = "") -> str:
        return super().read(self.files.get(path, f"/nowhere{path}"), only)

    def native(self, question: str) -> Any:
        return {"prefix": self.prefix}

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        self.asked.append(subject)
        # A name without a folder would find this machine's own driver.
        real = subject if "/" in subject else f"/nowhere/{subject}"
        return super().ask(question, real, timeout=1.0 if subject == self.hangs else 60.0)


def notes(findings: Findings) -> dict[str, str]:
    return {note.source: note.said for note in findings.notes}


# ---- children -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["NONE", "TALKS", "HANGS_AT_THE_END"])
def test_a_driver_answers_whatever_it_prints_and_however_it_ends(
    make: Make, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = LiveSystem().ask("cuda", make(fault), timeout=30)
    assert done.rc == 0, done.err
    assert json.loads(done.out) == {
        "version": 12040,
        "devices": [
            {
                "name": "NVIDIA GeForce RTX 3060",
                "major": 8,
                "minor": 6,
                "integrated": 0,
                "memory": 12 << 30,
            },
            {
                "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
                "major": 9,
                "minor": 0,
                "integrated": 0,
                "memory": 10 << 30,
            },
        ],
    }


FAULTS = [
    ("ABORTS", "killed by signal 6"),
    ("POINTS_NOWHERE", "killed by signal 11"),
    ("HANGS", "no answer within 1 s"),
    ("NO_DEVICE", "cuInit: 100 (CUDA_ERROR_NO_DEVICE)"),
    ("ODD_ERROR", "cuInit: 46"),
    ("EMPTY", "cuDriverGetVersion"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_a_broken_driver_is_a_note_and_the_next_one_is_tried(make: Make, fault: str, said: str) -> None:
    broken, good = make(fault), make()
    machine = Machine(globs={GLOB: (broken,), LATER_GLOB: (good,)}, hangs=broken if fault == "HANGS" else "")
    findings = Findings()
    facts = probe_cuda(machine, PC.os, findings)
    assert said in notes(findings)[broken]
    assert "cannot open shared object file" in notes(findings)["libcuda.so.1"]
    assert facts.library == good
    assert [(device.capability, device.memory >> 30, device.mig) for device in facts.devices] == [
        ("86", 12, False),
        ("90", 10, True),
    ]
    assert facts.supports == "12.4"
    assert machine.asked == ["libcuda.so.1", broken, good]
    assert {"cuda.devices", "cuda.supports"} <= {source.fact for source in findings.sources}


def test_a_file_that_is_no_library_is_a_note(tmp_path: Path) -> None:
    junk = tmp_path / "libcuda.so.1"
    junk.write_bytes(b"\x7fELF and nothing more")
    findings = Findings()
    facts = probe_cuda(Machine(globs={GLOB: (str(junk),)}), PC.os, findings)
    assert (facts.devices, facts.library) == ((), "")
    assert str(junk) in notes(findings)[str(junk)]


def test_a_driver_without_a_device_is_no_gpu_but_says_its_version(make: Make) -> None:
    facts = probe_cuda(Machine(globs={GLOB: (make("NO_DEVICE"),)}), PC.os, Findings())
    assert (facts.library, facts.devices, facts.supports) == ("", (), "12.4")


def test_under_wsl_windows_own_driver_comes_first(make: Make) -> None:
    wsl, other = make(), make("NO_DEVICE")
    machine = Machine(globs={"/usr/lib/wsl/lib/libcuda.so.1": (wsl,), GLOB: (other,)})
    assert probe_cuda(machine, replace(PC.os, wsl=2), Findings()).library == wsl
    assert machine.asked == [wsl]
    machine = Machine(globs={"/usr/lib/wsl/lib/libcuda.so.1": (wsl,), GLOB: (other,)})
    probe_cuda(machine, PC.os, Findings())
    assert machine.asked == ["libcuda.so.1", other]


def test_hidden_gpus_are_listed_and_the_variable_is_noted(make: Make) -> None:
    findings = Findings()
    machine = Machine(globs={GLOB: (make(),)}, variables={"CUDA_VISIBLE_DEVICES": "1"})
    assert len(probe_cuda(machine, PC.os, findings).devices) == 2
    assert "'1'" in notes(findings)["CUDA_VISIBLE_DEVICES"]


@pytest.mark.parametrize("name", ["Darwin", "Android"])
def test_where_there_is_no_cuda_nobody_asks(make: Make, name: str) -> None:
    machine = Machine(globs={GLOB: (make(),)})
    assert probe_cuda(machine, replace(PC.os, name=name), Findings()).devices == ()
    assert machine.asked == []


def test_opencl_platforms(make: Make) -> None:
    library = make(source=LIBOPENCL, name="libOpenCL.so.1")
    machine = Machine(
        globs={"/usr/lib/*-linux-gnu/libOpenCL.so.1": (library,)}, programs={"icpx": "/opt/x/icpx"}
    )
    found = [(presence.what, presence.where) for presence in probe_others(machine, PC.os, Findings())]
    assert found == [
        ("opencl", f"{library}: Portable Computing Language"),
        ("opencl", f"{library}: Portable Computing Language"),
        ("sycl", "/opt/x/icpx"),
    ]
    assert probe_others(Machine(), PC.os, Findings()) == ()


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
    application, create = question["_ApplicationInfo"], question["_InstanceCreateInfo"]
    assert [ctypes.sizeof(application), application.api.offset] == [48, 44]
    assert [ctypes.sizeof(create), create.application.offset] == [64, 24]


# ---- nvidia-smi, versions ---------------------------------------------------------------------------


def script(path: Path, *, body: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


SMI = """
case "$1" in
--query-gpu*) echo '550.54.14, 9.0, 81559, NVIDIA H100 80GB HBM3'; echo '550.54.14, 8.9, 24564, NVIDIA L4';;
-L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)'; echo '  MIG 1g.10gb Device 0: (UUID: MIG-0)'
    echo 'GPU 1: NVIDIA L4 (UUID: GPU-1)';;
-q) echo 'Driver Version                            : 550.54.14'
    echo 'CUDA Version                              : 12.4'
    case "$2$3" in -dCOMPUTE);; *) echo '        Name : ada-secret.py';; esac;;
*) echo '| NVIDIA-SMI 550.54.14    Driver Version: 550.54.14    CUDA Version: 12.4     |'
    echo '|    0   N/A  N/A      4711      C   ada-secret.py                     512MiB |';;
esac
"""


def test_nvidia_smi_speaks_where_no_library_offers_a_device(tmp_path: Path) -> None:
    smi = script(tmp_path / "nvidia-smi", body=SMI)
    recorder = Recorder(Machine(programs={"nvidia-smi": smi}))
    facts = probe_cuda(recorder, PC.os, Findings())
    assert "NVIDIA L4" in recorder.text()
    assert "ada-secret" not in recorder.text()  # what others compute is nobody's business
    assert (facts.driver, facts.supports, facts.library) == ("550.54.14", "12.4", "")
    assert [(device.capability, device.memory, device.mig) for device in facts.devices] == [
        ("90", 81559 << 20, True),
        ("89", 24564 << 20, False),
    ]


def test_an_nvidia_smi_that_does_not_say_which_cuda_is_a_note(tmp_path: Path) -> None:
    smi = script(tmp_path / "nvidia-smi", body=SMI.replace("-q) ", "-q) echo no such option >&2; exit 2; "))
    findings = Findings()
    facts = probe_cuda(Machine(programs={"nvidia-smi": smi}), PC.os, findings)
    assert (len(facts.devices), facts.supports) == (2, "")
    assert notes(findings)["nvidia-smi -q -d COMPUTE"] == "exit 2: no such option"


@pytest.mark.parametrize(
    ("said", "supports"),
    [
        ("Driver Version  : 535.129.03\nCUDA Version    : 12.2\n\nAttached GPUs   : 1\n", "12.2"),
        ("CUDA Version  : [Deprecated; use CUDA UMD Version instead]\nCUDA UMD Version  : 13.3\n", "13.3"),
        ("CUDA Version    : Not Found\n", ""),
        ("Driver Version  : 390.10\n", ""),
    ],
)
def test_nvidia_smi_says_which_cuda_the_driver_runs(said: str, supports: str) -> None:
    assert parse_short(said) == supports


def test_nvidia_smi_is_not_asked_where_the_library_and_the_kernel_answer(make: Make, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23\nGCC version: 12\n"
    )
    smi = script(tmp_path / "nvidia-smi", body=f"touch {tmp_path}/asked")
    machine = Machine(
        globs={GLOB: (make(),)},
        programs={"nvidia-smi": smi},
        files={"/proc/driver/nvidia/version": str(version)},
    )
    assert probe_cuda(machine, PC.os, Findings()).driver == "570.86.15"
    assert not (tmp_path / "asked").exists()


def test_a_broken_nvidia_smi_is_a_note(tmp_path: Path) -> None:
    smi = script(tmp_path / "nvidia-smi", body="echo couldn\\'t communicate with the NVIDIA driver; exit 9")
    findings = Findings()
    assert probe_cuda(Machine(programs={"nvidia-smi": smi}), PC.os, findings).devices == ()
    assert notes(findings)["nvidia-smi"] == "exit 9: couldn't communicate with the NVIDIA driver"


@pytest.mark.parametrize(
    ("said", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024",
            "550.54.14",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build", "540.4.0"),
        ("NVRM version: something new", ""),
    ],
)
def test_the_kernels_word_on_the_driver(tmp_path: Path, said: str, driver: str) -> None:
    (tmp_path / "version").write_text(said + "\n")
    machine = Machine(files={"/proc/driver/nvidia/version": str(tmp_path / "version")})
    findings = Findings()
    assert probe_cuda(machine, PC.os, findings).driver == driver
    assert ("/proc/driver/nvidia/version" in notes(findings)) == (not driver)


def test_rows_of_nvidia_smi() -> None:
    table = "540.4.0, 8.7, [N/A], Orin (nvgpu)\n550.54, 8.6, 12288, NVIDIA GeForce RTX 3060\n"
    driver, devices = parse_query(table)
    assert driver == "550.54"
    assert [(device.name, device.capability, device.memory, device.integrated) for device in devices] == [
        ("Orin (nvgpu)", "87", 0, True),
        ("NVIDIA GeForce RTX 3060", "86", 12288 << 20, False),
    ]
    assert parse_query("NVIDIA-SMI has failed because it couldn't communicate, 1, 2, 3\n") == ("", ())
    assert [mark.mig for mark in mark_slices(devices, {1})] == [False, True]
    assert parse_slices(
        "GPU 0: A (UUID: x)\nGPU 1: B (UUID: y)\n  MIG 1g.5gb     Device  0: (UUID: z)\n"
    ) == {1}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (12040, "12.4"),
        (13000, "13.0"),
        (11080, "11.8"),
        (12100, "12.10"),
        (0, ""),
        (-1, ""),
        (1e4, ""),
        ("1", ""),
    ],
)
def test_versions_of_the_driver_interface(number: object, text: str) -> None:
    assert parse_supports(number) == text


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n", "35.4.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n", "36.4.3"),
        ("", ""),
    ],
)
def test_jetson_releases(said: str, release: str) -> None:
    assert parse_jetson(said) == release


# ---- toolkits ---------------------------------------------------------------------------------------

HEADER_13 = """
#if (__GRCO_CLANG_COMPILER__ == 1) && ((__clang_major__ < 16) || (__clang_major__ > 22))
#if __GNUC__ > 16
#error -- unsupported GNU version! gcc versions later than 16 are not supported! The nvcc flag ...
#if (__clang_major__ >= 22) || (__clang_major__ < 3) || ((__clang_major__ == 3) &&  (__clang_minor__ < 3))
#error -- unsupported HOS clang version! The version must be must be less than 22 and greater than 3.2 .
#if (__clang_major__ >= 23) || (__clang_major__ < 3) || ((__clang_major__ == 3) &&  (__clang_minor__ < 3))
#error -- unsupported clang version! clang version must be less than 23 and greater than 3.2 . The ...
"""
HEADER_11 = """
#if __GNUC__ > 11
#error -- unsupported GNU version! gcc versions later than 11 are not supported! The nvcc flag ...
#if (__clang_major__ >= 15) || (__clang_major__ < 3) || ((__clang_major__ == 3) &&  (__clang_minor__ < 3))
#error -- unsupported clang version! clang version must be less than 15 and greater than 3.2 . The ...
"""


@pytest.mark.parametrize(
    ("header", "newest"),
    [
        (HEADER_13, (16, 22)),
        (HEADER_11, (11, 14)),
        ("#if __GNUC__ > 13\n#if (__clang_major__ >= 18)\n", (13, 17)),
        ("#if __GNUC__ > 8\n#if (__clang_major__ > 9) || (__clang_major__ < 3)\n", (8, 9)),
        ("#if __GNUC__ > 99999999999\n", (0, 0)),
        ("#if !defined(__GNUC__)\n", (0, 0)),
    ],
)
def test_ceilings_of_the_host_compiler(header: str, newest: tuple[int, int]) -> None:
    assert parse_ceilings(header) == newest


def test_words_of_nvcc() -> None:
    assert parse_release("Cuda compilation tools, release 12.4, V12.4.131\n") == "12.4"
    assert parse_release("nvcc fatal: nothing\n") == ""
    listed = "compute_75\ncompute_90\ncompute_110\ncompute_103\ncompute_120f\ncompute_9999999\nsm_80\n"
    assert parse_architectures(listed) == ("75", "90", "103", "110")


def nvcc(root: Path, release: str, header: str = "", *, include: str = "include") -> str:
    if header:
        (root / include / "crt").mkdir(parents=True)
        (root / include / "crt" / "host_config.h").write_text(header)
    says = f"Cuda compilation tools, release {release}, V{release}.1"
    body = f'case "$1" in --version) echo "{says}";; *) echo compute_75; echo compute_86;; esac'
    return script(root / "bin" / "nvcc", body=body)


def test_toolkits_are_listed_in_order_and_each_once(tmp_path: Path) -> None:
    old = nvcc(tmp_path / "cuda-12.9", "12.9", HEADER_11)
    new = nvcc(tmp_path / "cuda-12.10", "12.10")
    (tmp_path / "cuda").symlink_to(tmp_path / "cuda-12.9")
    chosen = str(tmp_path / "cuda" / "bin" / "nvcc")
    conda = nvcc(tmp_path / "conda", "13.5", HEADER_13, include="targets/x86_64-linux/include")
    wheels = nvcc(tmp_path / "venv/lib/python3.11/site-packages/nvidia/cu13", "13.5", HEADER_13)
    broken = script(tmp_path / "broken" / "nvcc", body="echo no such sub-tool >&2; exit 2")
    machine = Machine(
        variables={"CONDA_PREFIX": str(tmp_path / "conda")},
        programs={"nvcc": broken},
        prefix=str(tmp_path / "venv"),
        globs={
            "/usr/local/cuda*/bin/nvcc": (chosen, new, old),
            f"{tmp_path}/conda/bin/nvcc": (conda,),
            f"{tmp_path}/venv/lib*/python*/*-packages/nvidia/cu*/bin/nvcc": (wheels,),
        }
        | {f"{tmp_path}/conda/targets/*/include/crt/host_config.h": _headers(tmp_path / "conda")},
    )
    # The real files below; only where they are looked for is made up.
    machine.files = {str(path): str(path) for path in tmp_path.rglob("host_config.h")} | {
        f"{tmp_path}/cuda/include/crt/host_config.h": f"{tmp_path}/cuda/include/crt/host_config.h"
    }
    findings = Findings()
    toolkits = probe_cuda(machine, PC.os, findings).toolkits
    assert [(kit.nvcc, kit.version, kit.newest_gcc, kit.newest_clang, kit.layout) for kit in toolkits] == [
        (chosen, "12.9", 11, 14, "toolkit"),
        (new, "12.10", 0, 0, "toolkit"),
        (conda, "13.5", 16, 22, "toolkit"),
        (wheels, "13.5", 16, 22, "wheels"),
    ]
    assert {kit.architectures for kit in toolkits} == {("75", "86")}
    assert notes(findings)[f"{broken} --version"] == "exit 2: no such sub-tool"
    assert f"{tmp_path}/cuda-12.10/include/crt/host_config.h" in notes(findings)
    assert "cuda.toolkits.3.newest_gcc" in {source.fact for source in findings.sources}


@pytest.mark.parametrize("body", ["echo no such sub-tool >&2; exit 2", "echo nvcc 99", None])
def test_an_nvcc_that_was_named_and_does_not_answer_is_not_replaced(tmp_path: Path, body: str | None) -> None:
    other = nvcc(tmp_path / "cuda", "13.0")
    named = script(tmp_path / "nvcc", body=body) if body else str(tmp_path / "nowhere" / "nvcc")
    machine = Machine(
        variables={"CUDACXX": named},
        programs={"nvcc": other},
        globs={"/usr/local/cuda*/bin/nvcc": (other,)},
    )
    findings = Findings()
    assert probe_cuda(machine, PC.os, findings).toolkits == ()
    assert f"`{named} --version` does not answer as nvcc" in notes(findings)["CUDACXX"]
    machine.variables = {"CUDACXX": ""}
    assert [kit.nvcc for kit in probe_cuda(machine, PC.os, Findings()).toolkits] == [other]


class Looks(Machine):
    """Really looks for files, below its own folders."""

    def glob(self, pattern: str) -> tuple[str, ...]:
        return LiveSystem.glob(self, pattern) if pattern.startswith(self.prefix) else ()


@pytest.mark.parametrize(
    ("inside", "variable", "value"),
    [
        ("lib/python3.12/site-packages", "", ""),
        ("lib/python3/dist-packages", "", ""),
        ("lib64/python3.13/site-packages", "", ""),
        ("lib/python3.11/site-packages", "VIRTUAL_ENV", ""),
        (".local/lib/python3.11/site-packages", "HOME", ""),
        ("mine/lib/python3.11/site-packages", "PYTHONUSERBASE", "/mine"),
    ],
)
def test_toolkits_from_the_package_index_are_found_wherever_pip_puts_them(
    tmp_path: Path, inside: str, variable: str, value: str
) -> None:
    place = tmp_path / "[any] *folder?"
    program = nvcc(place / inside / "nvidia/cu13", "13.4")
    variables = {variable: f"{place}{value}"} if variable else {}
    machine = Looks(variables=variables, prefix=str(tmp_path))
    target = None if variable else replace(VENV, prefix=str(place))
    toolkits = probe_cuda(machine, PC.os, Findings(), lambda: target).toolkits
    assert [(kit.nvcc, kit.layout) for kit in toolkits] == [(program, "wheels")]


@pytest.mark.parametrize(
    ("variable", "value", "inside"),
    [
        ("VIRTUAL_ENV", r"{home}\venv", r"{home}\venv/Lib/site-packages"),
        ("APPDATA", r"{home}\AppData\Roaming", r"{home}\AppData\Roaming/Python/Python*/site-packages"),
        ("PYTHONUSERBASE", "D:/mine", "D:/mine/Python*/site-packages"),
    ],
)
def test_toolkits_from_the_package_index_on_windows(variable: str, value: str, inside: str) -> None:
    program = rf"{inside.replace('*', '313')}\nvidia\cu13\bin\nvcc.exe"
    answer = {"rc": 0, "out": "Cuda compilation tools, release 13.4, V13.4.1\n", "err": ""}
    system = replay(
        environ={variable: value},
        globs={f"{inside}/nvidia/cu*/bin/nvcc.exe": [program]},
        commands={shlex.join((program, "--version")): answer},
    )
    windows = replace(PC.os, name="Windows", libc="")
    assert [kit.nvcc for kit in probe_cuda(system, windows, Findings()).toolkits] == [program]


def test_the_whole_probe_looks_into_the_environment_that_was_named(tmp_path: Path) -> None:
    environment = tmp_path / "there"
    program = nvcc(environment / "lib/python3.12/site-packages/nvidia/cu13", "13.4")

    @dataclass
    class Named(Looks):
        def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
            if question == "target" and subject == "there/bin/python":
                return Completed(rc=0, out=json.dumps({**TOLD, "prefix": str(environment)}), err="")
            return super().ask(question, subject, timeout=timeout)

        def native(self, question: str) -> Any:
            return LiveSystem.native(self, question)

    host = probe_host(Named(prefix=str(tmp_path)), "there/bin/python")
    assert host.os.name == "Linux"
    assert [kit.nvcc for kit in host.cuda.toolkits] == [program]


TOLD = {
    **dict.fromkeys(("venv", "pip"), True),
    **dict.fromkeys(("conda", "managed", "pipx", "uv_tool", "uv"), False),
    "executable": "/there/bin/python",
    "version": [3, 12],
    "bits": 64,
    "platform": "linux-x86_64",
    "installed": "",
}


def _headers(root: Path) -> tuple[str, ...]:
    return tuple(map(str, root.glob("targets/*/include/crt/host_config.h")))


COSPI = "extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ double     cospi(double x)"
RSQRT = "extern __DEVICE_FUNCTIONS_DECL__ __device_builtin__ double     rsqrt(double x)"
GUARD = " __NV_IEC_60559_FUNCS_EXCEPTION_SPECIFIER"


@pytest.mark.parametrize(
    ("header", "newest"),
    [
        (f"{RSQRT};\n{COSPI};\n", "2.40"),  # 12.9
        (f"{RSQRT};\n{COSPI}{GUARD};\n", "2.41"),  # 13.0
        (f"{RSQRT} _NV_RSQRT_SPECIFIER;\n{COSPI}{GUARD};\n", "any"),  # 13.4
        (f"{RSQRT} noexcept(true);\n{COSPI} noexcept (true);\n", "any"),  # mended by hand
        (f"{RSQRT};\n", ""),
        ("", ""),
        ("extern double cospi(" * 9, ""),
    ],
)
def test_the_newest_glibc_that_goes_with_a_toolkit(header: str, newest: str) -> None:
    assert parse_newest_glibc(header) == newest


@pytest.mark.parametrize(
    ("headers", "found", "source"),
    [
        ({"include/cublas_v2.h", "include/cuda_runtime.h"}, True, "/include/cublas_v2.h"),
        (
            {"targets/x/include/cublas_v2.h", "targets/x/include/crt/host_config.h"},
            True,
            "x/include/cublas_v2.h",
        ),
        ({"include/cuda_runtime.h"}, False, "no cublas_v2.h beside"),
        (set(), True, ""),  # a bundle of another shape: nobody knows
    ],
)
def test_cublas_is_looked_for_beside_the_toolkits_headers(
    tmp_path: Path, headers: set[str], found: bool, source: str
) -> None:
    program = nvcc(tmp_path, "13.0")
    for name in headers:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    globs = {f"{tmp_path}/{name}": (f"{tmp_path}/{name}",) for name in headers}
    globs[f"{tmp_path}/targets/*/include/crt/host_config.h"] = _headers(tmp_path)
    findings = Findings()
    machine = Machine(variables={"CUDACXX": program}, globs=globs)
    (kit,) = probe_cuda(machine, PC.os, findings).toolkits
    assert kit.cublas == found
    told = [one.source for one in findings.sources if one.fact == "cuda.toolkits.0.cublas"]
    assert (source in told[0]) if source else told == []


@pytest.mark.parametrize(("libc", "newest"), [("glibc 2.36", "2.41"), ("", "")])
def test_math_headers_matter_where_glibc_is(tmp_path: Path, libc: str, newest: str) -> None:
    program = nvcc(tmp_path, "13.0", HEADER_13)
    (tmp_path / "include/crt/math_functions.h").write_text(f"#if 1\n{RSQRT};\n{COSPI}{GUARD};\n#endif\n")
    files = {str(path): str(path) for path in tmp_path.rglob("*.h")}
    machine = Machine(variables={"CUDACXX": program}, files=files)
    findings = Findings()
    (kit,) = probe_cuda(machine, replace(PC.os, libc=libc), findings).toolkits
    assert kit.newest_glibc == newest
    assert (kit.newest_gcc, kit.newest_clang) == (16, 22)
    facts = {one.fact for one in findings.sources}
    assert ("cuda.toolkits.0.newest_glibc" in facts) == bool(newest)


# ---- Vulkan, HIP, Metal -----------------------------------------------------------------------------


def replay(**kinds: Any) -> Replay:
    return Replay({"schema_version": RECORD_VERSION, **kinds})


def said(answer: object) -> dict[str, Any]:
    return {"rc": 0, "out": json.dumps(answer), "err": ""}


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


def test_a_toolkit_in_an_odd_folder_is_measured_whole(tmp_path: Path) -> None:
    odd = tmp_path / "[x] *y?"
    program = nvcc(odd, "13.0", HEADER_13, include="targets/x/include")
    headers = odd / "targets/x/include"
    (headers / "cuda_runtime.h").write_text("")
    files = {str(path): str(path) for path in headers.rglob("*.h")}
    machine = Looks(variables={"CUDACXX": program}, files=files, prefix=str(tmp_path))
    (kit,) = probe_cuda(machine, PC.os, Findings()).toolkits
    assert (kit.newest_gcc, kit.cublas) == (16, False)


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
