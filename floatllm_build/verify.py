"""Proves an engine: loads it in a child, lets it map and compute a small model, compares the numbers."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floatllm_build.answer import hear
from floatllm_build.disk import check_loads_libraries, check_runs_programs
from floatllm_build.errors import MissingError, NotProvenError
from floatllm_build.events import Listener, Proving
from floatllm_build.files import scratch_in, write_whole
from floatllm_build.process import run_child
from floatllm_build.sizes import MIB, show_size
from floatllm_build.start import TooLateError
from floatllm_build.values import Proof

# A software device compiles its kernels for two minutes of two CPUs that nobody else uses.
_TIMEOUT = 900.0
_ANSWER_SECONDS = 60.0
_LONGEST_ANSWER = 1 << 20
# More than the self-test writes.
_ROOM = 8 * MIB
# Parts of drivers, which a machine without the device lacks.
_DRIVERS = ("libcuda.so.1", "libvulkan.so.1", "libamdhip64")
# What a plugin's own fault sounds like; a driver that finds no device says something else.
_FAULTS = (
    *("undefined symbol", "symbol not found", "cannot open shared object", "loading shared library"),
    *("manifest", "belongs to", "built for another", "its library is missing"),
)


def prove_wheel(
    wheel: Path,
    python: str,
    device: str,
    cache: Path,
    tell: Listener,
    environment: tuple[str, ...] = (),
    beside: Mapping[str, Path] | None = None,
    base: Path | None = None,
) -> Proof:
    """The proof on the wheel's own files, unpacked in a scratch folder, with `environment` (NAME=VALUE) set.

    `beside`: folders that lie beside the package where the engine runs, as those of other packages do, by
    their paths there. `base`: of a plugin, the wheel of the engine, which is unpacked beside it.

    Raises NotProvenError where the self-test fails, crashes, hangs or ran on another device.
    """
    home = cache / "proofs"
    with scratch_in(home, "tmp") as scratch:
        try:
            for part in (base, wheel) if base else (wheel,):
                with zipfile.ZipFile(part) as archive:
                    archive.extractall(scratch)
            for path, folder in (beside or {}).items():
                (scratch / path).parent.mkdir(parents=True, exist_ok=True)
                (scratch / path).symlink_to(folder, target_is_directory=True)
            extra = dict(pair.split("=", 1) for pair in environment) | {"PYTHONPATH": str(scratch)}
            if base:
                _check_plugin(python, extra)
            return _prove(python, device, scratch, extra, tell)
        except _Unproven as error:
            _check_room(scratch)
            log = home / "last.log"
            write_whole(log, error.log)
            # It may be mounted otherwise since the build began.
            check_runs_programs(cache)
            fix = "" if device == "CPU" else " Try another backend with --backend."
            raise NotProvenError(
                f"The engine was built, but it is not proven: {error}\n"
                f"Nothing was installed; what was installed before is untouched.{fix}\n"
                f"Everything the self-test said is in {log}",
                log=str(log),
            ) from error


def _check_room(scratch: Path) -> None:
    """Raises MissingError if the self-test had too little room for the model that it writes."""
    free = shutil.disk_usage(scratch).free
    if free < _ROOM:
        raise MissingError(
            f"The engine was built, but its self-test had no room: {show_size(free)} of space are free in "
            f"{scratch.parent}. Free space there, or name a folder on another disk in FLOATLLM_CACHE_DIR, "
            "and run this again."
        )


def prove_installed(python: str, site: Path, device: str, tell: Listener) -> Proof:
    """The proof on what is installed in the folder `site` of the environment of `python`.

    Raises NotProvenError, or MissingError if nothing may be run from that folder.
    """
    # Not in the cache: another tool may be at work there, and this proof need not wait for it.
    scratch = Path(tempfile.mkdtemp(prefix="floatllm-verify-"))
    try:
        return _prove(python, device, scratch, {}, tell)
    except _Unproven as error:
        check_loads_libraries(site)
        handle, log = tempfile.mkstemp(prefix="floatllm-verify-", suffix=".log")
        os.write(handle, error.log)
        os.close(handle)
        raise NotProvenError(
            f"The installed engine is not proven: {error}\nInstall it again with floatllm-build install. "
            f"Everything the self-test said is in {log}",
            log=log,
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def seen_devices(python: str) -> dict[str, str]:
    """The kind, such as "gpu", of each device that the engine of `python` sees; empty if it cannot say."""
    argv = (python, "-m", "floatllm", "devices", "--json")
    status, out, _ = hear(argv, _ANSWER_SECONDS, _clean_environment(), _LONGEST_ANSWER)
    try:
        devices = json.loads(out)["devices"] if status == 0 else []
        return {str(device["name"]): str(device["kind"]) for device in devices}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


class _Unproven(Exception):  # noqa: N818  becomes NotProvenError
    """Why, with the last lines; `log` is all that the self-test said."""

    def __init__(self, reason: str, lines: list[str]) -> None:
        super().__init__(reason.rstrip(". ") + "." + "".join(f"\n  {line}" for line in lines[-5:]))
        self.log = "".join(f"{line}\n" for line in lines).encode()


# Would have other code proven than the engine's own, as FLOATLLM_LIBRARY would, or hide the device.
_DROPPED = {
    *("PYTHONPATH", "PYTHONHOME", "GGML_BACKEND_PATH"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
}


def _clean_environment() -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED and not name.startswith("FLOATLLM_")
    }
    return {**env, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def _prove(python: str, device: str, scratch: Path, extra: dict[str, str], tell: Listener) -> Proof:
    report_path = scratch / "report.json"
    argv = (python, "-m", "floatllm.selftest", "--device", device, "--report", str(report_path))
    # What it writes goes with the scratch folder, even if it is killed.
    env = {**_clean_environment(), **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)), **extra}
    lines: list[str] = []
    rest = ""

    def take(text: str) -> None:
        nonlocal rest
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            lines.append(line.rstrip())
            tell(Proving(line.rstrip()))

    try:
        status = run_child(argv, cwd=scratch, env=env, on_text=take, timeout=_TIMEOUT)
    except TooLateError as error:
        raise _Unproven(f"its self-test did not end within {_TIMEOUT:.0f} s", lines) from error
    if rest.strip():
        take("\n")
    report = _read_report(report_path)
    if status < 0:
        raise _Unproven(f"its self-test was ended by signal {-status}", lines)
    if status != 0 or report.get("ok") is not True:
        raise _Unproven(str(report.get("reason") or f"its self-test ended with exit status {status}"), lines)
    if report.get("device") != device:
        raise _Unproven(f"it ran on {report.get('device')}, not on {device}", lines)
    return Proof(device=device, lines=tuple(lines), report=report)


def _check_plugin(python: str, extra: Mapping[str, str]) -> None:
    """On a machine without its driver a plugin cannot be loaded; any other reason is a fault of the wheel."""
    argv = (python, "-m", "floatllm", "devices", "--json")
    status, out, _ = hear(argv, _ANSWER_SECONDS, {**_clean_environment(), **extra}, _LONGEST_ANSWER)
    try:
        plugins = json.loads(out)["plugins"] if status == 0 else []
        reasons = [str(plugin["reason"]) for plugin in plugins if plugin["loaded"] is not True]
    except (ValueError, KeyError, TypeError, RecursionError):
        plugins, reasons = [], []
    wrong = [
        reason
        for reason in reasons
        if any(fault in reason for fault in _FAULTS) and not any(driver in reason for driver in _DRIVERS)
    ]
    if not plugins or wrong:
        raise _Unproven(
            f"the engine does not take the plugin: {'; '.join(wrong) or 'it is not found'}", wrong
        )


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}
