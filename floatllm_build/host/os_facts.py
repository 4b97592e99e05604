"""Which operating system, in which dress."""

from __future__ import annotations

from floatllm_build.system import System
from floatllm_build.values import OsFacts

_TERMUX = "/data/data/com.termux/files/usr"


def probe_os(system: System) -> OsFacts:
    identity = system.native("identity") or {}
    termux = _is_termux(system, str(identity.get("prefix", "")))
    # Python before 3.13 calls Termux "linux"; CMake and ggml say Android there.
    android = termux or identity.get("sys_platform") == "android"
    name = "Android" if android else str(identity.get("system") or "unknown")
    return OsFacts(
        name=name,
        release=str(identity.get("release", "")),
        machine=str(identity.get("machine", "")),
        bits=int(identity.get("bits") or 0),
        libc="bionic" if android else str(identity.get("libc") or _libc(system, name)),
        termux=termux,
        rosetta=name == "Darwin" and _translated(system),
    )


def _is_termux(system: System, prefix: str) -> bool:
    # ssh and cron may run without Termux' variables, so the interpreter's own folder counts as well.
    return bool(system.getenv("TERMUX_VERSION")) or prefix.startswith(_TERMUX)


def _translated(system: System) -> bool:
    return system.run(("sysctl", "-n", "sysctl.proc_translated")).out.strip() == "1"


def _libc(system: System, name: str) -> str:
    return "musl" if name == "Linux" and system.glob("/lib/ld-musl-*.so.1") else ""
