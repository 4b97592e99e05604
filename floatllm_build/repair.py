"""Makes a portable wheel say which systems it is for, and pack the same bytes wherever it was built.

auditwheel or delocate look at it, and would also copy foreign libraries into it: none may be needed.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from floatllm_build.build_folder import Folder, child_environment, run_logged
from floatllm_build.errors import BuildFailedError
from floatllm_build.pip import last_lines
from floatllm_build.system import Completed
from floatllm_build.values import Plan, Repairer, ToolchainFacts, Wheel

# Parts of a driver, which belongs to the machine, and run-time libraries that packages of their vendor bring.
_FROM_ELSEWHERE = (
    *("libcuda.so.*", "libcudart.so.*", "libcublas.so.*", "libcublasLt.so.*"),
    *("libamdhip64.so*", "libhipblas.so*", "librocblas.so*", "libvulkan.so.*"),
)
# Of a plugin, the libraries of the wheel that it depends on.
_OF_THE_BASE = "libfloatllm*"
# No musl system has to have them, and no policy of musllinux lets a wheel rely on them.
_ON_MUSL = ("libstdc++", "libgcc_s")
# Set in the images that manylinux wheels are made in.
_PLATFORM = "AUDITWHEEL_PLAT"
_REPAIRED = ("manylinux", "musllinux")
_EARLIEST = (1980, 1, 1, 0, 0, 0)
_MODE = stat.S_IFREG | 0o644


def repair(wheel: Wheel, plan: Plan, toolchain: ToolchainFacts, repairer: Repairer, folder: Folder) -> Wheel:
    """{build}/repaired/*.whl, with the platform tag that was found, or that AUDITWHEEL_PLAT names.

    A wheel that has such a tag is returned as it is. Raises BuildFailedError with the repairer's last words,
    and where a foreign library would be copied.
    """
    source = Path(wheel.path)
    if source.stem.split("-")[-1].startswith(_REPAIRED):
        return wheel
    target = folder.root / "repaired"
    shutil.rmtree(target, ignore_errors=True)
    raw = target / "raw"
    raw.mkdir(parents=True)
    env = _environment(child_environment(plan, toolchain), repairer)
    argv = (*repairer.command, *_options(plan, repairer, raw), str(source))
    status, text = run_logged(argv, folder, env, target)
    made = list(raw.glob("*.whl"))
    if status != 0 or len(made) != 1:
        said = last_lines(Completed(rc=status, out=text, err=""), 4)
        raise BuildFailedError(
            f"The wheel was built, but {repairer.name} {repairer.version} finds no systems that it is for:\n"
            f"{said}\nUnset AUDITWHEEL_PLAT where it is set, or build in an image with an older C library. "
            f"Everything it said is in {folder.log}",
            log=str(folder.log),
        )
    foreign = sorted(_members(made[0]) - _members(source))
    copied = [path for path in foreign if not _is_expected(path, made[0])]
    if copied:
        raise BuildFailedError(
            f"The wheel was built, but it needs {_names(copied)}, which not every system has: a portable "
            "wheel holds no library but its own. Switch off what needs it (CMAKE_ARGS), or link it in, "
            f"and run this again.\nEverything that {repairer.name} said is in {folder.log}",
            log=str(folder.log),
        )
    whole = target / made[0].name
    pack_again(made[0], whole)
    shutil.rmtree(raw)
    return replace(wheel, path=str(whole))


def _options(plan: Plan, repairer: Repairer, target: Path) -> tuple[str, ...]:
    if repairer.name == "delocate":
        # It looks for a part of the path, not for a pattern.
        return ("--wheel-dir", str(target), *(("--exclude", _OF_THE_BASE[:-1]) if plan.plugin else ()))
    outside = (*_FROM_ELSEWHERE, *((_OF_THE_BASE,) if plan.plugin else ()))
    # Without --plat, so that AUDITWHEEL_PLAT of the manylinux images holds.
    return (
        *("repair", "--wheel-dir", str(target)),
        *(word for pattern in outside for word in ("--exclude", pattern)),
    )


def _environment(env: Mapping[str, str], repairer: Repairer) -> dict[str, str]:
    """Nothing that the user set for other wheels decides about ours."""
    plain = {
        name: value for name, value in env.items() if not name.startswith("AUDITWHEEL_") or name == _PLATFORM
    }
    return plain | dict(pair.split("=", 1) for pair in repairer.variables)


def _members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def _is_expected(path: str, wheel: Path) -> bool:
    """Whether a repaired wheel may have this file, which the one before had not."""
    if path.partition("/")[0].endswith(".dist-info"):
        return True
    return "-musllinux_" in wheel.name and Path(path).name.startswith(_ON_MUSL)


def _names(paths: list[str]) -> str:
    """`libfoo-0a1b2c3d.so.1` is a copy of libfoo.so.1."""
    names = sorted({re.sub(r"-[0-9a-f]{8}(?=\.)", "", Path(path).name) for path in paths})
    return ", ".join(names)


def pack_again(source: Path, target: Path) -> None:
    """The same files, in one order and with one time and one mode, whatever the umask and the clock are."""
    with (
        zipfile.ZipFile(source) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for name in sorted(_members(source), key=_place):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.external_attr = _MODE << 16
            entry.create_system = 3
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, old.read(name))


def _place(name: str) -> tuple[bool, bool, str]:
    """What is said about the files comes behind them, and the list of them last."""
    return (".dist-info/" in name, name.endswith("/RECORD"), name)
