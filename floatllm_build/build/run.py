"""Configures with cmake and compiles with ninja, in one build folder, with one log."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from floatllm_build.build.compile import Order, Outcome, compile_all
from floatllm_build.build.key import digest
from floatllm_build.build.launcher import Trial, try_caches, without_caches
from floatllm_build.build.peaks import Cost, Costs, load_learned, save_learned
from floatllm_build.build.trace import trace
from floatllm_build.build_folder import Folder, child_environment, cmake_options, failure, run_logged
from floatllm_build.diagnosis import COMPILER_CACHE, OUT_OF_MEMORY, diagnose
from floatllm_build.errors import BuildFailedError
from floatllm_build.events import BuildSummary, Hint, Listener
from floatllm_build.files import write_whole
from floatllm_build.ninja import unit_name
from floatllm_build.values import Built, Plan, ToolchainFacts

_SHOWN = 5
_WITHOUT_CACHE = (
    "So this builds without it. To use it, name a folder that can be written in CCACHE_DIR (for sccache in "
    "SCCACHE_DIR)."
)
NO_TIMELINE = "There is no timeline to write: nothing was compiled."


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a build may use."""

    room: Callable[[int], int]
    """Bytes that may still be taken, while the build's own processes take that many."""
    learned: Path
    """Folder where costs of units are kept."""
    trace: Path | None = None
    """File for the timeline."""


@dataclass
class _Work:
    """One call of `build`."""

    plan: Plan
    toolchain: ToolchainFacts
    ggml_folder: str
    folder: Folder
    means: Means
    tell: Listener
    trial: Trial = field(default_factory=Trial)
    outcome: Outcome = field(default_factory=Outcome)

    def run(self) -> None:
        """Configures and compiles; once more without a compiler cache that fails meanwhile."""
        plain = child_environment(self.plan, self.toolchain)
        root = self.folder.root

        def run(argv: tuple[str, ...], env: Mapping[str, str]) -> tuple[int, str]:
            return run_logged(argv, self.folder, env, root)

        self._go_on(try_caches(self.plan, self.toolchain, plain, root, run))
        try:
            self._attempt()
        except BuildFailedError:
            fault = diagnose(self.folder.log.read_text(encoding="utf-8", errors="replace"))
            if self.trial.failed or not fault or fault.kind != COMPILER_CACHE:
                raise
            self._go_on(without_caches(plain, fault.said))
            self._attempt()

    def _go_on(self, trial: Trial) -> None:
        self.trial = trial
        if trial.failed:
            self.tell(Hint(f"{trial.failed}. {_WITHOUT_CACHE}"))

    def _attempt(self) -> None:
        _configure_whole(self._configure, self.folder)
        compile_all(self._order(), self.tell, self.outcome)

    def _configure(self, more: tuple[str, ...]) -> None:
        folder, cmake = self.folder, self.toolchain.cmake.path if self.toolchain.cmake else "cmake"
        options = cmake_options(self.plan, self.toolchain, self.ggml_folder, folder)
        argv = (cmake, "-S", str(folder.native), "-B", str(folder.out), *options, *self.trial.options, *more)
        status, text = run_logged(argv, folder, self.trial.env, folder.native)
        if status != 0:
            raise failure("Configuring", text, folder)

    def _order(self) -> Order:
        plan, toolchain = self.plan, self.toolchain
        compiler = toolchain.cxx.kind if toolchain.cxx else "unknown"
        version = toolchain.cxx.version if toolchain.cxx else ""

        def kept(reclaiming: bool, size: bool) -> Path:
            name = digest(
                {"compiler": [compiler, version], "preset": plan.preset, "early": reclaiming, "size": size}
            )
            return self.means.learned / f"{plan.preset}-{name[:10]}.json"

        def costs(reclaiming: bool, size: bool) -> Costs:
            learned = load_learned(kept(reclaiming, size))
            return Costs(compiler, "size" if size else "speed", reclaiming, learned)

        def learn(reclaiming: bool, size: bool, seen: Mapping[str, Cost]) -> None:
            path = kept(reclaiming, size)
            if seen:
                # Only the next build's speed hangs on it.
                with contextlib.suppress(OSError):
                    save_learned(path, load_learned(path) | dict(seen))

        return Order(
            folder=self.folder,
            ninja=toolchain.ninja.path if toolchain.ninja else "ninja",
            ninja_version=toolchain.ninja.version if toolchain.ninja else "",
            env=self.trial.env,
            jobs=plan.jobs_limit,
            blind_jobs=plan.jobs,
            compiler=compiler,
            backend=plan.backend,
            low_mem=plan.low_mem,
            costs=costs,
            learn=learn,
            room=self.means.room,
            reconfigure=self._configure,
        )


def build(
    plan: Plan, toolchain: ToolchainFacts, ggml_folder: str, folder: Folder, means: Means, tell: Listener
) -> Built:
    """Configures and compiles. Raises BuildFailedError with the cause, the fix and the log's path."""
    started = time.monotonic()
    folder.log.parent.mkdir(parents=True, exist_ok=True)
    folder.log.unlink(missing_ok=True)
    _drop_half_configured(folder)
    folder.flags.write_text("", encoding="utf-8")
    work = _Work(plan, toolchain, ggml_folder, folder, means, tell)
    outcome = work.outcome
    try:
        work.run()
    finally:
        if means.trace and outcome.spans:
            _write_trace(means.trace, outcome, tell)
        elif means.trace:
            tell(Hint(NO_TIMELINE))
    if outcome.spans:
        tell(_summary(outcome))
    return Built(
        folder=str(folder.out),
        units=len(outcome.spans),
        seconds=time.monotonic() - started,
        log=str(folder.log),
        whole=outcome.rung.smaller == plan.low_mem and outcome.rung.flash_attention,
    )


def _write_trace(path: Path, outcome: Outcome, tell: Listener) -> None:
    text = json.dumps(trace(outcome.spans, outcome.moments, outcome.peaks))
    try:
        write_whole(path, text.encode(), shared=True)
    except OSError as error:
        tell(Hint(f"The timeline cannot be written to {path}: {error.strerror}. Name another file."))
    else:
        tell(Hint(f"The timeline is in {path}: open it in Perfetto."))


def _drop_half_configured(folder: Folder) -> None:
    """A configuration that was broken off may have left a cache that looks whole."""
    ninja_file = folder.out / "build.ninja"
    if not ninja_file.is_file() or not ninja_file.stat().st_size:
        shutil.rmtree(folder.out, ignore_errors=True)


def _configure_whole(configure: Callable[[tuple[str, ...]], None], folder: Folder) -> None:
    """Configures until no check was killed: CMake takes that for a lack of the machine, and remembers it."""
    for last in (False, False, True):
        failed = None
        try:
            configure(())
        except BuildFailedError as error:
            failed = error
        killed = _a_check_was_killed(folder)
        if failed and (last or not killed):
            raise failed
        if not killed:
            return
        shutil.rmtree(folder.out, ignore_errors=True)
    raise BuildFailedError(
        "Configuring failed: the system ended one of cmake's checks for want of memory, three times. Free "
        f"memory (close programs, add swap) and run this again.\nEverything it said is in {folder.log}",
        log=str(folder.log),
    )


def _a_check_was_killed(folder: Folder) -> bool:
    """Whether the log that CMake keeps of its checks shows one whose compiler or linker was ended."""
    logs = [folder.out / "CMakeFiles" / name for name in ("CMakeConfigureLog.yaml", "CMakeError.log")]
    text = "\n".join(log.read_text(errors="replace") for log in logs if log.is_file())
    found = diagnose(text)
    return found is not None and found.kind == OUT_OF_MEMORY


def _summary(outcome: Outcome) -> BuildSummary:
    made = {span.unit for span in outcome.spans}
    by_time = sorted(outcome.spans, key=lambda span: span.start - span.end)[:_SHOWN]
    # What was seen before its command line could be read goes by a program's name.
    by_peak = sorted((made & outcome.peaks.keys()), key=lambda unit: (-outcome.peaks[unit], unit))[:_SHOWN]
    return BuildSummary(
        slowest=tuple((unit_name(f"Building {span.unit}"), span.end - span.start) for span in by_time),
        hungriest=tuple((unit_name(f"Building {unit}"), outcome.peaks[unit]) for unit in by_peak),
    )
