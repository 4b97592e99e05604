"""Looks at what a build's processes take while it runs: the memory of each job, by polling /proc.

Ninja's children are the jobs; a compiler driver and what it starts count as one. Where there is no /proc
(macOS, Windows) nothing is seen, and the build is governed by its expected peaks alone.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from floatllm_build.build.ninja_log import OUTPUT


@dataclass
class Job:
    """A job that runs or has run; sizes in bytes."""

    unit: str
    """Path of what it makes, as the build file has it; the program's name where that cannot be seen."""
    resident: int = 0
    peak: int = 0
    _highest: dict[int, int] = field(default_factory=dict, repr=False)


@dataclass
class Watch:
    """`look` takes one picture of all processes below the process `root`."""

    root: int
    proc: Path = Path("/proc")
    jobs: dict[int, Job] = field(default_factory=dict)
    """By process id, those of the last look."""
    ended: list[Job] = field(default_factory=list)
    _known: dict[int, str] = field(default_factory=dict)
    _lists: bool = True
    """Whether the kernel keeps lists of children; those of phones are built without."""
    _parents: dict[int, list[int]] = field(default_factory=dict)
    """Children by parent as of this look, where it does not."""

    def __post_init__(self) -> None:
        self._lists = any((self.proc / "self" / "task").glob("*/children"))

    @property
    def sees(self) -> bool:
        """Whether there is anything to look at."""
        return (self.proc / "self" / "status").is_file()

    def look(self) -> int:
        """Updates `jobs` and `ended`; returns the resident bytes of the root and all below it."""
        if not self._lists:
            self._read_parents()
        self._enter()
        children = self._children(self.root)
        for gone in set(self.jobs) - set(children):
            self.ended.append(self.jobs.pop(gone))
            self._known.pop(gone, None)
        total = self._memory(self.root)[0]
        for pid in children:
            job = self.jobs.get(pid)
            if job is None or job.unit != (unit := self._unit(pid)):
                # Between fork and exec a child still carries its parent's name.
                job = self.jobs[pid] = Job(unit=self._unit(pid) if job is None else unit)
            self._update(job, pid)
            total += job.resident
        return total

    def _update(self, job: Job, pid: int) -> None:
        job.resident = 0
        for process in self._tree(pid):
            resident, highest = self._memory(process)
            job.resident += resident
            job._highest[process] = max(highest, job._highest.get(process, 0))  # noqa: SLF001  our own
        # What one process took at most is known exactly; that several did so at once is only seen by luck.
        job.peak = max(job.peak, job.resident, *job._highest.values(), 0)  # noqa: SLF001

    def _tree(self, pid: int) -> list[int]:
        found = [pid]
        for process in found:
            found += self._children(process)
        return found

    def _enter(self) -> None:
        """Goes from a script that runs the program, as ninja's own package had one, to the program itself."""
        words = self._words(self.root)
        children = self._children(self.root)
        # The same arguments, but the script's name and its own: a child before exec still has all of them.
        if len(children) == 1 and len(words) > 2 and self._words(children[0])[1:] == words[2:]:
            self.root = children[0]

    def _children(self, pid: int) -> list[int]:
        if not self._lists:
            return sorted(self._parents.get(pid, []))
        pids: list[int] = []
        with contextlib.suppress(OSError):
            for task in (self.proc / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError):
                    pids += map(int, (task / "children").read_text().split())
        return pids

    def _read_parents(self) -> None:
        self._parents = {}
        with contextlib.suppress(OSError):
            for folder in self.proc.iterdir():
                if folder.name.isdecimal():
                    with contextlib.suppress(OSError, IndexError):
                        # A name in brackets, which may hold anything, then the state, then the parent.
                        rest = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                        self._parents.setdefault(int(rest[1]), []).append(int(folder.name))

    def _memory(self, pid: int) -> tuple[int, int]:
        """Resident bytes now, and at most until now; (0, 0) for a process that has ended."""
        try:
            text = (self.proc / str(pid) / "status").read_text()
        except OSError:
            return 0, 0
        sizes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", text, re.MULTILINE))
        return int(sizes.get("VmRSS", 0)) << 10, int(sizes.get("VmHWM", 0)) << 10

    def _unit(self, pid: int) -> str:
        known = self._known.get(pid)
        if known:
            return known
        words = self._words(pid)
        match = OUTPUT.search(" ".join(words))
        if match:
            self._known[pid] = match[1]
        return match[1] if match else Path(words[0]).name

    def _words(self, pid: int) -> list[str]:
        """The command line of a process; one empty word where it has ended."""
        try:
            text = (self.proc / str(pid) / "cmdline").read_text(errors="replace")
        except OSError:
            return [""]
        return text.removesuffix("\0").split("\0")
