"""Machines for probes: the real one with other files and programs on it, and recorded answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from machines import PC

from floatllm_build.host.findings import Findings
from floatllm_build.record import RECORD_VERSION
from floatllm_build.system import Completed, LiveSystem, Replay

MAC = replace(PC.os, name="Darwin", machine="arm64")


@dataclass
class Machine(LiveSystem):
    """The real machine with other files, programs and variables on it; children and programs really run."""

    globs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    prefix: str = "/nowhere"
    hangs: str = ""
    """The library that is not waited for longer than a second."""
    asked: list[str] = field(default_factory=list)

    def glob(self, pattern: str) -> tuple[str, ...]:
        return self.globs.get(pattern, ())

    def which(self, name: str) -> str | None:
        return self.programs.get(name)

    def getenv(self, name: str) -> str | None:
        return self.variables.get(name)

    def read(self, path: str, only: str = "") -> str:
        return super().read(self.files.get(path, f"/nowhere{path}"), only)

    def native(self, question: str) -> Any:
        return {"prefix": self.prefix}

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        self.asked.append(subject)
        # A name without a folder would find this machine's own driver.
        real = subject if "/" in subject else f"/nowhere/{subject}"
        return super().ask(question, real, timeout=1.0 if subject == self.hangs else 60.0)


def notes(findings: Findings) -> dict[str, str]:
    return {note.source: note.said for note in findings.notes}


def script(path: Path, *, body: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def nvcc(root: Path, release: str, header: str = "", *, include: str = "include") -> str:
    if header:
        (root / include / "crt").mkdir(parents=True)
        (root / include / "crt" / "host_config.h").write_text(header)
    says = f"Cuda compilation tools, release {release}, V{release}.1"
    body = f'case "$1" in --version) echo "{says}";; *) echo compute_75; echo compute_86;; esac'
    return script(root / "bin" / "nvcc", body=body)


class Looks(Machine):
    """Really looks for files, below its own folders."""

    def glob(self, pattern: str) -> tuple[str, ...]:
        return LiveSystem.glob(self, pattern) if pattern.startswith(self.prefix) else ()


def replay(**kinds: Any) -> Replay:
    return Replay({"schema_version": RECORD_VERSION, **kinds})


def said(answer: object) -> dict[str, Any]:
    return {"rc": 0, "out": json.dumps(answer), "err": ""}
