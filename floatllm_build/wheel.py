"""Assembles the wheel, and keeps proven ones: {cache}/wheels/<key>/."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

from floatllm_build.build_folder import Folder, child_environment, cmake_options, failure, run_logged
from floatllm_build.files import scratch_in, write_whole
from floatllm_build.values import Plan, Proof, ToolchainFacts, Wheel, to_json

_PROOF = "proof.json"
# Former wheels that stay at hand, for instance while someone goes back and forth between two versions.
_KEPT = 8


def package(plan: Plan, toolchain: ToolchainFacts, ggml_folder: str, folder: Folder, key: str) -> Wheel:
    """Packs {build}/wheel/*.whl: the engine's, or the plugin's.

    Raises BuildFailedError with the first errors and the log's path.
    """
    target = folder.root / "wheel"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    # scikit-build-core throws objects away when it finds that another installation of it was here.
    (folder.out / ".skbuild-info.json").unlink(missing_ok=True)
    settings = {
        "build-dir": str(folder.out),
        "cmake.args": list(cmake_options(plan, toolchain, ggml_folder, folder)),
        "build.verbose": "false",
        "build.tool-args": [f"-j{plan.jobs}"],
    }
    argv = (sys.executable, "-m", "floatllm_build.build.skbuild", str(target), json.dumps(settings))
    status, text = run_logged(argv, folder, child_environment(plan, toolchain), folder.project(plan.plugin))
    wheels = list(target.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise failure("Packaging", text, folder)
    return Wheel(path=str(wheels[0]), key=key, reused=False)


def find_cached(cache: Path, key: str) -> Wheel | None:
    """A wheel that was built from the same inputs, and proven."""
    folder = cache / "wheels" / key
    wheels = list(folder.glob("*.whl"))
    whole = len(wheels) == 1 and (folder / _PROOF).is_file() and zipfile.is_zipfile(wheels[0])
    if not whole:
        return None
    # Young again: it may be wanted until the next one, which depends on it, is made.
    os.utime(folder)
    return Wheel(path=str(wheels[0]), key=key, reused=True)


def keep(cache: Path, wheel: Wheel, proof: Proof, *, whole: bool) -> Wheel:
    """Moves a proven wheel with its proof into the cache.

    One that is not `whole`, because memory was short, is installed and never taken again: there may be more
    memory the next time.
    """
    home = cache / "wheels"
    with scratch_in(home, ".new-") as scratch:
        name = Path(wheel.path).name
        shutil.copy2(wheel.path, scratch / name)
        name_of_proof = _PROOF if whole else f"not-whole-{_PROOF}"
        write_whole(scratch / name_of_proof, json.dumps(to_json(proof), indent=1).encode())
        folder = home / wheel.key
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    by_age = sorted(home.iterdir(), key=lambda former: former.stat().st_mtime_ns, reverse=True)
    for former in by_age[_KEPT:]:
        shutil.rmtree(former, ignore_errors=True)
    return Wheel(path=str(folder / name), key=wheel.key, reused=False)
