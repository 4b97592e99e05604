"""One run of ninja under the governor.

What its jobs take is looked at while they run, and as many are let in as the memory holds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from floatllm_build.build.governor import Rung, admitted
from floatllm_build.build.jobserver import Jobserver, jobserver
from floatllm_build.build.ninja_log import Span, log_lines, spans_since
from floatllm_build.build.pace import Pace
from floatllm_build.build.peaks import Cost
from floatllm_build.build.trace import Moment
from floatllm_build.build.watch import Watch
from floatllm_build.build_folder import Folder
from floatllm_build.events import Listener, UnitProgress
from floatllm_build.ninja import NinjaReader, unit_name
from floatllm_build.process import ask_to_end, run_child
from floatllm_build.versions import version_tuple

# The first ninja that takes its jobs from a jobserver.
_JOBSERVER_NINJA = (1, 13)
_TICK = 0.1
# Where processes cannot be looked at, asking for the memory means starting programs.
_BLIND_TICK = 2.0
# Moments that are kept: a curve needs no more, and a phone may compile for hours.
_MOST_MOMENTS = 4000
# Windows takes 32767 characters of a command, others not less than 131072 with the environment.
_LONGEST_TARGETS = 30_000 if sys.platform == "win32" else 100_000


@dataclass(frozen=True, kw_only=True)
class Ninja:
    """A run of ninja: what it builds, and what it may take."""

    program: str
    version: str
    folder: Folder
    env: Mapping[str, str]
    targets: tuple[str, ...]
    """None: all that is left."""
    jobs: int
    """At most."""
    room: Callable[[int], int]
    tell: Listener
    started: float
    """When the build began: all times are counted from there."""
    next_peak: int
    """Bytes that the next unit may take."""
    expected: Mapping[str, int]
    """The peak of each unit, in bytes."""


@dataclass
class Outcome:
    """What was seen while it compiled; times in seconds since the start, sizes in bytes."""

    spans: list[Span] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    """By unit, as seen, with what was given up by then."""
    moments: list[Moment] = field(default_factory=list)
    rung: Rung = field(default_factory=lambda: Rung(jobs=1, reclaiming=False, smaller=False))


@dataclass(frozen=True)
class Run:
    """How a run of ninja ended."""

    status: int
    text: str
    done: int
    """Commands that ended."""
    costs: Mapping[str, Cost]
    """Of the units that it made, where they were seen."""


def governed(ninja: Ninja, outcome: Outcome, pace: Pace, done: int) -> Run:
    """Runs it; `done` commands of the build have ended before.

    Raises what `ninja.tell` raises, once all children are gone.
    """
    before = log_lines(ninja.folder.out)
    governing = _Governing(ninja, outcome, pace, done)
    began = time.monotonic() - ninja.started
    try:
        status = governing.run()
    finally:
        made = spans_since(ninja.folder.out, before)
        outcome.spans += [Span(span.unit, span.start + began, span.end + began) for span in made]
        for unit, peak in governing.peaks.items():
            outcome.peaks[unit] = max(peak, outcome.peaks.get(unit, 0))
    # Where none can be seen, the time is worth knowing all the same.
    peaks = {**ninja.expected, **governing.peaks} if governing.blind else governing.peaks
    costs = {span.unit: Cost(peaks[span.unit], span.end - span.start) for span in made if span.unit in peaks}
    return Run(status, "".join(governing.text), governing.reader.done, costs)


def nameable(targets: tuple[str, ...], longest: int = _LONGEST_TARGETS) -> tuple[str, ...]:
    """The targets, or none where a command cannot hold them: then all that is left is built by this run."""
    return targets if sum(len(target) + 1 for target in targets) <= longest else ()


class _Governing:
    """The run itself: ninja is read in this thread and governed in another one."""

    def __init__(self, ninja: Ninja, outcome: Outcome, pace: Pace, done: int) -> None:
        self.ninja, self.outcome, self.pace, self.done = ninja, outcome, pace, done
        self.reader = NinjaReader()
        self.text: list[str] = []
        self.peaks: dict[str, int] = {}
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.known = threading.Event()
        self.pid = 0
        self.fault: BaseException | None = None
        self.allowed = ninja.jobs
        self.blind = False

    def run(self) -> int:
        ninja = self.ninja
        governable = version_tuple(ninja.version) >= _JOBSERVER_NINJA and ninja.jobs > 1
        with jobserver() if governable else nullcontext() as served:
            jobs = () if served else (f"-j{ninja.jobs}",)
            argv = (ninja.program, "-C", str(ninja.folder.out), *jobs, *nameable(ninja.targets))
            env = {**ninja.env, "MAKEFLAGS": served.makeflags} if served else ninja.env
            if served:
                # At once: ninja looks for more tokens only when a job ends.
                self.allowed = admitted((), ninja.next_peak, ninja.room(0), ninja.jobs)
                served.allow(self.allowed)
            status = self._read(argv, env, served)
        if self.fault:
            raise self.fault
        if self.outcome.moments:
            last = self.outcome.moments[-1]
            self._tell(replace(last, used=0, room=last.used + last.room))
        return status

    def _read(self, argv: tuple[str, ...], env: Mapping[str, str], server: Jobserver | None) -> int:
        # Started before ninja: an interrupt in the midst of starting it would leave it behind.
        watcher = threading.Thread(target=self._govern, args=(server,), daemon=True)

        def start(pid: int) -> None:
            self.pid = pid
            self.known.set()

        folder = self.ninja.folder
        with folder.log.open("a", encoding="utf-8", errors="replace") as log:

            def take(text: str) -> None:
                with self.lock:
                    self.reader.feed(text)
                    self._note_ends()
                    said = self.reader.take_log()
                self.text.append(said)
                log.write(said)
                log.flush()

            log.write(f"$ {' '.join(argv)}\n")
            try:
                watcher.start()
                return run_child(
                    argv, cwd=folder.native, env=env, on_text=take, terminal=True, on_start=start
                )
            finally:
                self.over.set()
                self.known.set()
                if watcher.is_alive():
                    watcher.join()
                take("")
                self.reader.close()
                take("")

    def _note_ends(self) -> None:
        now = time.monotonic() - self.ninja.started
        ended, self.reader.ended = self.reader.ended, []
        for description in ended:
            self.pace.end(description.rpartition(" ")[2], now)

    def _govern(self, server: Jobserver | None) -> None:
        self.known.wait()
        pid = self.pid
        if not pid:
            return  # ninja could not be started
        watch = Watch(pid)
        self.blind = not watch.sees
        try:
            while True:
                self._look(watch, server)
                if self.over.wait(_BLIND_TICK if self.blind else _TICK):
                    break
        except BaseException as fault:  # noqa: BLE001  raised again in the thread that waits for ninja
            self.fault = fault
            ask_to_end(pid)
        finally:
            for job in (*watch.ended, *watch.jobs.values()):
                self.peaks[job.unit] = max(job.peak, self.peaks.get(job.unit, 0))

    def _look(self, watch: Watch, server: Jobserver | None) -> None:
        # Where nobody can be seen, those that were let in at the start stay: their expected peaks fit.
        jobs = self.allowed
        used = watch.look()
        room = self.ninja.room(used)
        if server and not self.blind:
            # Between fork and exec a job has no unit yet: it may be any of those that come next.
            ninja = self.ninja
            running = [
                (job.resident, ninja.expected.get(job.unit, ninja.next_peak)) for job in watch.jobs.values()
            ]
            jobs = admitted(running, ninja.next_peak, room, ninja.jobs)
            server.allow(jobs)
        now = time.monotonic() - self.ninja.started
        moments = self.outcome.moments
        moments.append(Moment(now, used, room, jobs))
        if len(moments) > _MOST_MOMENTS:
            del moments[1::2]
        self._tell(moments[-1])

    def _tell(self, now: Moment) -> None:
        with self.lock:
            reader = self.reader
            done, total = self.done + reader.done, max(self.pace.total, self.done + reader.total)
            longest = unit_name(reader.longest())
            left = self.pace.left(now.time)
        self.ninja.tell(
            UnitProgress(done, total, longest, now.time, now.used, now.used + now.room, now.jobs, left)
        )
