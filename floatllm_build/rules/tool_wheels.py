"""Whether cmake and ninja can be brought as wheels here."""

from __future__ import annotations

from floatllm_build.rules.systems import ids_of
from floatllm_build.tables.tool_wheels import GLIBC, MUSL, MUSL_OLDEST, NOT_ON, WINDOWS
from floatllm_build.values import Host
from floatllm_build.versions import version_tuple


def why_no_tool_wheel(host: Host) -> str:
    """Why the package index's cmake and ninja are none for this machine; empty if they are."""
    os_facts = host.os
    if os_facts.name == "Darwin":
        return ""
    if os_facts.name == "Windows":
        other = host.python.platform and not host.python.platform.startswith(WINDOWS)
        return f"there is no wheel of it for {host.python.platform}" if other else ""
    if os_facts.name != "Linux":
        return f"there is no wheel of it for {os_facts.name}"
    if set(ids_of(os_facts)[:1]) & set(NOT_ON):
        return f"its wheel is for systems with the usual folders, and does not start on {os_facts.version}"
    kind, _, version = os_facts.libc.partition(" ")
    oldest = GLIBC.get(os_facts.machine, ()) if kind != "musl" else MUSL_OLDEST * (os_facts.machine in MUSL)
    if not oldest:
        return f"there is no wheel of it for {os_facts.machine} and {kind or 'this C library'}"
    if () < version_tuple(version) < oldest:
        return f"its wheel needs {kind} {'.'.join(map(str, oldest))}, and this is {os_facts.libc}"
    return ""
