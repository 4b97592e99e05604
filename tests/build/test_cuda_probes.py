"""What NVIDIA's drivers say. Those that crash, hang and talk are made by a real compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from machines import PC
from probed_machines import Machine, notes, script
from tool_environment import skip_or_fail

from floatllm_build.host.cuda import (
    mark_slices,
    parse_init,
    parse_jetson,
    parse_query,
    parse_short,
    parse_slices,
    parse_supports,
    parse_vector_math,
    probe_cuda,
)
from floatllm_build.host.findings import Findings
from floatllm_build.host.others import probe_others
from floatllm_build.system import LiveSystem, Recorder

GLOB = "/usr/lib/*-linux-gnu/libcuda.so.1"
LATER_GLOB = "/usr/local/cuda*/compat/libcuda.so.1"

# A libcuda with two devices, and what may be wrong with one.
LIBCUDA = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifndef EMPTY
#ifdef STUB
int cuDriverGetVersion(int *version) { return 34; }
#else
int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
#endif
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
#elif defined(NOT_REBOOTED)
    return 803;
#elif defined(COMPAT)
    return 804;
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
        "init": 0,
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


@pytest.mark.parametrize(
    ("fault", "code"), [("NO_DEVICE", 100), ("ODD_ERROR", 46), ("NOT_REBOOTED", 803), ("STUB", 34)]
)
def test_what_cuinit_returned_is_kept(make: Make, fault: str, code: int) -> None:
    findings = Findings()
    facts = probe_cuda(Machine(globs={GLOB: (make(fault),)}), PC.os, findings)
    assert (facts.devices, facts.init_error) == ((), code)
    assert "cuda.init_error" in {source.fact for source in findings.sources}


def test_a_code_stands_in_older_records_in_the_error_alone() -> None:
    assert parse_init({"error": "cuInit: 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"}) == 803
    assert parse_init({"init": 999, "error": "cuInit: 803"}) == 999
    assert [parse_init(odd) for odd in ({}, {"init": True}, {"init": -1}, {"error": "cuDeviceGet: 3"})] == [
        0
    ] * 4


def test_a_library_that_programs_load_before_the_drivers_own_counts_although_another_has_the_gpus(
    make: Make,
) -> None:
    compat, good = make("COMPAT"), make()
    facts = probe_cuda(Machine(globs={GLOB: (compat,), LATER_GLOB: (good,)}), PC.os, Findings())
    assert (len(facts.devices), facts.init_error) == (2, 804)
    # Not so for one that only found no device.
    facts = probe_cuda(Machine(globs={GLOB: (make("NO_DEVICE"),), LATER_GLOB: (good,)}), PC.os, Findings())
    assert (len(facts.devices), facts.init_error) == (2, 0)


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


# ---- nvidia-smi, versions ---------------------------------------------------------------------------

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
    facts = probe_cuda(Machine(programs={"nvidia-smi": smi}), PC.os, findings)
    assert (facts.devices, facts.smi_error) == ((), 9)
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
    # A card that does not say how much memory it has shares none with the machine for that.
    table += "550.54, 8.0, [N/A], GRID A100X-10C\n"
    driver, devices = parse_query(table)
    assert driver == "550.54"
    assert [(device.name, device.capability, device.memory, device.integrated) for device in devices] == [
        ("Orin (nvgpu)", "87", 0, True),
        ("NVIDIA GeForce RTX 3060", "86", 12288 << 20, False),
        ("GRID A100X-10C", "80", 0, False),
    ]
    assert parse_query("NVIDIA-SMI has failed because it couldn't communicate, 1, 2, 3\n") == ("", ())
    assert [mark.mig for mark in mark_slices(devices, {1})] == [False, True, False]
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


# ---- glibc's vector functions -------------------------------------------------------------------------

BARE = "#if __GNUC_PREREQ(9, 0)\n#  define __ADVSIMD_VEC_MATH_SUPPORTED\ntypedef __Float32x4_t __f32x4_t;\n"


def test_whether_nvcc_meets_the_vector_types_of_glibc(tmp_path: Path) -> None:
    assert parse_vector_math(BARE) == "bare"
    assert parse_vector_math(f"#ifndef __CUDACC__\n{BARE}#endif\n") == "guarded"
    assert parse_vector_math("") == "guarded"  # glibc before 2.38 has no such types
    header = tmp_path / "math-vector.h"
    header.write_text(BARE)
    arm = replace(PC.os, machine="aarch64", libc="glibc 2.39")
    for path in ("/usr/include/aarch64-linux-gnu/bits/math-vector.h", "/usr/include/bits/math-vector.h"):
        machine = Machine(files={path: str(header)})
        assert probe_cuda(machine, arm, Findings()).vector_math == "bare"
        assert probe_cuda(machine, PC.os, Findings()).vector_math == ""
    assert probe_cuda(Machine(), arm, Findings()).vector_math == ""
