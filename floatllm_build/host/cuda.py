"""NVIDIA GPUs: what the driver's library says in a child, else what nvidia-smi says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from floatllm_build.host.answers import ask, rows, text, whole
from floatllm_build.host.cuda_toolkits import find_toolkits
from floatllm_build.host.files import read_if_there
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import CudaDevice, CudaFacts, OsFacts, Target

# Starting the driver takes seconds on a machine with many GPUs and no persistence daemon.
_CHILD_SECONDS = 10.0
_SMI_SECONDS = 5.0
_WSL = "/usr/lib/wsl/lib/libcuda.so.1"
# Where drivers lie that the loader need not know; a toolkit's compat library is the last hope.
_FOLDERS = (
    *("/usr/lib/*-linux-gnu", "/usr/lib/*-linux-gnu/nvidia", "/usr/lib/*-linux-gnu/nvidia/current"),
    *("/usr/lib/*-linux-gnu/tegra", "/usr/lib64", "/usr/lib64/nvidia", "/usr/lib"),
    *("/run/opengl-driver/lib", "/usr/local/nvidia/lib64", "/usr/local/cuda*/compat"),
)
# The loader can find a library that is no driver (a stub), or that goes with no driver here (a toolkit's
# compat), before the driver's own. So do programs then.
_OF_THE_WRONG_LIBRARY = {34, 803, 804}
# Capabilities of chips that share the machine's memory: Tegra (TX1 to Thor) and GB10 (NVIDIA's page of GPUs,
# November 2026).
_INTEGRATED = {"53", "62", "72", "87", "101", "110", "121"}
_NONE = CudaFacts(
    library="",
    driver="",
    supports="",
    devices=(),
    toolkits=(),
    jetson="",
    init_error=0,
    smi_error=0,
    vector_math="",
)
# glibc's vector functions for Arm; Debian's folder, then that of others.
_VECTOR_HEADERS = tuple(f"/usr/include/{folder}bits/math-vector.h" for folder in ("aarch64-linux-gnu/", ""))
_QUERY = ("--query-gpu=driver_version,compute_cap,memory.total,name", "--format=csv,noheader,nounits")
# The table cannot say which CUDA the driver runs, and the whole screen lists everybody's programs. This is
# the shortest answer that says it, with old drivers too.
_SHORT = ("-q", "-d", "COMPUTE")


def probe_cuda(
    system: System,
    os_facts: OsFacts,
    findings: Findings,
    target: Callable[[], Target | None] = lambda: None,
) -> CudaFacts:
    """`target` waits for the environment that is installed into: there may be a toolkit in it."""
    if os_facts.name not in {"Linux", "Windows"}:
        return _NONE
    # First, because a driver that hangs uses up the time that there is for all questions.
    toolkits = find_toolkits(system, os_facts, findings, target)
    library, supports, devices, init_error = _ask_libraries(system, os_facts, findings)
    driver = _kernel_driver(system, os_facts, findings)
    smi = system.which("nvidia-smi")
    if not smi and os_facts.wsl:
        smi = next(iter(system.glob("/usr/lib/wsl/lib/nvidia-smi")), None)
    smi_error = 0
    if smi and not devices:
        driver, supports, devices, smi_error = _ask_smi(system, smi, findings, driver, supports)
    elif smi and not driver:
        # Under WSL and Windows the kernel has no file that says it.
        table = system.run((smi, *_QUERY), timeout=_SMI_SECONDS)
        driver, _ = parse_query(table.out)
        if driver:
            findings.source("cuda.driver", "nvidia-smi")
        else:
            findings.failed("nvidia-smi", table)
    hidden = system.getenv("CUDA_VISIBLE_DEVICES")
    if devices and hidden is not None:
        findings.note(
            "CUDA_VISIBLE_DEVICES", f"set to {text(hidden)!r}; the GPUs listed here are all that there are"
        )
    return CudaFacts(
        library=library,
        driver=driver,
        supports=supports,
        devices=devices,
        toolkits=toolkits,
        jetson=_jetson(system, os_facts, findings),
        init_error=init_error,
        smi_error=smi_error,
        vector_math=_vector_math(system, os_facts, findings),
    )


def _candidates(system: System, os_facts: OsFacts) -> tuple[str, ...]:
    if os_facts.name == "Windows":
        return ("nvcuda.dll",)
    wsl = system.glob(_WSL) if os_facts.wsl else ()
    found = [path for folder in _FOLDERS for path in system.glob(f"{folder}/libcuda.so.1")]
    return tuple(dict.fromkeys((*wsl, "libcuda.so.1", *found)))


def _ask_libraries(
    system: System, os_facts: OsFacts, findings: Findings
) -> tuple[str, str, tuple[CudaDevice, ...], int]:
    """Library, newest CUDA that it runs, devices: of the first library that has any; and what cuInit returned
    in the first that failed, if that matters.
    """
    supports, init_error = "", 0
    for library in _candidates(system, os_facts):
        found = ask(system, "cuda", library, findings, timeout=_CHILD_SECONDS)
        if found is None:
            continue
        said = parse_supports(found.get("version"))
        devices = _devices(found, library, findings)
        if devices:
            findings.source("cuda.devices", f"{library} (cuInit, cuDeviceGetAttribute)")
            findings.source("cuda.supports", f"{library} (cuDriverGetVersion)")
            return library, said, devices, init_error if init_error in _OF_THE_WRONG_LIBRARY else 0
        if "error" not in found:
            findings.note(library, "the driver answers and has no device")
        if not init_error and (init_error := parse_init(found)):
            findings.source("cuda.init_error", f"{library} (cuInit)")
        supports = supports or said
    if supports:
        findings.source("cuda.supports", "cuDriverGetVersion of a library without devices")
    return "", supports, (), init_error


def parse_init(found: dict[str, Any]) -> int:
    """What cuInit returned, by a child's answer; records before `init` have it in the child's error alone."""
    told = re.match(r"(?:cuInit|cuDriverGetVersion): (\d{1,5})\b", text(found.get("error")), re.ASCII)
    return whole(found.get("init"), most=99_999) or (int(told[1]) if told else 0)


def parse_supports(version: object) -> str:
    """13000, as the driver's library says it, is CUDA 13.0; empty where it makes no sense."""
    number = whole(version, most=999_990)
    return f"{number // 1000}.{number % 1000 // 10}" if number >= 1000 else ""


def _devices(found: dict[str, Any], library: str, findings: Findings) -> tuple[CudaDevice, ...]:
    devices = []
    for row in rows(found, "devices", library, findings):
        major, minor, name = whole(row.get("major"), 99), whole(row.get("minor"), 9), text(row.get("name"))
        if not major:
            findings.note(library, f"a device without a compute capability: {name or 'no name'}")
            continue
        devices.append(
            CudaDevice(
                name=name,
                capability=f"{major}{minor}",
                memory=whole(row.get("memory")),
                integrated=row.get("integrated") == 1,
                # The driver names a slice "NVIDIA H100 80GB HBM3 MIG 1g.10gb".
                mig=bool(re.search(r"\bMIG\b", name)),
            )
        )
    return tuple(devices)


def _kernel_driver(system: System, os_facts: OsFacts, findings: Findings) -> str:
    path = "/proc/driver/nvidia/version"
    if os_facts.name != "Linux":
        return ""
    said = read_if_there(system, path, findings, only="^NVRM version")
    if said is None:
        return ""
    # "... x86_64 Kernel Module  550.54.14 ..." or "... Open Kernel Module for x86_64  570.86.15 ..."
    match = re.search(r"Kernel Module(?: for \S{1,40})?\s+(\d{1,5}(?:\.\d{1,5})+)", said)
    if not match:
        findings.note(path, f"no version in it: {text(said)}")
        return ""
    findings.source("cuda.driver", path)
    return match[1]


def _ask_smi(
    system: System, smi: str, findings: Findings, driver: str, supports: str
) -> tuple[str, str, tuple[CudaDevice, ...], int]:
    """What nvidia-smi lists where no library offers a device."""
    table = system.run((smi, *_QUERY), timeout=_SMI_SECONDS)
    smi_driver, devices = parse_query(table.out) if table.rc == 0 else ("", ())
    if not devices:
        findings.failed("nvidia-smi", table)
        return driver, supports, (), table.rc if 0 < table.rc < 124 else 0
    findings.source("cuda.devices", "nvidia-smi")
    findings.note("nvidia-smi", "lists GPUs that no CUDA library here offers; programs may not reach them")
    slices = parse_slices(system.run((smi, "-L"), timeout=_SMI_SECONDS).out)
    devices = mark_slices(devices, slices)
    if not driver:
        driver = smi_driver
        findings.source("cuda.driver", "nvidia-smi")
    if not supports:
        answer = system.run((smi, *_SHORT), timeout=_SMI_SECONDS)
        supports = parse_short(answer.out) if answer.rc == 0 else ""
        if supports:
            findings.source("cuda.supports", "nvidia-smi")
        else:
            findings.failed(f"nvidia-smi {' '.join(_SHORT)}", answer)
    return driver, supports, devices, 0


def parse_short(said: str) -> str:
    """The newest CUDA that the driver runs: a line of its own that was renamed in driver 610."""
    line = r"^CUDA (?:UMD )?Version\s*:\s*(\d{1,3}\.\d{1,2})\s*$"
    match = re.search(line, said, re.MULTILINE | re.ASCII)
    return match[1] if match else ""


def parse_query(table: str) -> tuple[str, tuple[CudaDevice, ...]]:
    """Driver version and devices from nvidia-smi's table; a row that makes no sense is left out."""
    driver, devices = "", []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) != 4 or not re.fullmatch(r"[1-9]\d?\.\d", cells[1], re.ASCII):
            continue
        driver = cells[0] if re.fullmatch(r"\d{1,5}(\.\d{1,5})+", cells[0], re.ASCII) else driver
        mebibytes = int(cells[2]) if re.fullmatch(r"\d{1,9}", cells[2], re.ASCII) else 0
        devices.append(
            CudaDevice(
                name=text(cells[3]),
                capability=cells[1].replace(".", ""),
                memory=mebibytes << 20,
                # [N/A] for the memory is no sign of it: other cards say so too, as in some virtual machines.
                integrated=cells[1].replace(".", "") in _INTEGRATED,
                mig=False,
            )
        )
    return driver, tuple(devices)


def parse_slices(listing: str) -> set[int]:
    """Numbers of the GPUs below which `nvidia-smi -L` lists slices (`  MIG 1g.10gb  Device  0: ...`)."""
    found, gpu = set(), -1
    for line in listing.splitlines():
        if match := re.match(r"GPU (\d{1,3}):", line, re.ASCII):
            gpu = int(match[1])
        elif re.match(r"\s+MIG\s", line):
            found.add(gpu)
    return found


def mark_slices(devices: tuple[CudaDevice, ...], slices: set[int]) -> tuple[CudaDevice, ...]:
    return tuple(
        replace(device, mig=True) if number in slices else device for number, device in enumerate(devices)
    )


def _vector_math(system: System, os_facts: OsFacts, findings: Findings) -> Literal["", "bare", "guarded"]:
    if os_facts.machine != "aarch64" or not os_facts.libc.startswith("glibc"):
        return ""
    for path in _VECTOR_HEADERS:
        said = read_if_there(system, path, findings, only=r"__Float32x4_t|__CUDACC__|__NVCC__")
        if said is not None:
            findings.source("cuda.vector_math", path)
            return parse_vector_math(said)
    return ""


def parse_vector_math(header: str) -> Literal["bare", "guarded"]:
    """`bare` if nvcc meets GCC's vector types in it: glibc has them since 2.38, users and distributions guard
    them.
    """
    guarded = "__Float32x4_t" not in header or re.search("__CUDACC__|__NVCC__", header)
    return "guarded" if guarded else "bare"


def _jetson(system: System, os_facts: OsFacts, findings: Findings) -> str:
    path = "/etc/nv_tegra_release"
    if os_facts.name != "Linux" or os_facts.machine != "aarch64":
        return ""
    said = read_if_there(system, path, findings, only="^# R")
    if said is None:
        return ""
    release = parse_jetson(said)
    if not release:
        findings.note(path, f"no release in it: {text(said)}")
    else:
        findings.source("cuda.jetson", path)
    return release


def parse_jetson(said: str) -> str:
    """`# R35 (release), REVISION: 4.1, ...` is L4T 35.4.1."""
    match = re.search(r"# R(\d{1,4})\b[^,]{0,40}, REVISION: (\d{1,4}(?:\.\d{1,4})*)", said)
    return f"{match[1]}.{match[2]}" if match else ""
