"""Puts a proven wheel into the target environment, and looks whether it arrived."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath

from floatllm_build.errors import InstallFailedError, MissingError
from floatllm_build.pip import install_command, last_lines
from floatllm_build.process import run_to_its_end
from floatllm_build.system import Completed, System
from floatllm_build.values import Target, Wheel
from floatllm_build.wheel_file import console_scripts, parse_record, platform_fits, read_record, record_hash


def holds(target: Target, wheel: Wheel) -> bool:
    """Whether the target has every file of the wheel, byte for byte, and the programs made for it."""
    if not target.installed:
        return False
    site = Path(target.installed).parent
    packed = read_record(Path(wheel.path))
    try:
        whole = all(record_hash((site / path).read_bytes()) == digest for path, digest in packed.items())
        installed = parse_record((Path(target.installed) / "RECORD").read_text(encoding="utf-8"))
        made = {path: digest for path, digest in installed.items() if path not in packed}
        return whole and all(_has_program(site, made, name) for name in console_scripts(Path(wheel.path)))
    except (OSError, ValueError):
        return False


def _has_program(site: Path, made: Mapping[str, str], name: str) -> bool:
    """Whether the installer's RECORD names the program `name` and it is there as the installer left it."""
    paths = [path for path in made if PurePath(path).name in {name, f"{name}.exe"}]
    return bool(paths) and all(
        (site / path).is_file() and made[path] in {"", record_hash((site / path).read_bytes())}
        for path in paths
    )


def check_tag(target: Target, wheel: Wheel) -> None:
    """Raises MissingError where the target's Python would not take the wheel."""
    if not platform_fits(Path(wheel.path), target):
        raise MissingError(
            f"The wheel {Path(wheel.path).name} was built by a Python for another platform than "
            f"{target.executable}, which is for {target.platform}. Install floatllm-build into that Python's "
            "environment and run it there."
        )


def install(system: System, target: Target, wheel: Wheel, cache: Path) -> None:
    """Installs, asking no index, and never stops half-way between the former engine and the new one.

    Raises MissingError where the installer is not there, InstallFailedError with its last words where it
    failed, and KeyboardInterrupt, once it has ended, where an interrupt came meanwhile.
    """
    command = install_command(system, target, Path(wheel.path), cache)
    by_hand = f"To try it alone: {shlex.join(command)}"
    try:
        status, said = run_to_its_end(command)
    except OSError as error:
        raise MissingError(
            f"The wheel is built and proven, but its installer {command[0]} cannot be started: {error}. "
            f"Repair that Python or name another with --python. {by_hand}"
        ) from error
    if status != 0:
        raise InstallFailedError(
            f"The wheel is built and proven, but it could not be installed into {target.prefix}:\n"
            f"{last_lines(Completed(rc=status, out=said, err=''))}\n"
            f"Look at free space and permissions there, and run this again. {by_hand}"
        )
