"""Where this process stands in the control groups of Linux, versions 1 and 2.

/proc/self/cgroup names the group, /proc/self/mountinfo says where the hierarchy is mounted and which group
is the root of that mount: in a container the two differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from floatllm_build.host.files import read_text
from floatllm_build.host.findings import Findings
from floatllm_build.system import System

# 64 bits have no more digits; a hand-made record may.
_NUMBER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_DEEPEST = 64


@dataclass(frozen=True)
class Hierarchy:
    """version 1 or 2, and the folders of our group and all its ancestors, innermost first."""

    version: int
    folders: tuple[str, ...]


def ancestor_folders(mount: str, root: str, group: str) -> tuple[str, ...]:
    """The folders below `mount` for `group` and its ancestors, where `mount` shows the group `root`.

    A group outside the mounted part is hidden from us; then only the mount's own folder counts.
    """
    path, top = PurePosixPath(group), PurePosixPath(root)
    inside = path.relative_to(top) if path.is_relative_to(top) and ".." not in path.parts else PurePosixPath()
    innermost = PurePosixPath(mount) / inside
    below = [innermost, *innermost.parents]
    return tuple(str(folder) for folder in below if folder.is_relative_to(mount))


def parse_groups(text: str) -> dict[str, str]:
    """Controller -> group of /proc/self/cgroup; version 2 stands under the empty name."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                groups[controller] = parts[2]
    return groups


def parse_mounts(text: str) -> list[tuple[int, str, str, tuple[str, ...]]]:
    """(version, root, mount point, mount options) of each control group mount in mountinfo."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if dash and len(fields) >= 5 and len(kind) >= 3 and kind[0] in {"cgroup", "cgroup2"}:
            version = 2 if kind[0] == "cgroup2" else 1
            mounts.append((version, fields[3], fields[4], tuple(kind[2].split(","))))
    return mounts


def hierarchies(system: System, controller: str, findings: Findings) -> tuple[Hierarchy, ...]:
    """Every hierarchy that may bound `controller` (memory, cpu) for this process."""
    # A kernel without control groups has no such file.
    groups = parse_groups(read_text(system, "/proc/self/cgroup", findings))
    mounts = read_text(system, "/proc/self/mountinfo", findings, only=" - cgroup") if groups else ""
    found = []
    for version, root, mount, options in parse_mounts(mounts):
        name = "" if version == 2 else controller
        if name in groups and (version == 2 or controller in options):
            folders = ancestor_folders(mount, root, groups[name])
            if len(folders) > _DEEPEST:
                findings.note("/proc/self/cgroup", f"{len(folders)} groups deep; the outermost are left out")
            found.append(Hierarchy(version, folders[:_DEEPEST]))
    return tuple(found)


def read_number(system: System, path: str, findings: Findings) -> int | None:
    """The number in a control group file; None where there is none, or it says `max`."""
    text = read_text(system, path, findings).strip()
    if _NUMBER.fullmatch(text):
        return int(text)
    if text not in {"", "max"}:
        findings.note(path, f"no number: {text[:40]}")
    return None


def read_stat(system: System, path: str, findings: Findings) -> dict[str, int]:
    """`name number` lines; empty where the file cannot be read."""
    pairs = (line.split() for line in read_text(system, path, findings).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and _NUMBER.fullmatch(pair[1])}
