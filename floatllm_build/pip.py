"""Finds the installer that a Python has: its own pip, uv, or the pip that we have."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.files import scratch_in
from floatllm_build.system import Completed, System
from floatllm_build.values import Target

QUIET = ("--disable-pip-version-check", "--no-input")
_TIMEOUT = 900.0


def own_pip(system: System, cache: Path) -> tuple[str, ...]:
    """The command of a pip that runs in this tool's own environment.

    Raises MissingError where neither the environment nor Python's own bundle nor uv has one.
    """
    # Pip itself builds in an environment where PYTHONPATH hides the one that it runs in, and so itself.
    for flags in ((), ("-E",)):
        command = (sys.executable, *flags, "-m", "pip")
        if system.run((*command, "--version"), timeout=60.0).rc == 0:
            return command
    bundled = system.glob(f"{sysconfig.get_path('stdlib')}/ensurepip/_bundled/pip-*.whl")
    if bundled:
        # A wheel of pip runs as it is: `python pip-25.whl/pip`.
        return (sys.executable, f"{bundled[-1]}/pip")
    folder = cache / "tools" / "pip"
    if not (folder / "pip").is_dir():
        uv = system.which("uv")
        done = (
            _pip_by_uv(system, uv, folder) if uv else Completed(rc=127, out="", err="there is no uv either")
        )
        if done.rc != 0:
            raise MissingError(
                f"The Python that runs this tool ({sys.executable}) has no pip, and none could be had: "
                f"{last_lines(done)}. Run `{sys.executable} -m ensurepip`, or install python3-pip."
            )
    return (sys.executable, str(folder / "pip"))


def _pip_by_uv(system: System, uv: str, folder: Path) -> Completed:
    """Puts pip into `folder`, whole or not at all."""
    with scratch_in(folder.parent, ".pip-") as scratch:
        command = (uv, "pip", "install", "--target", str(scratch / "pip"), "pip")
        done = system.run(command, timeout=_TIMEOUT)
        if done.rc == 0:
            shutil.rmtree(folder, ignore_errors=True)
            (scratch / "pip").rename(folder)
        return done


def fetch_with_pip(
    system: System, cache: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> Completed:
    """Runs pip with the user's own index settings."""
    pip = own_pip(system, cache)
    return system.run((*pip, arguments[0], *QUIET, *arguments[1:]), timeout=_TIMEOUT, variables=variables)


def install_command(system: System, target: Target, wheel: Path, cache: Path) -> tuple[str, ...]:
    """The command that puts exactly this wheel into the target, asking no index.

    Raises MissingError where no installer can be found.
    """
    pip = ("--no-deps", "--force-reinstall", "--no-index", str(wheel))
    return _install(system, target, cache, pip=pip, uv=("--no-deps", "--reinstall", "--offline", str(wheel)))


def uninstall_command(system: System, target: Target, names: tuple[str, ...], cache: Path) -> tuple[str, ...]:
    """The command that removes these packages from the target. Raises MissingError as `install_command`."""
    return _run(system, target, cache, pip=("uninstall", *QUIET, "--yes", *names), uv=("uninstall", *names))


def packages_command(
    system: System,
    target: Target,
    wanted: tuple[str, ...],
    wheels: Path | None,
    cache: Path,
    *,
    anew: bool = False,
) -> tuple[str, ...]:
    """The command that brings packages into the target where they are not there: from a folder of wheels and
    nowhere else, or from the index where that is None. `anew`: even where they are elsewhere on its path.

    Raises MissingError where no installer can be found.
    """
    source = ("--no-index", "--find-links", str(wheels)) if wheels else ()
    pip = (*source, *(("--ignore-installed",) if anew else ()), *wanted)
    return _install(
        system, target, cache, pip=pip, uv=(*source, *(("--reinstall",) if anew else ()), *wanted)
    )


def _install(
    system: System, target: Target, cache: Path, *, pip: tuple[str, ...], uv: tuple[str, ...]
) -> tuple[str, ...]:
    return _run(system, target, cache, pip=("install", *QUIET, *pip), uv=("install", *uv))


def _run(
    system: System, target: Target, cache: Path, *, pip: tuple[str, ...], uv: tuple[str, ...]
) -> tuple[str, ...]:
    """The target's installer with a command (first) and options that are its own."""
    if target.has_pip:
        return (target.executable, "-m", "pip", *pip)
    program = system.which("uv")
    if program:
        return (program, "pip", uv[0], "--python", target.executable, *uv[1:])
    return (*own_pip(system, cache), "--python", target.executable, *pip)


def disk_is_full(done: Completed) -> str:
    """What to do where that is why pip failed; else empty."""
    said = [line for line in f"{done.out}\n{done.err}".splitlines() if "No space left on device" in line]
    if not said:
        return ""
    return (
        f"the disk is full.\n{said[-1]}\nFree space there (pip works in TMPDIR as well), or name a folder on "
        "another disk in FLOATLLM_CACHE_DIR, and run this again."
    )


def last_lines(done: Completed, count: int = 6) -> str:
    """The end of what a command said, errors before output."""
    text = done.err.strip() or done.out.strip() or f"exit status {done.rc}"
    return "\n".join(text.splitlines()[-count:])
