"""What to do about a limit that the system sets for programs."""

from __future__ import annotations

from collections.abc import Mapping

from floatllm_build.rules.fit import join
from floatllm_build.sizes import show_size
from floatllm_build.values import Host, Limit

# Name -> what it limits, and what raises it. getrlimit(2), bash's ulimit, Docker's manual.
_KNOWN: Mapping[str, tuple[str, str]] = {
    "RLIMIT_AS": ("address space", "`ulimit -v unlimited`"),
    "RLIMIT_DATA": ("data", "`ulimit -d unlimited`"),
    "RLIMIT_NPROC": ("processes and threads of one user", "`ulimit -u`, or end other programs of yours"),
    "pids.max": (
        "processes and threads of this container or service",
        "--pids-limit of docker and podman, TasksMax of systemd",
    ),
    "RLIMIT_NOFILE": ("open files", "`ulimit -n 1024`"),
}
_SIZES = {"RLIMIT_AS", "RLIMIT_DATA"}


def limits_fix(host: Host) -> str:
    """What raises the limits that were met; empty if none was."""
    if not host.limits:
        return ""
    raised = join([_KNOWN.get(one.name, ("", "its own settings"))[1] for one in host.limits])
    otherwise = "if that is refused: ask the machine's administrator, or ask the batch system for more"
    return f"raise {limits_named(host)} (by {raised}; {otherwise})"


def address_space_binds(host: Host) -> bool:
    """RLIMIT_AS leaves less than the machine and everybody else."""
    tightest = min(host.memory.bounds, key=lambda bound: bound.limit, default=None)
    return tightest is not None and tightest.source == "RLIMIT_AS"


def limits_named(host: Host) -> str:
    """`the limit RLIMIT_AS on address space, 293 MiB`."""
    return join([_named(one) for one in host.limits])


def _named(limit: Limit) -> str:
    value = show_size(limit.value) if limit.name in _SIZES else str(limit.value)
    what = _KNOWN.get(limit.name, ("", ""))[0]
    return f"the limit {limit.name}{f' on {what}' if what else ''}, {value}"
