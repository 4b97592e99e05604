"""CUDA toolkits: every nvcc, what it can compile for, how new a host compiler and a C library it takes.

None is judged here: which of them fits is `select`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from floatllm_build.host.files import literal, read_if_there, read_text
from floatllm_build.host.findings import Findings, how_it_ended
from floatllm_build.system import System
from floatllm_build.values import CudaToolkit, OsFacts, Target

Layout = Literal["toolkit", "wheels"]

_NVCC_SECONDS = 5.0
# The header's own sentences, and the conditions above them.
_CEILINGS = r"unsupported (GNU|clang) version|^#if \(?__(GNUC|clang_major)__ >|^#if _MSC_VER < .*_MSC_VER >"
# Functions that glibc declared later than CUDA did.
_MATH = r"^extern .*\b(cospi|rsqrt) ?\("


def find_toolkits(
    system: System, os_facts: OsFacts, findings: Findings, target: Callable[[], Target | None]
) -> tuple[CudaToolkit, ...]:
    """In the order of the search; one that is there under two names is listed once.

    None where CUDACXX names an nvcc that does not answer: another one is not what the user wants.
    """
    # The text of --version names the very build: /usr/local/cuda is a link to one of its neighbours.
    builds: dict[tuple[str, Layout], list[str]] = {}
    named = _named(system)
    for nvcc in dict.fromkeys((*((named,) if named else ()), *_candidates(system, os_facts, target))):
        done = system.run((nvcc, "--version"), timeout=_NVCC_SECONDS)
        if done.rc == 0 and parse_release(done.out):
            layout: Layout = "wheels" if "-packages/nvidia/" in _slashes(nvcc) else "toolkit"
            builds.setdefault((done.out, layout), []).append(nvcc)
        elif nvcc == named:
            findings.note("CUDACXX", f"`{nvcc} --version` does not answer as nvcc: {how_it_ended(done)}")
            return ()
        else:
            findings.failed(f"{nvcc} --version", done)
    toolkits: list[CudaToolkit] = []
    for (said, layout), paths in builds.items():
        place = f"cuda.toolkits.{len(toolkits)}"
        findings.source(place, f"{paths[0]} --version, --list-gpu-arch")
        folders = _header_folders(system, paths)
        newest_gcc, newest_clang, newest_msvc = _ceilings(system, folders, place, findings)
        glibc = os_facts.libc.startswith("glibc")
        toolkits.append(
            CudaToolkit(
                nvcc=paths[0],
                version=parse_release(said),
                architectures=_architectures(system, paths[0], findings),
                newest_gcc=newest_gcc,
                newest_clang=newest_clang,
                newest_msvc=newest_msvc,
                newest_glibc=_newest_glibc(system, folders, place, findings) if glibc else "",
                cublas=_cublas(system, folders, place, findings),
                layout=layout,
            )
        )
    return tuple(toolkits)


def _named(system: System) -> str:
    named = (system.getenv("CUDACXX") or "").strip()
    return named if not named or "/" in _slashes(named) else system.which(named) or named


def _candidates(system: System, os_facts: OsFacts, target: Callable[[], Target | None]) -> tuple[str, ...]:
    windows = os_facts.name == "Windows"
    name = "nvcc.exe" if windows else "nvcc"
    homes = [system.getenv(variable) for variable in ("CUDA_PATH", "CUDA_HOME")]
    if windows:
        installed = system.glob("C:/Program Files/NVIDIA GPU Computing Toolkit/CUDA/v*/bin/nvcc.exe")
    else:
        installed = (*system.glob("/usr/local/cuda*/bin/nvcc"), *system.glob("/opt/cuda*/bin/nvcc"))
    conda = system.getenv("CONDA_PREFIX")
    candidates = (
        *(f"{home}/bin/{name}" for home in homes if home),
        system.which("nvcc"),
        *sorted(installed, key=_by_version, reverse=True),
        *(system.glob(f"{literal(conda)}/bin/{name}") if conda else ()),
        *_wheels(system, target(), windows=windows),
    )
    return tuple(path for path in candidates if path)


def _wheels(system: System, target: Target | None, *, windows: bool) -> list[str]:
    """Toolkits that came from the package index: in the environments that a build could use, then where pip
    puts things when it may not write there.
    """
    identity = system.native("identity")
    own = identity.get("prefix") if isinstance(identity, dict) else None
    # Debian's pip and Debian itself name the folder dist-packages, and the former puts it into /usr/local.
    packages = "Lib/site-packages" if windows else "lib*/python*/*-packages"
    prefixes = [target.prefix if target else "", system.getenv("VIRTUAL_ENV"), system.getenv("CONDA_PREFIX")]
    prefixes += [own, *(() if windows else ("/usr/local",))]
    patterns = [f"{literal(prefix)}/{packages}" for prefix in prefixes if isinstance(prefix, str) and prefix]
    patterns += _user_site(system, windows=windows)
    name = "nvcc.exe" if windows else "nvcc"
    return [
        path
        for pattern in dict.fromkeys(patterns)
        for path in sorted(system.glob(f"{pattern}/nvidia/cu*/bin/{name}"), key=_by_version, reverse=True)
    ]


def _user_site(system: System, *, windows: bool) -> list[str]:
    base = system.getenv("PYTHONUSERBASE")
    above = None if base else system.getenv("APPDATA" if windows else "HOME")
    if above:
        base = f"{above}/Python" if windows else f"{above}/.local"
    if not base:
        return []
    return [f"{literal(base)}/{'Python*/site-packages' if windows else 'lib*/python*/*-packages'}"]


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _by_version(path: str) -> tuple[bool, list[int]]:
    """/usr/local/cuda, which the administrator points at the one to use, then cuda-12.10 before cuda-12.9."""
    folder = _slashes(path).removesuffix(".exe").removesuffix("/bin/nvcc").rpartition("/")[2]
    numbers = [int(number) for number in re.findall(r"\d{1,6}", folder, re.ASCII)]
    return not numbers, numbers


def parse_release(said: str) -> str:
    match = re.search(r"\brelease (\d{1,3}\.\d{1,3})\b", said, re.ASCII)
    return match[1] if match else ""


def parse_architectures(said: str) -> tuple[str, ...]:
    """`compute_75` and its like, one a line and in any order, as 75, ... 100, 120."""
    found = {int(number) for number in re.findall(r"^compute_(\d{2,3})\s*$", said, re.MULTILINE | re.ASCII)}
    return tuple(map(str, sorted(found)))


def _architectures(system: System, nvcc: str, findings: Findings) -> tuple[str, ...]:
    done = system.run((nvcc, "--list-gpu-arch"), timeout=_NVCC_SECONDS)
    found = parse_architectures(done.out) if done.rc == 0 else ()
    if not found:
        findings.failed(f"{nvcc} --list-gpu-arch", done)
    return found


def _header_folders(system: System, paths: list[str]) -> list[str]:
    """Where a toolkit's headers may lie, below any of its names."""
    roots = [_slashes(path).rpartition("/")[0].rpartition("/")[0] for path in paths]
    ending = "/crt/host_config.h"
    return [f"{root}/include" for root in roots] + [
        path.removesuffix(ending)
        for root in roots
        for path in system.glob(f"{literal(root)}/targets/*/include{ending}")
    ]


def _ceilings(system: System, folders: list[str], place: str, findings: Findings) -> tuple[int, int, int]:
    """Newest gcc, clang and _MSC_VER, from the header in which nvcc refuses newer ones."""
    for header in (f"{folder}/crt/host_config.h" for folder in folders):
        text = read_if_there(system, header, findings, _CEILINGS)
        if text is None:
            continue
        found = parse_ceilings(text)
        if any(found):
            findings.source(f"{place}.newest_gcc", header)
            findings.source(f"{place}.newest_clang", header)
            findings.source(f"{place}.newest_msvc", header)
            return found
        findings.note(header, "does not say which host compilers it takes")
    findings.note(
        f"{folders[0]}/crt/host_config.h",
        "no header says which host compilers nvcc takes; one that is too new fails late",
    )
    return 0, 0, 0


def _newest_glibc(system: System, folders: list[str], place: str, findings: Findings) -> str:
    """By the header and not by the version: distributions and users mend it in older toolkits."""
    for header in (f"{folder}/crt/math_functions.h" for folder in folders):
        newest = parse_newest_glibc(read_text(system, header, findings, _MATH))
        if newest:
            findings.source(f"{place}.newest_glibc", header)
            return newest
    return ""


def _cublas(system: System, folders: list[str], place: str, findings: Findings) -> bool:
    """False only beside headers of the toolkit: some bundles keep cuBLAS elsewhere, where CMake finds it."""
    for folder in folders:
        found = system.glob(f"{literal(folder)}/cublas_v2.h")
        if found:
            findings.source(f"{place}.cublas", found[0])
            return True
    own = (system.glob(f"{literal(folder)}/cuda_runtime.h") for folder in folders)
    headers = next((paths for paths in own if paths), ())
    if headers:
        findings.source(f"{place}.cublas", f"no cublas_v2.h beside {headers[0]}")
    return not headers


def parse_ceilings(header: str) -> tuple[int, int, int]:
    """Newest major versions of gcc and clang, and newest _MSC_VER, that crt/host_config.h lets through; 0 if
    it does not say.

    Its sentences come first: the conditions for other compilers that are made from clang look like clang's.
    """
    gcc = _number(header, r"gcc versions later than (\d{1,3}) are not supported", 0)
    clang = _number(header, r"unsupported clang version! clang version must be less than (\d{1,3})\b", -1)
    return (
        gcc or _number(header, r"^#if __GNUC__ > (\d{1,3})\b", 0),
        clang
        or _number(header, r"^#if \(__clang_major__ >= (\d{1,3})\)", -1)
        or _number(header, r"^#if \(__clang_major__ > (\d{1,3})\)", 0),
        _number(header, r"^#if _MSC_VER < \d{4} \|\| _MSC_VER >= (\d{4})\b", -1)
        or _number(header, r"^#if _MSC_VER < \d{4} \|\| _MSC_VER > (\d{4})\b", 0),
    )


def parse_newest_glibc(header: str) -> str:
    """`2.40`, `2.41` or `any` by how crt/math_functions.h declares what glibc declares with noexcept.

    glibc has cospi since 2.41 and rsqrt since 2.42; a declaration that ends bare contradicts it.
    """
    bare = {name: rf"^extern .*\b{name} ?\(double \w{{1,20}}\) *;" for name in ("cospi", "rsqrt")}
    if not all(re.search(rf"\b{name} ?\(", header, re.ASCII) for name in bare):
        return ""
    first = next((name for name, form in bare.items() if re.search(form, header, re.MULTILINE)), "")
    return {"cospi": "2.40", "rsqrt": "2.41"}.get(first, "any")


def _number(text: str, pattern: str, plus: int) -> int:
    found = re.findall(pattern, text, re.MULTILINE | re.ASCII)
    return max(0, int(found[-1]) + plus) if found else 0
