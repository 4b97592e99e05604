"""What FloatLLM does not use, but what says something about the machine: OpenCL and SYCL."""

from __future__ import annotations

from floatllm_build.host.answers import ask, text
from floatllm_build.host.files import literal
from floatllm_build.host.findings import Findings
from floatllm_build.system import System
from floatllm_build.values import OsFacts, Presence

_CHILD_SECONDS = 4.0
_OPENCL = {
    "Linux": ("/usr/lib/*-linux-gnu/libOpenCL.so.1", "/usr/lib64/libOpenCL.so.1", "/usr/lib/libOpenCL.so.1"),
    "Windows": ("C:/Windows/System32/OpenCL.dll",),
    # Apps may not load it everywhere; that it is there says something already.
    "Android": ("/vendor/lib64/libOpenCL.so",),
}
_ICPX = "/opt/intel/oneapi/compiler/latest/bin/icpx"


def probe_others(system: System, os_facts: OsFacts, findings: Findings) -> tuple[Presence, ...]:
    found = _opencl(system, os_facts, findings) + _sycl(system, os_facts)
    for number, presence in enumerate(found):
        findings.source(f"others.{number}", presence.where)
    return found


def _opencl(system: System, os_facts: OsFacts, findings: Findings) -> tuple[Presence, ...]:
    patterns = _OPENCL.get(os_facts.name, ())
    library = next((path for pattern in patterns for path in system.glob(pattern)), "")
    if not library:
        return ()
    if os_facts.name == "Android":
        return (Presence(what="opencl", where=library),)
    found = ask(system, "opencl", library, findings, timeout=_CHILD_SECONDS)
    platforms = (found or {}).get("platforms")
    names = [text(name) for name in platforms if text(name)] if isinstance(platforms, list) else []
    if not names and found is not None and "error" not in found:
        findings.note(library, "the loader answers and has no platform")
    return tuple(Presence(what="opencl", where=f"{library}: {name}") for name in names[:16])


def _sycl(system: System, os_facts: OsFacts) -> tuple[Presence, ...]:
    root = system.getenv("ONEAPI_ROOT")
    inside = "compiler/latest/bin/icpx" + (".exe" if os_facts.name == "Windows" else "")
    named = (f"{literal(root)}/{inside}",) if root else ()
    patterns = (*named, *(() if os_facts.name == "Windows" else (_ICPX,)))
    compiler = system.which("icpx") or next((path for p in patterns for path in system.glob(p)), "")
    return (Presence(what="sycl", where=compiler),) if compiler else ()
