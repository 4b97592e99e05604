"""CUDA's libraries where the engine runs: packages of NVIDIA, in the environment that it is installed into.

The engine looks for them beside itself, in nvidia/cu13/lib, where PyTorch keeps them too: one cuBLAS of half
a gigabyte serves both, and nothing hangs on this tool's cache.
"""

from __future__ import annotations

from pathlib import Path

from floatllm_build.errors import InstallFailedError
from floatllm_build.pip import packages_command, run_call
from floatllm_build.sites import sites
from floatllm_build.system import System
from floatllm_build.values import PlannedToolkit, Target
from floatllm_build.versions import version_tuple

_LIBRARIES = ("cudart", "cublas", "cublasLt")


def has_runtime(target: Target, toolkit: PlannedToolkit) -> bool:
    """Whether the engine would find there all that it requires."""
    return not toolkit.requires or any(_serves(site, toolkit) for site in sites(target))


def libraries_beside(toolkit: PlannedToolkit) -> dict[str, Path]:
    """What those packages put beside the engine, as folders of the toolkit by their paths there."""
    home = Path(toolkit.nvcc).parents[1]
    if not toolkit.requires:
        return {}
    if home.parent.name == "nvidia":
        return {"nvidia": home.parent}
    # A toolkit of the system, in whose place packages come where a plugin is installed.
    folder = next((home / name for name in ("lib64", "lib") if (home / name).is_dir()), home)
    return {f"nvidia/cu{(version_tuple(toolkit.version) or (0,))[0]}/lib": folder}


def _serves(site: Path, toolkit: PlannedToolkit) -> bool:
    # Here, because an engine without CUDA never asks, and has the memory for its compilers.
    from packaging.requirements import Requirement  # noqa: PLC0415
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    folder = site / "nvidia" / Path(toolkit.nvcc).parents[1].name / "lib"
    found = {
        str(canonicalize_name(name)): version
        for path in site.glob("nvidia_*.dist-info")
        for name, _, version in [path.name.removesuffix(".dist-info").partition("-")]
    }
    wanted = map(Requirement, toolkit.requires)
    versions = all(one.specifier.contains(found.get(one.name, "0")) for one in wanted)
    return versions and all(any(folder.glob(f"lib{name}.so.*")) for name in _LIBRARIES)


def bring_runtime(
    system: System, target: Target, toolkit: PlannedToolkit, wheels: Path | None, cache: Path
) -> None:
    """Installs what is missing: from the folder `wheels`, or from the package index where that is None.

    Raises InstallFailedError with the installer's words; the engine that was there is untouched.
    """
    # What another folder of the same Python's path has satisfies pip, but does not lie beside the engine.
    for anew in (False, True):
        call = packages_command(system, target, toolkit.requires, wheels, cache, anew=anew)
        fetched = run_call(system, call, on_text=lambda _: None)
        if fetched.done.rc != 0:
            break
        # Of a system's own Python nobody knows where its pip puts things, before something is there.
        if not sites(target) or has_runtime(target, toolkit):
            return
    look = "Run this again when there is one."
    if not fetched.offline:
        look = "Look at free space and permissions there, and run this again."
    raise InstallFailedError(
        f"The wheel is built and proven, but CUDA's libraries ({', '.join(toolkit.requires)}) could not be "
        f"installed into {target.prefix}: {fetched.why}"
        f"The engine there is untouched. {look}"
    )
