"""What CUDA toolkits say, and where they are looked for."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC, VENV
from probed_machines import Looks, Machine, notes, nvcc, replay, script

from floatllm_build.host import probe_host
from floatllm_build.host.cuda import probe_cuda
from floatllm_build.host.cuda_toolkits import (
    parse_architectures,
    parse_ceilings,
    parse_newest_glibc,
    parse_release,
)
from floatllm_build.host.findings import Findings
from floatllm_build.system import Completed, LiveSystem

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
        (HEADER_13, (16, 22, 0)),
        (HEADER_11, (11, 14, 0)),
        ("#if __GNUC__ > 13\n#if (__clang_major__ >= 18)\n", (13, 17, 0)),
        ("#if __GNUC__ > 8\n#if (__clang_major__ > 9) || (__clang_major__ < 3)\n", (8, 9, 0)),
        ("#if __GNUC__ > 99999999999\n", (0, 0, 0)),
        ("#if !defined(__GNUC__)\n", (0, 0, 0)),
        ("#if _MSC_VER < 1910 || _MSC_VER >= 1950\n#if __GNUC__ > 14\n", (14, 0, 1949)),
        ("#if _MSC_VER < 1910 || _MSC_VER >= 1940\n", (0, 0, 1939)),
        ("#if _MSC_VER < 1600 || _MSC_VER > 1911\n", (0, 0, 1911)),
        ("#if _MSC_VER < 1910 || _MSC_VER >= 195000\n", (0, 0, 0)),
    ],
)
def test_ceilings_of_the_host_compiler(header: str, newest: tuple[int, int, int]) -> None:
    assert parse_ceilings(header) == newest


def test_words_of_nvcc() -> None:
    assert parse_release("Cuda compilation tools, release 12.4, V12.4.131\n") == "12.4"
    assert parse_release("nvcc fatal: nothing\n") == ""
    listed = "compute_75\ncompute_90\ncompute_110\ncompute_103\ncompute_120f\ncompute_9999999\nsm_80\n"
    assert parse_architectures(listed) == ("75", "90", "103", "110")


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


def test_a_toolkit_in_an_odd_folder_is_measured_whole(tmp_path: Path) -> None:
    odd = tmp_path / "[x] *y?"
    program = nvcc(odd, "13.0", HEADER_13, include="targets/x/include")
    headers = odd / "targets/x/include"
    (headers / "cuda_runtime.h").write_text("")
    files = {str(path): str(path) for path in headers.rglob("*.h")}
    machine = Looks(variables={"CUDACXX": program}, files=files, prefix=str(tmp_path))
    (kit,) = probe_cuda(machine, PC.os, Findings()).toolkits
    assert (kit.newest_gcc, kit.cublas) == (16, False)
