"""Systems that answer what a test says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from machines import PC

from floatllm_build.host.findings import Findings
from floatllm_build.host.os_facts import probe_os
from floatllm_build.system import Replay
from floatllm_build.values import OsFacts

LINUX = {"system": "Linux", "sys_platform": "linux", "release": "6.1.0", "machine": "x86_64", "bits": 64}
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION="12 (bookworm)"\n'
CPUS = "/sys/devices/system/cpu"
PHONE = replace(PC.os, name="Android", machine="aarch64", termux=True)
BOARD = replace(PC.os, machine="aarch64")


def done(out: str = "", err: str = "", rc: int = 0) -> dict[str, Any]:
    return {"rc": rc, "out": out, "err": err}


def machine(identity: dict[str, Any] | None = None, **kinds: dict[str, Any]) -> Replay:
    files = {
        path: {"text": text} if isinstance(text, str) else text
        for path, text in kinds.pop("files", {}).items()
    }
    native = {"identity": {**LINUX, **(identity or {})}, **kinds.pop("native", {})}
    return Replay({"schema_version": 1, "files": files, "native": native, **kinds})


def os_of(identity: dict[str, Any] | None = None, **kinds: dict[str, Any]) -> OsFacts:
    return probe_os(machine(identity, **kinds), Findings())
