"""Assembles the wheel, and keeps proven ones: {cache}/wheels/<key>/."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from floatllm_build.build_folder import Folder, child_environment, cmake_options, failure, run_logged
from floatllm_build.files import scratch_in, settle, sha256_file, write_whole
from floatllm_build.trust import is_ours
from floatllm_build.values import Plan, Proof, ToolchainFacts, Wheel, to_json

_PROOF = "proof.json"
# In the proof: the SHA-256 of the wheel that was proven.
_DIGEST = "wheel_sha256"
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
    """A wheel that was built from the same inputs, and proven. Writes nothing."""
    folder = cache / "wheels" / key
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1 or not _is_proven(wheels[0], folder / _PROOF):
        return None
    return Wheel(path=str(wheels[0]), key=key, reused=True)


def take_cached(cache: Path, key: str) -> Wheel | None:
    """What `find_cached` finds, made young again. For who holds the cache's lock.

    A plugin's wheel, which is made next, may depend on it.
    """
    found = find_cached(cache, key)
    if found:
        os.utime(Path(found.path).parent)
    return found


def _is_proven(wheel: Path, proof: Path) -> bool:
    """Whether the proof is of exactly this file, and both are ours."""
    try:
        # A pipe would hold us up.
        ours = all(map(is_ours, (proof.parent, proof, wheel))) and proof.is_file() and wheel.is_file()
        told = json.loads(proof.read_text(encoding="utf-8")) if ours else {}
        return bool(told[_DIGEST] == sha256_file(wheel))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def keep(cache: Path, wheel: Wheel, proof: Proof, *, whole: bool) -> Wheel:
    """Moves a proven wheel with its proof into the cache.

    One that is not `whole`, because memory was short, is installed and never taken again: there may be more
    memory the next time.
    """
    home = cache / "wheels"
    with scratch_in(home, ".new-") as scratch:
        name = Path(wheel.path).name
        shutil.copy2(wheel.path, scratch / name)
        # The digest of what was proven, and not of what the copy may have become.
        told = {**to_json(proof), _DIGEST: sha256_file(Path(wheel.path))}
        write_whole(scratch / _PROOF, json.dumps(told, indent=1).encode())
        settle(scratch / name, scratch)
        # By the name, which an installer notes, the engine is known once its wheel is gone.
        folder = home / (wheel.key if whole else f"{wheel.key}-not-whole")
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
        settle(home)
    by_age = sorted(home.iterdir(), key=lambda former: former.stat().st_mtime_ns, reverse=True)
    for former in by_age[_KEPT:]:
        shutil.rmtree(former, ignore_errors=True)
    return Wheel(path=str(folder / name), key=folder.name, reused=False)
