"""Proves an engine: loads it in a child, lets it map and compute a small model, compares the numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from floatllm_build.errors import NotProvenError
from floatllm_build.events import Listener, Said
from floatllm_build.files import write_whole
from floatllm_build.process import run_child
from floatllm_build.values import Proof

_TIMEOUT = 300.0


def prove_wheel(wheel: Path, python: str, device: str, cache: Path, tell: Listener) -> Proof:
    """The proof on the wheel's own files, unpacked in a scratch folder.

    Raises NotProvenError where the self-test fails, crashes, hangs or ran on another device.
    """
    scratch = _scratch(cache)
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        return _prove(python, device, scratch, {"PYTHONPATH": str(scratch)}, tell)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def prove_installed(python: str, device: str, cache: Path, tell: Listener) -> Proof:
    """The proof on what is installed in the environment of `python`. Raises NotProvenError."""
    scratch = _scratch(cache)
    try:
        return _prove(python, device, scratch, {}, tell)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(cache: Path) -> Path:
    home = cache / "proofs"
    home.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=home))


def _prove(python: str, device: str, scratch: Path, extra: dict[str, str], tell: Listener) -> Proof:
    report_path = scratch / "report.json"
    argv = (python, "-m", "floatllm.selftest", "--device", device, "--report", str(report_path))
    env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    env.update({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **extra})
    lines: list[str] = []
    rest = ""

    def take(text: str) -> None:
        nonlocal rest
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            lines.append(line.rstrip())
            tell(Said(line.rstrip()))

    log = scratch.parent / "last.log"
    try:
        status = run_child(argv, cwd=scratch, env=env, on_text=take, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise _unproven(f"its self-test did not end within {_TIMEOUT:.0f} s", lines, log) from error
    if rest.strip():
        take("\n")
    report = _read_report(report_path)
    if status < 0:
        raise _unproven(f"its self-test was ended by signal {-status}", lines, log)
    if status != 0 or report.get("ok") is not True:
        raise _unproven(
            str(report.get("reason") or f"its self-test ended with exit status {status}"), lines, log
        )
    if report.get("device") != device:
        raise _unproven(f"it ran on {report.get('device')}, not on {device}", lines, log)
    return Proof(device=device, lines=tuple(lines), report=report)


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _unproven(reason: str, lines: list[str], log: Path) -> NotProvenError:
    write_whole(log, "".join(f"{line}\n" for line in lines).encode())
    said = "".join(f"\n  {line}" for line in lines[-5:])
    return NotProvenError(
        f"The engine was built, but it is not proven: {reason}.{said}\n"
        "Nothing was installed; what was installed before is untouched. Try another backend with --backend.\n"
        f"Everything the self-test said is in {log}"
    )
