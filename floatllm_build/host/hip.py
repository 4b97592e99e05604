"""AMD GPUs through ROCm: what the kernel lists, and which of them the installed rocBLAS has kernels for."""

from __future__ import annotations

import re
from dataclasses import replace

from floatllm_build.host.answers import first_line, text
from floatllm_build.host.files import literal, read_text
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import HipFacts, OsFacts

_NONE = HipFacts(targets=(), rocm="", version="", hipcc="", rocblas=(), missing=(), kfd="", override="")
_KFD = "/dev/kfd"
# Where Debian's, Fedora's and other distributions' own packages have their CMake files.
_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")
_NODES = "/sys/class/kfd/kfd/topology/nodes/*/properties"


def probe_hip(system: System, os_facts: OsFacts, findings: Findings) -> HipFacts:
    if os_facts.name == "Windows":
        return _windows(system, findings)
    if os_facts.name != "Linux":
        return _NONE
    targets = _targets(system, findings)
    rocm, version = _rocm(system, findings)
    inside = next(iter(system.glob(f"{literal(rocm)}/bin/hipcc")), "") if rocm else ""
    hipcc = inside or system.which("hipcc") or ""
    if hipcc:
        findings.source("hip.hipcc", hipcc if inside else "PATH")
    override = system.getenv("HSA_OVERRIDE_GFX_VERSION") or ""
    if override and targets:
        findings.source("hip.override", "HSA_OVERRIDE_GFX_VERSION")
        findings.note(
            "HSA_OVERRIDE_GFX_VERSION",
            f"set to {text(override)!r}: ROCm takes the GPU for {parse_override(override) or 'another'}; "
            "the targets listed here are the real ones",
        )
    return HipFacts(
        targets=targets,
        rocm=rocm,
        version=version,
        hipcc=hipcc,
        rocblas=_rocblas(system, rocm, findings),
        missing=_missing(system, rocm, findings) if hipcc else (),
        kfd=_kfd(system, findings) if targets else "",
        override=parse_override(override),
    )


def _kfd(system: System, findings: Findings) -> str:
    """The kernel lists the machine's GPUs in every container; programs reach them by this file."""
    said = system.opens(_KFD)
    if said is None:
        return ""
    findings.source("hip.kfd", _KFD)
    if said:
        findings.note(_KFD, f"does not open: {said}")
    return said or "yes"


def _missing(system: System, rocm: str, findings: Findings) -> tuple[str, ...]:
    """What ggml's CMake asks for and would not find; what a record says nothing about counts as there."""
    roots = (*((f"{rocm}/lib", f"{rocm}/lib64") if rocm else ()), *_LIBRARIES)
    missing = []
    for name, header in (("hip", "hip_runtime"), ("hipblas", "hipblas"), ("rocblas", "rocblas")):
        files = [f"{root}/cmake/{name}/{name}-config.cmake" for root in roots]
        files += [f"{prefix}/include/{name}/{header}.h" for prefix in (rocm, "/usr") if prefix]
        said = {system.opens(path) for path in files}
        if "" not in said and "ENOENT" in said:
            missing.append(name)
            findings.source(f"hip.missing.{len(missing) - 1}", f"no {name}-config.cmake in {rocm or '/usr'}")
    return tuple(missing)


def _windows(system: System, findings: Findings) -> HipFacts:
    """The SDK alone: nobody lists the GPUs' gfx names there."""
    rocm = system.getenv("HIP_PATH") or ""
    hipcc = next((path for path in system.glob(f"{literal(rocm)}/bin/hipcc*")), "") if rocm else ""
    if rocm:
        findings.source("hip.rocm", "HIP_PATH")
    return replace(_NONE, rocm=rocm, hipcc=hipcc)


def _targets(system: System, findings: Findings) -> tuple[str, ...]:
    targets = []
    for path in system.glob(_NODES):
        properties = read_text(system, path, findings, only="^gfx_target_version ")
        match = re.search(r"^gfx_target_version (\d{1,9})$", properties, re.MULTILINE | re.ASCII)
        # A CPU is a node too, with version 0.
        if match and int(match[1]):
            targets.append(gfx_name(int(match[1])))
            findings.source(f"hip.targets.{len(targets) - 1}", path)
    return tuple(targets)


def gfx_name(version: int) -> str:
    """90010 is gfx90a: major, two digits of minor, two of stepping, the last two in hexadecimal."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def parse_override(value: str) -> str:
    """10.3.0 is gfx1030; empty where it is no such version."""
    match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{1,2})", value.strip(), re.ASCII)
    return gfx_name(int(match[1]) * 10000 + int(match[2]) * 100 + int(match[3])) if match else ""


def _rocm(system: System, findings: Findings) -> tuple[str, str]:
    """ROCm's folder and version."""
    named = system.getenv("ROCM_PATH")
    installed = system.glob("/opt/rocm*/bin")
    folders = [path.removesuffix("/bin") for path in installed]
    # /opt/rocm is the one that the administrator chose among its neighbours with versions.
    folders.sort(key=lambda path: ([-int(n) for n in re.findall(r"\d{1,6}", path, re.ASCII)], path))
    for rocm in dict.fromkeys((*((named,) if named else ()), *folders)):
        path = f"{rocm}/.info/version"
        version = parse_version(read_text(system, path, findings))
        if rocm == named and not version and not system.glob(f"{literal(rocm)}/bin"):
            findings.note("ROCM_PATH", f"set to {text(rocm)!r}, where there is no ROCm; correct or unset it")
            continue
        if not version:
            findings.note(path, "does not say ROCm's version")
        findings.source("hip.rocm", path if version else rocm)
        return rocm, version
    return "", ""


def parse_version(said: str) -> str:
    """`6.3.1-48` is 6.3.1."""
    match = re.match(r"\d{1,5}(?:\.\d{1,5})+", first_line(said), re.ASCII)
    return match[0] if match else ""


def _rocblas(system: System, rocm: str, findings: Findings) -> tuple[str, ...]:
    """The gfx names in the file names of rocBLAS' kernels."""
    folders = ((f"{literal(rocm)}/lib/rocblas/library",) if rocm else ()) + (
        "/usr/lib/*-linux-gnu/rocblas/*/library",
        "/usr/lib64/rocblas/library",
    )
    for folder in folders:
        # One file for each target, where kernels are loaded lazily; else there are hundreds for each.
        files = system.glob(f"{folder}/TensileLibrary_lazy_gfx*") or system.glob(f"{folder}/*gfx*")
        if found := parse_kernels(files):
            findings.source("hip.rocblas", folder)
            return found
    return ()


def parse_kernels(files: tuple[str, ...]) -> tuple[str, ...]:
    """Sorted gfx names: major in decimal, one digit each of minor and stepping (gfx90a, gfx1100)."""
    names = {match for path in files for match in re.findall(r"gfx[0-9a-f]{3,5}(?![0-9a-f])", path)}
    return tuple(sorted(names, key=lambda name: (len(name), name)))
