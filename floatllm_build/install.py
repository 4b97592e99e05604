"""Puts a proven wheel into the target environment, and looks whether it arrived."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePath

from floatllm_build.errors import InstallFailedError, MissingError
from floatllm_build.files import remove_folder, write_refusal
from floatllm_build.pip import install_command, last_lines
from floatllm_build.process import run_to_its_end
from floatllm_build.sites import live_folder, place_of, sites
from floatllm_build.sizes import show_size
from floatllm_build.system import Completed, System
from floatllm_build.values import Target, Wheel
from floatllm_build.wheel_file import console_scripts, parse_record, platform_fits, read_record, record_hash

# For the modules that the installer compiles, and for its own lists.
_COMPILED = 2 << 20


def holds(target: Target, wheel: Wheel) -> bool:
    """Whether the target has every file of the wheel, byte for byte, and the programs made for it.

    Of an editable engine the modules in the sources count.
    """
    if not target.installed:
        return False
    site = Path(target.installed).parent
    live = live_folder(site)
    packed = read_record(Path(wheel.path))
    try:
        whole = all(
            record_hash(place_of(path, site, live).read_bytes()) == digest for path, digest in packed.items()
        )
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


def check_writable(target: Target) -> None:
    """Raises MissingError where nothing can be written into the target.

    Pip finds that out when it has already taken the former program away, and does not bring it back.
    """
    for site in sites(target):
        if refusal := write_refusal(site):
            raise MissingError(
                f"Nothing can be written to {site}: {refusal}. Make it writable, or name the Python of "
                "another environment with --python."
            )


def _check_space(target: Target, wheel: Path) -> None:
    """Raises InstallFailedError where the former engine and the new one do not fit beside each other.

    Pip keeps the former until the new one is written, and cannot bring back all of it on a full disk.
    """
    if not zipfile.is_zipfile(wheel):
        return  # The installer has the words for that.
    with zipfile.ZipFile(wheel) as archive:
        needed = sum(member.file_size for member in archive.infolist()) + _COMPILED
    for site in sites(target):
        free = shutil.disk_usage(site).free
        if free < needed:
            raise InstallFailedError(
                f"The wheel is built and proven, but its files need {show_size(needed)} in {site}, where "
                f"{show_size(free)} are free: No space left on device. Nothing there was changed. Free space "
                "there, and run this again."
            )


def _clear(target: Target) -> None:
    try:
        clear_remains(target)
    except OSError as error:
        raise InstallFailedError(
            f"The wheel is built and proven, but what a killed installer left in {target.prefix} cannot be "
            f"put right: {error}. Look at the permissions there, and run this again."
        ) from error


def clear_remains(target: Target) -> None:
    """Puts right what a pip that was killed has left, which the next installer would stumble over.

    Pip moves the former engine aside, under names that start with `~`, writes the new one, its RECORD last,
    and then deletes the former. Where the new one has no RECORD it is deleted, and the former comes back.
    """
    for site in sites(target):
        for path in _aside(site):
            # Pip makes a folder to have the name, deletes it and renames the former to it.
            with contextlib.suppress(OSError):
                path.rmdir()
        aside = {path.name: path for path in _aside(site)}
        infos = list(site.glob("floatllm-*.dist-info"))
        whole = [info for info in infos if (info / "RECORD").is_file() and (info / "METADATA").is_file()]
        former = [path for name, path in aside.items() if name.endswith(".dist-info")]
        if not whole:
            for info in infos:
                remove_folder(info)
            if infos and not former:
                # Half of the new one; there was no former.
                remove_folder(site / "floatllm")
            for path in former:
                path.rename(site / f"f{path.name[1:]}")
        moved = aside.get("~loatllm")
        if moved and (not whole or not (site / "floatllm").is_dir()):
            remove_folder(site / "floatllm")
            moved.rename(site / "floatllm")
        for path in aside.values():
            remove_folder(path)
        # Beside a file that it does not know, pip moves files one by one, to where nobody finds them.
        for path in (*site.glob("floatllm-*.dist-info/*.tmp"), *site.glob("floatllm/**/__pycache__/*.pyc.*")):
            path.unlink()


def _aside(site: Path) -> list[Path]:
    """What pip moved aside of the engine; not `~loatllm_build`, which is this tool's."""
    return [*site.glob("~loatllm"), *site.glob("~loatllm-*.dist-info")]


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

    An installer that is killed cannot put things right itself: that is done for it, and it is started once
    more.

    Raises MissingError where the installer is not there, InstallFailedError with its last words where it
    failed, and KeyboardInterrupt, once it has ended, where an interrupt came meanwhile.
    """
    _check_space(target, Path(wheel.path))
    call = install_command(system, target, Path(wheel.path), cache)
    command = call.argv
    by_hand = f"To try it alone: {shlex.join(command)}"
    _clear(target)
    try:
        status, said = run_to_its_end(command, call.env)
        if status < 0:
            _clear(target)
            status, said = run_to_its_end(command, call.env)
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
