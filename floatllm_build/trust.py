"""Whose the cache is. What it holds is run, so it counts only where nobody else could have written it.

The rule is that of ssh and pip: an entry belongs to the user that runs us, and no other can write it. It is
kept for the cache's folder, for our folders in it and for their entries; what lies deeper is out of reach for
others, because our folders are made for their owner alone (0700). In such a folder the modes say nothing:
what a compiler or an installer makes there by the user's umask may be open to a group that cannot get to it.
The folders above the cache are the user's or root's, and no other can write them: who could would put another
cache in its place.

Nothing of this is asked on Windows, where a user's folders are closed to other users. A file system without
owners or modes of its own (vfat, a phone's shared storage, some network drives) is known by what it says of a
file that was made a moment ago.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from floatllm_build.errors import MissingError
from floatllm_build.paths import existing
from floatllm_build.tables.containers import FOR_ONE_PROGRAM, MAKERS

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_ROOT = 0
# Who owns what belongs to nobody in this namespace, as root's own folders do in a sandbox without root.
_UNMAPPED = 65534
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PRIVATE = stat.S_IRWXU
# So many faults are named in one message.
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Status:
    """What the file system says of an entry; of a link, and not of what it leads to."""

    owner: int
    group: int
    mode: int


@dataclass(frozen=True, kw_only=True)
class Me:
    """Who runs us, as a file system shows it."""

    user: int
    own_group: int | None
    """The group that has this user as its only member, as Debian and Fedora make one for each user."""
    modes: bool = True
    """Whether modes count: a file system may keep none, and a folder that is closed to others needs none."""


@dataclass(frozen=True)
class Fault:
    path: Path
    what: str
    """`belongs to mallory`: a part of a sentence whose subject is the path."""
    foreign: bool
    """It belongs to another user; else others can write it."""
    above: bool = False
    """The cache lies in it."""


def loose(status: Status, me: Me) -> str:
    """Who else may change the entry: `everyone`, `its group`, or nobody (empty)."""
    if not me.modes or stat.S_ISLNK(status.mode):
        return ""
    if status.mode & stat.S_IWOTH:
        # In a sticky folder nobody can replace what is another's.
        return "" if stat.S_ISDIR(status.mode) and status.mode & stat.S_ISVTX else "everyone"
    if status.mode & stat.S_IWGRP and status.group != me.own_group:
        return "" if stat.S_ISDIR(status.mode) and status.mode & stat.S_ISVTX else "its group"
    return ""


def judge(status: Status, me: Me) -> tuple[str, bool]:
    """What speaks against an entry, as a part of a sentence, and whether its owner does; empty if nothing."""
    shared = stat.S_ISDIR(status.mode) and status.mode & stat.S_ISVTX
    if status.owner != me.user and not (shared and status.owner == _ROOT):
        return f"belongs to {_name(status.owner)}", True
    others = loose(status, me)
    return (f"can be written by {others}", False) if others else ("", False)


def is_ours(path: Path) -> bool:
    """Whether an entry of the cache, itself and not what a link leads to, is ours alone."""
    return _fault(path, me_inside(path.parent)) is None


def me_in(folder: Path) -> Me | None:
    """Who runs us, as the file system of a folder shows it; None where there is nothing to compare."""
    if not hasattr(os, "geteuid"):
        return None
    plain = Me(user=os.geteuid(), own_group=_own_group())
    try:
        if not judge(status_of(folder), plain)[0]:
            return plain
        # By its handle: whoever owns the folder could put another file in its place.
        with tempfile.TemporaryFile(dir=folder, prefix=".owner-") as made:
            status = os.fstat(made.fileno())
    except OSError:
        return plain
    return Me(user=status.st_uid, own_group=plain.own_group, modes=not status.st_mode & _WRITABLE)


def me_inside(folder: Path) -> Me | None:
    """As `me_in`, for what lies in the folder: it or the one above may be closed to others."""
    me = me_in(folder)
    return _below(folder, _below(folder.parent, me)) if me else None


def _below(folder: Path, me: Me) -> Me:
    """Who runs us, for what lies in the folder: where no other can enter it, modes do not count."""
    return replace(me, modes=False) if _is_closed(folder.stat(), me) else me


def _is_closed(found: os.stat_result, me: Me) -> bool:
    return found.st_uid == me.user and not found.st_mode & _OTHERS


def check_cache(home: Path, *, cleaning: bool = False) -> None:
    """Makes the cache's folder where it is not there. `cleaning`: only its owner counts, not who else writes.

    Raises MissingError where it or a folder above it belongs to another user or can be written by others;
    OSError where it cannot be made.
    """
    make_private(home)
    me = me_in(home.resolve())
    fault = (_root_fault(home, me) or _fault_above(home.resolve(), me)) if me else None
    if me and fault and not (cleaning and not fault.foreign):
        raise MissingError(_words(home, [fault], me))
    if me and not fault:
        _close_to_group(home, me)


def _close_to_group(home: Path, me: Me) -> None:
    """Takes the right to write from a group of the user's own; the folder may hold other things than ours."""
    found = home.stat()
    if found.st_uid == me.user and found.st_mode & _WRITABLE and not found.st_mode & stat.S_ISVTX:
        with contextlib.suppress(OSError):
            home.chmod(stat.S_IMODE(found.st_mode) & ~_WRITABLE)


def check_inside(home: Path, names: Iterable[str]) -> None:
    """Closes our folders in the cache (`names`) to others. For who holds its lock.

    Raises MissingError where one of them or an entry of one could have been written by another user.
    """
    me = me_in(home.resolve())
    if me is None:
        return
    folders = [home / name for name in names]
    faults = [fault for folder in folders for fault in _faults_within(folder, _below(home, me))]
    if faults:
        raise MissingError(_words(home, faults, me))
    for folder in folders:
        close(folder)


def is_trusted(home: Path, *inside: Path) -> bool:
    """Whether the cache, and places in it that are there, are ours alone. For who does not hold its lock.

    Changes nothing.
    """
    try:
        me = me_in(home.resolve())
        if me is None:
            return True
        if _root_fault(home, me) or _fault_above(home.resolve(), me):
            return False
        return not any(_fault_of_place(place, _below(place.parent, me)) for place in inside)
    except OSError:
        return False


def distrust(home: Path, names: Iterable[str]) -> str:
    """What `check_cache` and `check_inside` would refuse, without names, as the end of a sentence that begins
    with the cache; empty where they would not.

    Of a cache that is not there yet what lies above counts. Changes nothing.
    """
    try:
        place = home.resolve()
        me = me_in(existing(place))
        if me is None:
            return ""
        there = os.path.isdir(place)  # noqa: PTH112  is_dir() raises where this user may not look
        fault = (_root_fault(home, me) if there else None) or _fault_above(place, me)
        if not fault and there:
            inside = (fault for name in names for fault in _faults_within(home / name, _below(home, me)))
            fault = next(inside, None)
    except OSError:
        return ""
    if not fault:
        return ""
    what = "belongs to another user" if fault.foreign else fault.what
    if fault.above:
        return f"lies in a folder that {what}"
    return what if fault.path in {home, place} else f"holds something that {what}"


def make_private(folder: Path) -> None:
    """Makes a folder, and those above it, for their owner alone; what is there stays. Raises OSError."""
    # Path.is_dir() raises where this user may not look.
    missing = [above for above in folder.parents if not os.path.isdir(above)]  # noqa: PTH112
    for one in (*reversed(missing), folder):
        one.mkdir(mode=_PRIVATE, exist_ok=True)


def _root_fault(home: Path, me: Me) -> Fault | None:
    link = status_of(home)
    # A link to the cache is root's or the user's own; then its folder counts.
    if stat.S_ISLNK(link.mode) and link.owner not in {me.user, _ROOT}:
        return Fault(home, f"is a link that belongs to {_name(link.owner)}", foreign=True)
    return _fault(home.resolve(), me)


def _fault_above(home: Path, me: Me) -> Fault | None:
    """The first of the folders above the cache in which another user could put another in its place.

    Who could replace one that is above this tool as well could replace the tool; that leaves out the system's
    folders of a phone. And in a container for one program there is no other user: folders of its image belong
    to whomever it was made by, and are open to whatever user it is run as.
    """
    if _made_for_one_program():
        return None
    own = Path(__file__).resolve().parents
    device, closed = existing(home).stat().st_dev, None
    for folder in reversed(home.parents):
        try:
            found = folder.stat()
        except OSError:
            continue  # a phone may not show its own folders
        # The user of the cache's file system may be another elsewhere.
        here = me if found.st_dev == device else replace(me, user=os.geteuid(), modes=True)
        # Another way may lead to what is mounted below a folder that is closed to others.
        here = replace(here, modes=here.modes and found.st_dev != closed)
        if folder not in own and (fault := _judge_above(folder, _status(found), here)):
            return fault
        if _is_closed(found, here):
            closed = found.st_dev
    return None


def _judge_above(folder: Path, status: Status, me: Me) -> Fault | None:
    if status.owner not in {me.user, _ROOT, _UNMAPPED}:
        return Fault(folder, f"belongs to {_name(status.owner)}", foreign=True, above=True)
    others = loose(status, me)
    return Fault(folder, f"can be written by {others}", foreign=False, above=True) if others else None


def _made_for_one_program() -> bool:
    signs = (kind for kind, variable, path in MAKERS if os.environ.get(variable) or os.path.exists(path))  # noqa: PTH110
    return next(signs, "") in FOR_ONE_PROGRAM


def _faults_within(folder: Path, me: Me) -> list[Fault]:
    """Of one of our folders, or else of its entries."""
    if not os.path.lexists(folder):
        return []
    if fault := _fault_of_place(folder, me):
        return [fault]
    if not folder.is_dir():
        return []  # whoever wants to work in it says so
    # What a link leads to does not lie in the cache.
    me = _below(folder, (me_in(folder.resolve()) or me) if folder.is_symlink() else me)
    inside = (_fault_of_place(Path(entry.path), me) for entry in os.scandir(folder))
    return [fault for fault in inside if fault]


def _fault_of_place(place: Path, me: Me) -> Fault | None:
    """A link may lead to another folder of the user's, as to one on a larger disk."""
    if fault := _fault(place, me):
        return fault
    if not place.is_symlink():
        return None
    target = place.resolve()
    if not target.exists():
        return Fault(place, f"is a link to {target}, which is not there", foreign=False)
    fault = _fault(target, me_in(target) or me)
    return Fault(place, f"is a link to {target}, which {fault.what}", fault.foreign) if fault else None


def _fault(path: Path, me: Me | None) -> Fault | None:
    if me is None:
        return None
    what, foreign = judge(status_of(path), me)
    return Fault(path, what, foreign) if what else None


def close(folder: Path) -> None:
    """Closes to others what an earlier version, an installer or a compiler made by the user's umask."""
    if folder.is_dir() and not folder.is_symlink() and folder.stat().st_mode & _OTHERS:
        # Not every file system can.
        with contextlib.suppress(OSError):
            folder.chmod(_PRIVATE)


def _words(home: Path, faults: list[Fault], me: Me) -> str:
    told = "; ".join(f"{fault.path} {fault.what}" for fault in faults[:_NAMED])
    more = f"; and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
    first = faults[0]
    user = _name(me.user)
    why = f"floatllm-build runs as {user}, and runs programs from its cache"
    if first.above:
        may = first.path.stat().st_uid == me.user or me.user == _ROOT
        run = (
            f"Run `chmod go-w {shlex.quote(str(first.path))}`, or name"
            if may and not first.foreign
            else "Name"
        )
        return (
            f"The cache {home} cannot be trusted: {told}. {why}: another user could put another folder in "
            f"its place. {run} a folder in FLOATLLM_CACHE_DIR that no other user can write to, nor to those "
            "above it."
        )
    began = f"The cache cannot be trusted: {told}{more}. {why}: another user could have put anything there."
    links = [fault.path for fault in faults if fault.path.is_symlink()]
    if links:
        fix = f"Delete the link (rm {shlex.quote(str(links[0]))})"
    elif first.path in {home, home.resolve()} and first.foreign:
        # It may be somebody's home: nobody is told to delete that.
        return f"{began} Name a folder of your own in FLOATLLM_CACHE_DIR."
    elif any(fault.foreign for fault in faults):
        fix = f"Delete it (rm -r {shlex.quote(str(first.path))})"
    else:
        fix = f"Run `floatllm-build clean`, then `chmod -R go-w {shlex.quote(str(home))}`"
    return f"{began} {fix}, or name a folder of your own in FLOATLLM_CACHE_DIR."


def status_of(path: Path | str) -> Status:
    """Raises OSError."""
    return _status(os.lstat(path))


def _status(found: os.stat_result) -> Status:
    return Status(owner=found.st_uid, group=found.st_gid, mode=found.st_mode)


def _name(user: int) -> str:
    import pwd  # noqa: PLC0415  not on Windows

    try:
        return f"{pwd.getpwuid(user).pw_name} (user {user})"
    except KeyError:
        return f"user {user}"


@cache
def _own_group() -> int | None:
    import grp  # noqa: PLC0415  not on Windows
    import pwd  # noqa: PLC0415

    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(user.pw_gid)
    except KeyError:
        return None
    alone = group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return group.gr_gid if alone else None
