"""Runs the installers: a Python's own pip, uv, or the pip that we have, each heeding what it should."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.files import scratch_in
from floatllm_build.network import proxy_variables, refusal, servers
from floatllm_build.paths import cache_dir
from floatllm_build.pip_settings import Setting, advice, for_pip, index_settings, pip_sections
from floatllm_build.process import run_child
from floatllm_build.sealed import is_whole, seal
from floatllm_build.start import changed
from floatllm_build.system import Completed, System, Variables
from floatllm_build.trust import check_cache, check_inside
from floatllm_build.uv_settings import for_fetching, for_local_wheels, uv_files
from floatllm_build.values import Target

QUIET = ("--disable-pip-version-check", "--no-input")
_TIMEOUT = 900.0
_NO_RETRIES = ("--retries", "0")
# The first whose option --python installs into another environment (pip's changelog, 2022-10-15).
_INTO_ANOTHER = (22, 3)
# ENOSPC in words: of Linux and macOS, and of Windows (ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL).
_FULL = ("No space left on device", "not enough space on the disk", "[WinError 39]", "[WinError 112]")
# Bytes. Pip writes no package into less.
_NEXT_TO_NOTHING = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Call:
    """A command of an installer, and what is changed in its environment."""

    argv: tuple[str, ...]
    variables: Variables
    settings: tuple[Setting, ...] = ()
    """Of the user's, those that it heeds."""
    pip: tuple[str, ...] = ()
    """The pip in it, if that asks an index."""

    @property
    def env(self) -> dict[str, str]:
        return changed({**os.environ, "LC_ALL": "C"}, self.variables)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """How a fetch through pip ended. `offline` says in words that no server could be reached, and why."""

    done: Completed
    offline: str = ""
    settings: tuple[Setting, ...] = ()
    proxies: tuple[str, ...] = ()
    """The variables that name a proxy."""

    @property
    def why(self) -> str:
        """Of one that failed: why, and what to look at. Follows a colon; ends with a space or a line."""
        full = disk_is_full(self.done)
        if full:
            return f"{full}\n"
        if self.offline:
            return f"{self.offline}. {self._by_whose_settings}"
        return f"pip said\n{last_lines(self.done)}\n{advice(self.settings)}"

    @property
    def _by_whose_settings(self) -> str:
        proxies = ", ".join(self.proxies)
        words = f"{proxies} names a proxy: check that it is right. " if proxies else ""
        return words + advice(self.settings)


def own_pip(system: System, cache: Path) -> tuple[str, ...]:
    """The command of a pip that runs in this tool's own environment.

    Raises MissingError where neither the environment nor Python's own bundle nor uv has one, and where that
    of uv would lie in a cache that is not ours alone.
    """
    # Pip itself builds in an environment where PYTHONPATH hides the one that it runs in, and so itself.
    for flags in ((), ("-E",)):
        command = (sys.executable, *flags, "-m", "pip")
        done = system.run((*command, "--version"), timeout=60.0, variables=for_pip(os.environ, ()))
        if done.rc == 0:
            return command
    bundled = system.glob(f"{sysconfig.get_path('stdlib')}/ensurepip/_bundled/pip-*.whl")
    if bundled:
        # A wheel of pip runs as it is: `python pip-25.whl/pip`.
        return (sys.executable, f"{bundled[-1]}/pip")
    folder = cache / "tools" / "pip"
    # `uninstall` takes no lock where there is no cache yet, and so nobody has looked at its owner.
    check_cache(cache)
    check_inside(cache, ("tools",))
    if not is_whole(folder) or not (folder / "pip" / "__main__.py").is_file():
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


def _pip_from_outside(system: System, target: Target, cache: Path) -> tuple[str, ...]:
    """The command of a pip that installs into a target that has none. Raises MissingError."""
    pip = own_pip(system, cache)
    said = system.run((*pip, "--version"), timeout=60.0, variables=for_pip(os.environ, ())).out
    found = re.match(r"pip (\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) >= _INTO_ANOTHER:
        return (*pip, "--python", target.executable)
    # An older one has to run in the target: as a wheel, which that Python's own bundle fits best.
    ask = "import ensurepip, os; print(os.path.dirname(ensurepip.__file__))"
    answer = system.run((target.executable, "-I", "-c", ask), timeout=60.0)
    own = f"{sysconfig.get_path('stdlib')}/ensurepip"
    for folder in (answer.out.strip(), own) if answer.rc == 0 else (own,):
        wheels = system.glob(f"{folder}/_bundled/pip-*.whl")
        if wheels:
            return (target.executable, f"{wheels[-1]}/pip")
    raise MissingError(
        f"{target.executable} has no pip, and the pip of this tool ({said.split(' from ')[0].strip()}) is "
        f"too old to install into another environment. Run `{target.executable} -m ensurepip`, or "
        f"`{sys.executable} -m pip install --upgrade pip`, and run this again; what is built is kept."
    )


def _pip_by_uv(system: System, uv: str, folder: Path) -> Completed:
    """Puts pip into `folder`, whole or not at all."""
    with scratch_in(folder.parent, ".pip-") as scratch:
        # Links into uv's cache, as its settings may want them, could be changed there.
        to = ("--link-mode", "copy", "--target", str(scratch / "pip"))
        command = (uv, "pip", "install", "--no-config", *to, "pip")
        variables = for_fetching(os.environ, uv_files(os.environ))
        done = system.run(command, timeout=_TIMEOUT, variables=variables)
        if done.rc == 0:
            seal(scratch / "pip")
            shutil.rmtree(folder, ignore_errors=True)
            (scratch / "pip").rename(folder)
        return done


def fetch_with_pip(
    system: System,
    cache: Path,
    command: str,
    *arguments: str,
    variables: Variables | None = None,
    on_text: Callable[[str], None] | None = None,
    asks: bool = True,
) -> Fetched:
    """Runs our own pip: with the user's index settings, if it `asks` an index, else with none.

    `on_text` gets what it says as it comes. Raises MissingError where there is no pip.
    """
    pip = own_pip(system, cache)
    settings = index_settings(command, os.environ, pip_sections(os.environ, sys.prefix)) if asks else ()
    call = Call(
        argv=(*pip, command, *QUIET, *arguments),
        variables={**for_pip(os.environ, settings), **(variables or {})},
        settings=settings,
        pip=pip if asks else (),
    )
    return run_call(system, call, on_text)


def run_call(system: System, call: Call, on_text: Callable[[str], None] | None = None) -> Fetched:
    """Runs an installer; `on_text` gets what it says as it comes.

    Pip tries a server five times more, each after a longer wait, before it gives up. So its first run tries
    once. If that fails and a server can be reached, a second run tries as often as the user wants.
    """

    def run(*more: str) -> Completed:
        argv = (*call.argv, *more)
        if on_text is None:
            return system.run(argv, timeout=_TIMEOUT, variables=call.variables)
        said: list[str] = []

        def take(text: str) -> None:
            said.append(text)
            on_text(text)

        status = run_child(argv, cwd=None, env=call.env, on_text=take)
        return Completed(rc=status, out="".join(said), err="")

    done, offline, asked = run(*(_NO_RETRIES if call.pip else ())), "", None
    if done.rc != 0 and call.pip and not disk_is_full(done):
        asked = servers(system, call.pip, call.settings)
        offline = refusal(system, asked) if asked else ""
        if asked != () and not offline:
            done = run()
    proxies = proxy_variables(call.env, asked or ()) if offline else ()
    return Fetched(done=done, offline=offline, settings=call.settings, proxies=proxies)


def install_command(system: System, target: Target, wheel: Path, cache: Path) -> Call:
    """The command that puts exactly this wheel into the target, asking no index.

    Raises MissingError where no installer can be found.
    """
    pip = ("--no-deps", "--force-reinstall", "--no-index", str(wheel))
    return _install(system, target, cache, pip=pip, uv=("--no-deps", "--reinstall", "--offline", str(wheel)))


def uninstall_command(system: System, target: Target, names: tuple[str, ...], cache: Path) -> Call:
    """The command that removes these packages from the target. Raises MissingError as `install_command`."""
    return _call(system, target, cache, "uninstall", pip=("--yes", *names), uv=names)


def packages_command(
    system: System,
    target: Target,
    wanted: tuple[str, ...],
    wheels: Path | None,
    cache: Path,
    *,
    anew: bool = False,
) -> Call:
    """The command that brings packages into the target where they are not there: from a folder of wheels and
    nowhere else, or from the index where that is None. `anew`: even where they are elsewhere on its path.

    Raises MissingError where no installer can be found.
    """
    source = ("--no-index", "--find-links", str(wheels)) if wheels else ()
    pip = (*source, *(("--ignore-installed",) if anew else ()), *wanted)
    uv = (*source, *(("--reinstall",) if anew else ()), *wanted)
    return _install(system, target, cache, pip=pip, uv=uv, asks=wheels is None)


def _install(
    system: System,
    target: Target,
    cache: Path,
    *,
    pip: tuple[str, ...],
    uv: tuple[str, ...],
    asks: bool = False,
) -> Call:
    return _call(system, target, cache, "install", pip=pip, uv=uv, asks=asks)


def _call(
    system: System,
    target: Target,
    cache: Path,
    command: str,
    *,
    pip: tuple[str, ...],
    uv: tuple[str, ...],
    asks: bool = False,
) -> Call:
    """The target's installer with the options that are its own; `asks` an index, as the user says."""
    program = None if target.has_pip else system.which("uv")
    if program:
        argv = (program, "pip", command, "--no-config", "--python", target.executable, *uv)
        env = os.environ
        return Call(
            argv=argv,
            variables=for_fetching(env, uv_files(env)) if asks else for_local_wheels(env),
        )
    # Isolated from settings for whoever repeats the command by hand.
    alone = () if asks else ("--isolated",)
    if target.has_pip:
        runs: tuple[str, ...] = (target.executable, "-m", "pip")
        prefix = target.prefix
    else:
        runs, prefix = _pip_from_outside(system, target, cache), sys.prefix
    settings = index_settings(command, os.environ, pip_sections(os.environ, prefix)) if asks else ()
    return Call(
        argv=(*runs, command, *QUIET, *alone, *pip),
        variables=for_pip(os.environ, settings),
        settings=settings,
        pip=runs if asks else (),
    )


def disk_is_full(done: Completed) -> str:
    """What to do where that is why pip failed; else empty."""
    if done.rc == 0:
        return ""
    lines = f"{done.out}\n{done.err}".splitlines()
    said = next((line for line in reversed(lines) if any(words in line for words in _FULL)), "")
    said = said or _full_disk()
    if not said:
        return ""
    return (
        f"the disk is full.\n{said}\nFree space there (pip works in TMPDIR as well), or name a folder on "
        "another disk in FLOATLLM_CACHE_DIR, and run this again."
    )


def _full_disk() -> str:
    """Pip's words differ by system and language; the disk itself tells as well."""
    for folder in (cache_dir(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(folder).free
            if free < _NEXT_TO_NOTHING:
                return f"{folder} has {free} bytes left."
    return ""


def last_lines(done: Completed, count: int = 6) -> str:
    """The end of what a command said, errors before output."""
    text = done.err.strip() or done.out.strip() or f"exit status {done.rc}"
    return "\n".join(text.splitlines()[-count:])
