"""Takes the engine and its plugins out of an environment again, by that environment's own installer."""

from __future__ import annotations

import shlex
from pathlib import Path

from floatllm_build.distributions import Distribution, distributions
from floatllm_build.errors import InstallFailedError, MissingError
from floatllm_build.pip import last_lines, uninstall_command
from floatllm_build.process import run_to_its_end
from floatllm_build.sites import sites
from floatllm_build.system import Completed, System
from floatllm_build.upkeep import Left
from floatllm_build.values import Target

ENGINE = "floatllm"


def find_ours(target: Target, plugins: tuple[str, ...]) -> tuple[Distribution, ...]:
    """The engine and those of `plugins` (floatllm-vulkan) that are there; the engine comes first."""
    found = distributions(sites(target))
    return tuple(one for name in (ENGINE, *plugins) for one in found if one.name == name)


def find_left(target: Target, ours: tuple[Distribution, ...]) -> tuple[Left, ...]:
    """What only `ours` may have brought along, and who else needs it."""
    names = {one.name for one in ours}
    there = distributions(sites(target))
    wanted = {name for one in ours for name in one.requires} - names
    return tuple(
        Left(
            name=one.name,
            size=one.size,
            needed_by=tuple(
                other.name for other in there if one.name in other.requires and other.name not in names
            ),
        )
        for one in there
        if one.name in wanted
    )


def uninstall(system: System, target: Target, ours: tuple[Distribution, ...], cache: Path) -> None:
    """Removes them, and never stops half-way.

    Raises MissingError if the environment belongs to the system or has no installer, and InstallFailedError
    with the installer's words if something stayed.
    """
    names = tuple(one.name for one in ours)
    if target.externally_managed:
        forced = (target.executable, "-m", "pip", "uninstall", "--break-system-packages", *names)
        raise MissingError(
            f"{target.prefix} belongs to the system's package manager, and this tool changes nothing there. "
            f"What was installed there by force goes by force: {shlex.join(forced)}"
        )
    call = uninstall_command(system, target, names, cache)
    command = call.argv
    try:
        status, said = run_to_its_end(command, call.env)
    except OSError as error:
        raise MissingError(
            f"The installer {command[0]} cannot be started: {error}. Repair that Python, or delete "
            f"{', '.join(str(one.info) for one in ours)} and the packages of the same names."
        ) from error
    stayed = [one for one in ours if one.info.is_dir()]
    if status != 0 or stayed:
        what = ", ".join(one.name for one in stayed) or "Nothing of it"
        raise InstallFailedError(
            f"{what} could not be removed from {target.prefix}:\n"
            f"{last_lines(Completed(rc=status, out=said, err=''))}\n"
            f"Look at the permissions there, and run this again. To try it alone: {shlex.join(command)}"
        )


def find_strays(ours: tuple[Distribution, ...]) -> tuple[str, ...]:
    """Folders of the removed packages that hold something still, which no installer had put there."""
    folders = (one.info.parent / one.name.replace("-", "_") for one in ours)
    return tuple(str(folder) for folder in folders if folder.is_dir())
