"""Configures with cmake and compiles with ninja, in one build folder, with one log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping

from floatllm_build.build_folder import Folder, child_environment, cmake_options, failure, run_logged
from floatllm_build.events import Listener, UnitProgress
from floatllm_build.ninja import NinjaReader
from floatllm_build.process import run_child
from floatllm_build.values import Built, Plan, ToolchainFacts


def build(plan: Plan, toolchain: ToolchainFacts, ggml_folder: str, folder: Folder, tell: Listener) -> Built:
    """Configures and compiles. Raises BuildFailedError with the first errors and the log's path."""
    started = time.monotonic()
    env = child_environment(plan, toolchain)
    cmake = toolchain.cmake.path if toolchain.cmake else "cmake"
    ninja = toolchain.ninja.path if toolchain.ninja else "ninja"
    folder.log.parent.mkdir(parents=True, exist_ok=True)
    folder.log.unlink(missing_ok=True)
    if not (folder.out / "build.ninja").is_file():
        # A configuration that was broken off may have left a cache that looks whole.
        shutil.rmtree(folder.out, ignore_errors=True)
    options = cmake_options(plan, toolchain, ggml_folder)
    configure = (cmake, "-S", str(folder.native), "-B", str(folder.out), *options)
    _logged(configure, folder, env, "configuring")
    units = _ninja((ninja, "-C", str(folder.out), f"-j{plan.jobs}"), folder, env, tell, started)
    return Built(folder=str(folder.out), units=units, seconds=time.monotonic() - started, log=str(folder.log))


def _logged(argv: tuple[str, ...], folder: Folder, env: Mapping[str, str], what: str) -> None:
    status, text = run_logged(argv, folder, env, folder.native)
    if status != 0:
        raise failure(what.capitalize(), text, folder)


def _ninja(
    argv: tuple[str, ...], folder: Folder, env: Mapping[str, str], tell: Listener, started: float
) -> int:
    reader = NinjaReader()
    logged: list[str] = []
    with folder.log.open("a", encoding="utf-8", errors="replace") as log:

        def keep() -> None:
            text = reader.take_log()
            logged.append(text)
            log.write(text)
            log.flush()

        def take(text: str) -> None:
            for progress in reader.feed(text):
                seconds = time.monotonic() - started
                tell(UnitProgress(progress.done, progress.total, progress.current, seconds))
            keep()

        log.write(f"$ {' '.join(argv)}\n")
        status = run_child(argv, cwd=folder.native, env=env, on_text=take, terminal=True)
        reader.close()
        keep()
    if status != 0:
        raise failure("Compiling", "".join(logged), folder)
    return reader.done
