"""Logs of builds that failed, and what each must be taken for."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.diagnosis import OUT_OF_MEMORY, diagnose, failed_unit
from floatllm_build.ninja import NinjaReader
from floatllm_build.remedies import REMEDIES

LOGS = Path(__file__).parent / "logs"
NOTHING = ("", "", "")

OPS = "ops.cpp.o"
PLAN = "floatllm.dir/plan.cpp.o"
GEN = "vulkan-shaders-gen.dir/gen.cpp.o"
# Log -> kind, how the name of the unit ends, what cause and fix must name.
# Recorded with gcc 12.2, clang 14, nvcc 13.0, CMake 3.25 and 4.4, ninja 1.11 and 1.13; cut to what
# matters, folders renamed. Killed: under a hard limit of a cgroup. Silent: ninja's shell was one that leaves
# its place to the compiler. Address space: RLIMIT_AS. Disk, noexec, read-only: a small tmpfs mounted so. In
# host-compiler-* the true gcc was passed off as a later one; in gcc-crash it was sent a SIGSEGV;
# wrong-processor ran a program whose header names another machine.
RECORDED = {
    "archive-damaged": ("damaged-file", "libfloatllm.so", "libggml-base.a"),
    "assembler-old": ("processor-option", PLAN, "vpdpbxyz"),
    "build-file-cut": ("damaged-file", "", "build.ninja"),
    "build-moved": ("build-folder", "", "clean"),
    "clang-address-space": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "clang-cannot-load": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "clang-driver-killed": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "clang-killed-ninja-1.11": (OUT_OF_MEMORY, "quants.c.o", "--low-mem"),
    "clang-killed-ninja-1.13": (OUT_OF_MEMORY, "quants.c.o", "--low-mem"),
    "clang-killed-silent-ninja-1.11": (OUT_OF_MEMORY, OPS, "without a word"),
    "clang-killed-silent-ninja-1.13": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "clock-skew": ("clock-skew", "", "clock"),
    "cmake-old": ("cmake-too-old", "", "3.99"),
    "compiler-broken": ("compiler-test", "", "CXX"),
    "compiler-broken-cmake-4": ("compiler-test", "", "CXX"),
    "compiler-incomplete": ("no-compiler", "testCCompiler.c.o", "apt install g++"),
    "compiler-named-wrong": ("no-compiler", "", "correct CC"),
    "compiler-test-library": ("missing-library", "", "nothere"),
    "disk-full-assembler": ("disk-full", PLAN, "FLOATLLM_CACHE_DIR"),
    "disk-full-clang": ("disk-full", PLAN, "FLOATLLM_CACHE_DIR"),
    "disk-full-configure": ("disk-full", "", "FLOATLLM_CACHE_DIR"),
    "disk-full-configure-later": ("disk-full", "", "FLOATLLM_CACHE_DIR"),
    "disk-full-link": ("disk-full", "libfloatllm.so", "FLOATLLM_CACHE_DIR"),
    "disk-full-lld": ("disk-full", "libfloatllm.so", "bus error"),
    "disk-full-ninja-1.11": ("disk-full", GEN, "TMPDIR"),
    "disk-full-ninja-1.13": ("disk-full", GEN, "TMPDIR"),
    "disk-full-tmpdir": ("disk-full", GEN, "TMPDIR"),
    "gcc-address-space": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "gcc-crash": ("compiler-crash", OPS, "another compiler"),
    "gcc-killed-ninja-1.11": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "gcc-killed-ninja-1.13": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "gcc-virtual-memory": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "generator-changed": ("build-folder", "", "clean"),
    "glslc-missing": ("vulkan-parts", "", "glslc"),
    "header-clang": ("missing-header", PLAN, "fetch"),
    "header-cuda": ("missing-header", PLAN, "CUDA_PATH"),
    "header-gcc": ("missing-header", PLAN, "spirv-headers"),
    "hip-missing": ("missing-package", "", "ROCM_PATH"),
    "host-compiler-build": ("host-compiler", "k.cu.o", "CUDAHOSTCXX"),
    "host-compiler-configure": ("host-compiler", "", "CUDAHOSTCXX"),
    "interrupted": NOTHING,
    "library-missing": ("missing-library", "libfloatllm.so", "cublas"),
    "link-killed": (OUT_OF_MEMORY, "vulkan-shaders-gen", "linker"),
    "ninja-missing": ("ninja-missing", "", "install ninja"),
    "no-compiler": ("no-compiler", "", "apt install g++"),
    "noexec-bash": ("no-exec", "shaders.cpp", "vulkan-shaders-gen may not be started"),
    "noexec-ninja-1.11": ("no-exec", "shaders.cpp", "vulkan-shaders-gen may not be started"),
    "noexec-ninja-1.13": ("no-exec", "shaders.cpp", "vulkan-shaders-gen may not be started"),
    "noexec-of-ninja": ("no-exec", "", "a program of the build may not be started"),
    "nvcc-architecture": ("gpu-architecture", "k.cu.o", "compute_61"),
    "nvcc-architecture-configure": ("gpu-architecture", "main.cu.o", "compute_61"),
    "nvcc-killed": (OUT_OF_MEMORY, "k.cu.o", "--low-mem"),
    "nvcc-missing": ("cuda-missing", "", "CUDACXX"),
    "nvcc-named-wrong": ("cuda-missing", "", "CUDACXX"),
    "option-gcc": ("processor-option", PLAN, "-mavx999"),
    "path-too-long-ninja": ("path-too-long", "", "short path"),
    "processes-compile": ("too-many-processes", GEN, "--jobs 1"),
    "processes-link": ("too-many-processes", "vulkan-shaders-gen", "--jobs 1"),
    "processor-clang": ("processor-option", PLAN, "znver9"),
    "processor-gcc": ("processor-option", PLAN, "znver9"),
    "program-gone": ("program-gone", "shaders.cpp", "vulkan-shaders-gen"),
    "read-only-configure": ("not-writable", "", "permissions"),
    "read-only-configure-new": ("not-writable", "", "permissions"),
    "read-only-ninja-1.11": ("read-only", GEN, "FLOATLLM_CACHE_DIR"),
    "read-only-ninja-1.13": ("read-only", "", "FLOATLLM_CACHE_DIR"),
    "source-gone": ("source-gone", "", "plan.cpp"),
    "source-moved": ("build-folder", "", "moved"),
    "spirv-missing": ("vulkan-parts", "", "SPIRV-Headers"),
    "syntax-clang": NOTHING,
    "syntax-gcc": NOTHING,
    "terminated": NOTHING,
    "unwritable-build": ("not-writable", "", "owner"),
    "unwritable-configure": ("not-writable", "", "owner"),
    "vulkan-headers-clang": ("vulkan-headers", PLAN, "LayerSettingEXT"),
    "vulkan-headers-gcc": ("vulkan-headers", PLAN, "LayerSettingEXT"),
    "vulkan-missing": ("vulkan-parts", "", "libvulkan-dev"),
    "warnings": NOTHING,
    "wrong-processor": ("wrong-processor", "shaders.cpp", "vulkan-shaders-gen"),
}
# Written after the tools' documentation and after reports of users: none of these can be had on a Linux PC.
COMPOSED = {
    "composed-gcc-9-killed": (OUT_OF_MEMORY, OPS, "--low-mem"),
    "composed-glibc-2.41": ("libc-too-new", "acc.cu.o", "CUDA 13"),
    "composed-hip-target": ("gpu-architecture", "acc.cu.o", "gfx1250"),
    "composed-macos-killed": (OUT_OF_MEMORY, "repack.cpp.o", "--low-mem"),
    "composed-msvc-header": ("missing-header", "session.cpp.obj", "VULKAN_SDK"),
    "composed-msvc-heap": (OUT_OF_MEMORY, "ops.cpp.obj", "--low-mem"),
    "composed-msvc-link-memory": (OUT_OF_MEMORY, "floatllm.dll", "--low-mem"),
    "composed-ndk-spawn": ("spawn-h", "ggml-vulkan.cpp.o", "libandroid-spawn"),
    "composed-nvcc-cicc-killed": (OUT_OF_MEMORY, "argsort.cu.o", "--low-mem"),
    "composed-nvcc-too-new-for-old": ("gpu-architecture", "acc.cu.o", "sm_120"),
    "composed-termux-spawn": ("spawn-h", "ggml-vulkan.cpp.o", "--backend cpu"),
    "composed-windows-disk": ("disk-full", "floatllm.dll", "FLOATLLM_CACHE_DIR"),
    "composed-windows-path-compiler": ("path-too-long", "repack.cpp.obj", "C:\\f"),
    "composed-windows-path-ninja": ("path-too-long", "", "C:\\f"),
}
EXPECTED = {**RECORDED, **COMPOSED}
WORDS = sorted({sign.word for remedy in REMEDIES for sign in remedy.signs})


def log_of(name: str) -> str:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8")


def kind_of(log: str) -> str:
    found = diagnose(log)
    return found.kind if found else ""


def test_every_log_is_in_the_table() -> None:
    assert {path.stem for path in LOGS.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_log(name: str) -> None:
    kind, unit, named = EXPECTED[name]
    found = diagnose(log_of(name))
    if not kind:
        assert found is None
        return
    assert found is not None
    assert found.kind == kind
    assert found.unit.endswith(unit)
    assert bool(found.unit) == bool(unit) or name == "compiler-test-library"
    assert named in f"{found.cause}; {found.fix}"
    assert found.said in log_of(name)


@pytest.mark.parametrize("name", EXPECTED)
def test_log_as_the_build_keeps_it(name: str) -> None:
    """With ninja on a terminal, its status in our own form, read back piece by piece."""
    ours = re.sub(r"(?m)^\[(\d+)/(\d+)\] ", r"[\1/\2/\2] ", log_of(name))
    reader = NinjaReader()
    for start in range(0, len(ours), 1000):
        reader.feed(ours[start : start + 1000].replace("\n", "\r\n"))
    reader.close()
    assert kind_of(reader.take_log()) == EXPECTED[name][0]


def test_a_log_of_several_steps_and_windows_line_ends() -> None:
    configured = "$ cmake -S source -B build\n-- Configuring done\n$ ninja -C build\n"
    log = (configured + log_of("gcc-killed-ninja-1.13")).replace("\n", "\r\n")
    found = diagnose(log)
    assert found is not None
    assert (found.kind, found.unit[-9:]) == (OUT_OF_MEMORY, OPS)


# What explains the others comes first, in whichever order they stand.
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("disk-full-assembler", "gcc-killed-ninja-1.13"),
        ("disk-full-ninja-1.11", "read-only-ninja-1.11"),
        ("disk-full-configure", "no-compiler"),
        ("gcc-killed-ninja-1.11", "header-gcc"),
        ("clang-killed-ninja-1.13", "gcc-crash"),
        ("noexec-ninja-1.13", "unwritable-build"),
        ("host-compiler-build", "header-cuda"),
        ("vulkan-headers-gcc", "header-gcc"),
        ("compiler-test-library", "no-compiler"),
        ("gcc-killed-ninja-1.11", "clang-killed-silent-ninja-1.11"),
    ],
)
def test_the_first_cause(first: str, second: str) -> None:
    for log in (log_of(first) + log_of(second), log_of(second) + log_of(first)):
        found, alone = diagnose(log), diagnose(log_of(first))
        assert found is not None
        assert alone is not None
        assert (found.kind, found.unit, found.said) == (alone.kind, alone.unit, alone.said)


def test_the_unit_is_the_one_that_showed_it_and_not_the_last() -> None:
    killed = (
        "[1/9] Building CXX object ops.cpp.o\n"
        "FAILED: [code=1] ops.cpp.o \n"
        "c++ -c ops.cpp\n"
        "c++: fatal error: Killed signal terminated program cc1plus\n"
    )
    other = (
        "[2/9] Building CXX object plan.cpp.o\n"
        "FAILED: [code=1] plan.cpp.o \n"
        "c++ -c plan.cpp\n"
        "plan.cpp:1:1: error: 'x' does not name a type\n"
        "ninja: build stopped: subcommand failed.\n"
    )
    found = diagnose(killed + other)
    assert found is not None
    assert found.unit == "ops.cpp.o"
    assert failed_unit(killed + other) == "plan.cpp.o"
    assert failed_unit("ninja: no work to do.\n") == ""


SAYINGS = (
    "No space left on device",
    "Read-only file system",
    "Permission denied",
    "c++: fatal error: Killed signal terminated program cc1plus",
    "fatal error: spawn.h: No such file or directory",
    "internal compiler error: Killed (program cc1plus)",
    "nvcc fatal   : Unsupported gpu architecture 'compute_61'",
    "LLVM ERROR: out of memory",
)


FAILED = "FAILED: [code=1] a.cpp.o \nc++ -c a.cpp\n"
SYNTAX = "a.cpp:9:9: error: expected ';'\n"
ELSE = "CMake Error at CMakeLists.txt:3 (message):\n  Something else\n"
FRAMES = {
    "unit that was compiled": "[1/2] Building CXX object a.cpp.o\n{}\n[2/2] Linking CXX library liba.so\n",
    "before one that was not": f"[1/2] Building b.cpp.o\n{{}}\n[2/2] Building a.cpp.o\n{FAILED}{SYNTAX}",
    "warning": f"[1/2] Building CXX object a.cpp.o\n{FAILED}a.cpp:1:2: warning: {{}}\n{SYNTAX}",
    "command": f"FAILED: [code=1] a.cpp.o \n{{}}\n{SYNTAX}",
    "source with a gutter": f"{FAILED}{SYNTAX}    9 | {{}}\n      |    ^\n",
    "source with a caret": f"{FAILED}{SYNTAX}{{}}\n    ~~~~^~~~\n",
    "assertion": f"{FAILED}a.cpp:9:9: error: static assertion failed: {{}}\n",
    "progress of CMake": f"-- {{}}\n{ELSE}",
    "warning of CMake": "CMake Warning at CMakeLists.txt:3 (message):\n  {}\n\n  {}\n"
    f"Call Stack (most recent call first):\n  CMakeLists.txt:3 (include)\n\n{ELSE}",
}


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_words_that_explain_nothing(saying: str, frame: str) -> None:
    assert diagnose(frame.format(saying, saying)) is None


@pytest.mark.parametrize("saying", SAYINGS)
def test_the_same_words_where_they_count(saying: str) -> None:
    """Else the test above would pass for any words."""
    said = saying if saying.startswith(("c++", "nvcc", "LLVM")) else f"a.cpp:1:2: {saying}"
    assert diagnose(f"FAILED: [code=1] a.cpp.o \nc++ -c a.cpp\n{said}\n") is not None


PARTS = st.sampled_from(
    [
        *WORDS,
        *SAYINGS,
        "FAILED: ",
        "[1/2] ",
        "ninja: ",
        "CMake Warning",
        "\n",
        "\r\n",
        "'",
        ": ",
        "{what}",
        "{",
        "\0",
    ]
)


@given(st.lists(st.one_of(PARTS, st.text(max_size=20)), max_size=40).map("".join))
@pytest.mark.slow
def test_any_text(log: str) -> None:
    found = diagnose(log)
    failed_unit(log)
    if found:
        assert found.cause
        assert found.fix
        assert len(found.cause) < 300
        assert found.cause.isprintable()


@given(st.integers(0, 10**6), st.sampled_from(sorted(EXPECTED)))
def test_a_log_that_breaks_off(end: int, name: str) -> None:
    log = log_of(name)
    diagnose(log[: end % (len(log) + 1)])


FILLERS = (
    "a",
    " ",
    ":",
    "'",
    "/",
    "0",
    "~",
    "^",
    ": ",
    "a:",
    "sh: 1: ",
    "ld: ",
    "error: ",
    "x\t",
    "[1/2] ",
    ".",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "length", [*(pytest.param(size, marks=pytest.mark.ci) for size in (100, 1800)), 10**6]
)
@pytest.mark.parametrize("filler", FILLERS)
def test_a_megabyte_is_read_at_once(filler: str, length: int) -> None:
    """Text made to keep patterns busy: each word of the table amid what may repeat, in short lines or one."""
    words = [f"{filler * 30}{word}{filler * 30}" for word in WORDS]
    line = filler * (length // len(filler))
    log = "".join(f"{word} {line}\n{line} {word}\n" for word in words)[: 10**6]
    log += "\n" * (10**6 - len(log))
    # Of our own: what others do meanwhile does not count.
    started = time.process_time()
    diagnose(log)
    failed_unit(log)
    assert time.process_time() - started < 20


# Single sayings that no log holds. The first four were seen here, the others are as the tools document them.
SINGLE = {
    "/usr/bin/ld: error: k.o: file too short": "damaged-file",
    "ld.lld: error: a.o: section header table goes past the end of the file: e_shoff = 0x1f8": "damaged-file",
    "collect2: fatal error: cannot find 'ld'": "no-compiler",
    "The CUDA compiler": "cuda-missing",
    "clang: error: unable to execute command: Bus error": "disk-full",
    "/bin/sh: line 1: /usr/bin/glslc: No such file or directory": "program-gone",
    "FAILED: [code=135] liba.so": "disk-full",
    "FAILED: [code=139] a.cpp.o": "compiler-crash",
    "/usr/bin/ld: final link failed: Disk quota exceeded": "disk-full",
    "ninja: error: WriteFile(a.obj.rsp): There is not enough space on the disk.": "disk-full",
    "/usr/bin/ld: final link failed: memory exhausted": OUT_OF_MEMORY,
    "terminate called after throwing an instance of 'std::bad_alloc'": OUT_OF_MEMORY,
    "ptxas fatal : Memory allocation failure": OUT_OF_MEMORY,
    "c1xx : fatal error C3859: Failed to create virtual memory for PCH": OUT_OF_MEMORY,
    "cl : error: The paging file is too small for this operation to complete.": OUT_OF_MEMORY,
    "c++: fatal error: cannot open pipe: Too many open files": "too-many-processes",
    "cc: libz.so.1: failed to map segment from shared object: Operation not permitted": "no-exec",
    "ninja: fatal: CreateProcess: The filename or extension is too long.": "path-too-long",
    "ninja: error: remove(a.obj): Access is denied.": "not-writable",
    "host_config.h:151:2: error: #error -- unsupported clang version! clang must be": "host-compiler",
    "fatal error C1189: #error: -- unsupported Microsoft Visual Studio version!": "host-compiler",
    "clang++: error: unsupported HIP gpu architecture: gfx1250": "gpu-architecture",
    "clang: error: unsupported argument 'armv9.9-a' to option '-march='": "processor-option",
    "clang: error: unknown argument: '-mavx999'": "processor-option",
    "a.s:9: Error: unknown mnemonic `smmla' -- `smmla v0.4s,v1.16b,v2.16b'": "processor-option",
    "a.cpp:9:9: error: 'VK_EXT_LAYER_SETTINGS' was not declared in this scope": "vulkan-headers",
    "a.cpp:9:9: error: use of undeclared identifier 'VK_EXT_LAYER_SETTINGS'": "vulkan-headers",
    "a.cpp(9): error C2039: 'LayerSettingEXT': is not a member of 'vk'": "vulkan-headers",
    "a.cpp:9:9: error: 'posix_spawn' is unavailable: introduced in Android 28": "spawn-h",
    "a.o: undefined reference to `posix_spawn'": "spawn-h",
    'a.cu(1): catastrophic error: cannot open source file "cublas_v2.h"': "missing-header",
    "/usr/bin/ld: a.o: file truncated": "damaged-file",
    "/usr/bin/ld: liba.a: error adding symbols: malformed archive": "damaged-file",
    "liba.lib : fatal error LNK1136: invalid or corrupt file": "damaged-file",
    "ld.lld: error: unable to find library -lvulkan": "missing-library",
    "ld: library not found for -lvulkan": "missing-library",
    "/usr/bin/ld: cannot find crti.o: No such file or directory": "missing-library",
    "LINK : fatal error LNK1181: cannot open input file 'vulkan-1.lib'": "missing-library",
    "LINK : fatal error LNK1104: cannot open file 'cublas.lib'": "missing-library",
    "CUDA Toolkit not found": "cuda-missing",
    "Failed to find nvcc.": "cuda-missing",
    "Could not find compiler set in environment variable CUDACXX:": "cuda-missing",
    "The CMAKE_CXX_COMPILER:": "no-compiler",
    "ccache: error: Failed to create directory /r/.cache/ccache: Read-only file system": "compiler-cache",
    "sccache: error: Server startup failed: Address in use": "compiler-cache",
    'ccache: FATAL: Could not find compiler "c++" in PATH': "compiler-cache",
    'sccache: caused by: Compiler not supported: "error"': "compiler-cache",
    "nvcc error   : 'cicc' died due to signal 11 (Invalid memory reference)": "compiler-crash",
    "a.cpp(9): fatal error C1001: Internal compiler error.": "compiler-crash",
}


@pytest.mark.parametrize("saying", SINGLE)
def test_single_saying(saying: str) -> None:
    assert kind_of(f"{saying}\n") == SINGLE[saying]


def test_each_sign_is_shown_by_a_log_or_a_saying() -> None:
    """A sign that nothing shows may have a pattern that nothing can match."""
    shown = [*(line.strip() for name in EXPECTED for line in log_of(name).split("\n")), *SINGLE]
    for remedy in REMEDIES:
        for sign in remedy.signs:
            found = [line for line in shown if sign.word in line and sign.found(line)]
            assert found, f"{remedy.kind}: {sign}"
