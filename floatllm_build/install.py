"""Puts a proven wheel into the target environment, and looks whether it arrived."""

from __future__ import annotations

from pathlib import Path

from floatllm_build.errors import FloatllmBuildError, MissingError
from floatllm_build.pip import install_command, last_lines
from floatllm_build.system import System
from floatllm_build.values import Target, Wheel
from floatllm_build.wheel import platform_fits, read_record, record_hash

_TIMEOUT = 600.0


def holds(target: Target, wheel: Wheel) -> bool:
    """Whether the target has every file of the wheel, byte for byte."""
    if not target.installed:
        return False
    site = Path(target.installed).parent
    try:
        return all(
            record_hash((site / path).read_bytes()) == digest
            for path, digest in read_record(Path(wheel.path)).items()
        )
    except OSError:
        return False


def check_platform(own: str, target: Target) -> None:
    """Raises MissingError where this tool's Python builds for another platform than the target's.

    Two Pythons of a Mac may differ in the version of the system: check_tag() decides about that.
    """
    macs = own.startswith("macosx") and target.platform.startswith("macosx")
    same = own.rpartition("-")[2] == target.platform.rpartition("-")[2] if macs else own == target.platform
    if not same:
        raise MissingError(
            f"This floatllm-build runs in a Python for {own} and builds for that; {target.executable} is for "
            f"{target.platform}. Install floatllm-build into that Python's environment and run it there."
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
    """Installs, asking no index. Raises FloatllmBuildError with the installer's last words."""
    command = install_command(system, target, Path(wheel.path), cache)
    done = system.run(command, timeout=_TIMEOUT)
    if done.rc != 0:
        raise FloatllmBuildError(
            f"The wheel is built and proven, but it could not be installed into {target.prefix}:\n"
            f"{last_lines(done)}\nThe wheel is {wheel.path}"
        )
