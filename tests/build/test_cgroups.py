"""Memory and CPUs under control groups, versions 1 and 2, told by replayed files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from machines import PC

from floatllm_build.host.cgroup import ancestor_folders
from floatllm_build.host.cpu import parse_cpu_max, probe_cpu
from floatllm_build.host.findings import Findings
from floatllm_build.host.memory import group_room, parse_vm_stat, probe_memory
from floatllm_build.sizes import GIB, MIB
from floatllm_build.system import Replay
from floatllm_build.values import MemoryFacts, Note, Source

MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
)


def replay(files: dict[str, str], **native: object) -> Replay:
    texts = {path: {"text": text} for path, text in files.items()}
    return Replay({"schema_version": 1, "files": texts, "native": native})


def probe(files: dict[str, str], **native: object) -> tuple[MemoryFacts, list[Note]]:
    findings = Findings()
    return probe_memory(replay(files, **native), PC.os, findings), findings.notes


def test_without_groups_the_machine_decides() -> None:
    facts, notes = probe({"/proc/meminfo": MEMINFO})
    assert (facts.capacity, facts.room, facts.binding) == (16 * GIB, 8 * GIB, "/proc/meminfo")
    assert not notes


def test_version_2_counts_every_ancestor_and_gives_cache_back() -> None:
    group = "/sys/fs/cgroup/user/build"
    facts, _ = probe(
        {
            "/proc/meminfo": MEMINFO,
            "/proc/self/cgroup": "0::/user/build\n",
            "/proc/self/mountinfo": V2_MOUNT,
            f"{group}/memory.max": "max\n",
            "/sys/fs/cgroup/user/memory.max": f"{2 * GIB}\n",
            "/sys/fs/cgroup/user/memory.current": f"{1 * GIB}\n",
            "/sys/fs/cgroup/user/memory.stat": (
                f"active_file {100 * MIB}\ninactive_file {200 * MIB}\nfile_dirty {50 * MIB}\n"
            ),
        }
    )
    assert facts.capacity == 2 * GIB
    assert facts.room == 1 * GIB + 250 * MIB
    assert facts.binding == "/sys/fs/cgroup/user/memory.max"


@pytest.mark.parametrize(
    ("high", "most", "room", "binding"),
    [
        ("536870912", "max", 112 * MIB, "memory.high"),
        ("536870912", "1073741824", 112 * MIB, "memory.high"),
        ("max", "536870912", 112 * MIB, "memory.max"),
        ("1073741824", "536870912", 112 * MIB, "memory.max"),
    ],
)
def test_version_2_bounds_by_high_and_by_max(high: str, most: str, room: int, binding: str) -> None:
    group = "/sys/fs/cgroup/job"
    files = {
        "/proc/meminfo": MEMINFO,
        "/proc/self/cgroup": "0::/job\n",
        "/proc/self/mountinfo": V2_MOUNT,
        f"{group}/memory.max": f"{most}\n",
        f"{group}/memory.high": f"{high}\n",
        f"{group}/memory.current": f"{400 * MIB}\n",
    }
    facts, _ = probe(files)
    assert (facts.capacity, facts.room, facts.binding) == (512 * MIB, room, f"{group}/{binding}")


def test_version_1_knows_its_way_of_saying_no_limit() -> None:
    group = "/sys/fs/cgroup/memory/job"
    files = {
        "/proc/meminfo": MEMINFO,
        "/proc/self/cgroup": "4:memory:/job\n1:cpu:/\n",
        "/proc/self/mountinfo": V1_MOUNTS,
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        f"{group}/memory.limit_in_bytes": f"{512 * MIB}\n",
        f"{group}/memory.usage_in_bytes": f"{500 * MIB}\n",
        f"{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {300 * MIB}\ntotal_active_file 0\n",
    }
    facts, _ = probe(files)
    assert facts.room == 312 * MIB
    assert len(facts.bounds) == 2


def test_an_address_space_limit_binds_too() -> None:
    facts, _ = probe({"/proc/meminfo": MEMINFO}, rlimit_as=300 * MIB)
    assert (facts.room, facts.binding) == (300 * MIB, "RLIMIT_AS")


def test_a_refused_file_is_a_note_and_no_crash() -> None:
    record = {"schema_version": 1, "files": {"/proc/meminfo": {"errno": "EACCES"}}}
    findings = Findings()
    facts = probe_memory(Replay(record), PC.os, findings)
    assert (facts.room, facts.total, facts.binding) == (0, 0, "")
    assert [note.source for note in findings.notes] == ["/proc/meminfo"]
    assert "ermission" in findings.notes[0].said


def test_a_group_that_must_not_be_read_is_a_note() -> None:
    files = {
        "/proc/meminfo": {"text": MEMINFO},
        "/proc/self/cgroup": {"text": "0::/job\n"},
        "/proc/self/mountinfo": {"text": V2_MOUNT},
        "/sys/fs/cgroup/job/memory.max": {"errno": "EACCES"},
        "/sys/fs/cgroup/job/memory.high": {"text": "plenty\n"},
    }
    findings = Findings()
    facts = probe_memory(Replay({"schema_version": 1, "files": files}), PC.os, findings)
    assert facts.capacity == 16 * GIB
    assert [note.source for note in findings.notes] == [
        "/sys/fs/cgroup/job/memory.max",
        "/sys/fs/cgroup/job/memory.high",
    ]


def test_swap_and_total() -> None:
    facts, _ = probe({"/proc/meminfo": MEMINFO + "SwapTotal:  2097152 kB\nSwapFree:   1048576 kB\n"})
    assert (facts.total, facts.swap_total, facts.swap_free) == (16 * GIB, 2 * GIB, 1 * GIB)


def test_a_mac_tells_its_memory_and_swap() -> None:
    commands = {
        "sysctl -n hw.memsize": f"{16 * GIB}\n",
        "sysctl -n vm.swapusage": "total = 2048.00M  used = 512.50M  free = 1535.50M  (encrypted)\n",
        "vm_stat": (
            "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
            "Pages free:                               65536.\nPages active:  500000.\n"
            "Pages inactive:                           65536.\nPages wired down:  100000.\n"
        ),
    }
    done = {line: {"rc": 0, "out": out, "err": ""} for line, out in commands.items()}
    findings = Findings()
    mac = replace(PC.os, name="Darwin", machine="arm64")
    facts = probe_memory(Replay({"schema_version": 1, "commands": done}), mac, findings)
    assert (facts.total, facts.capacity, facts.room) == (16 * GIB, 16 * GIB, 2 * GIB)
    assert (facts.swap_total, facts.swap_free) == (2048 * MIB, 1535 * MIB + MIB // 2)
    assert not findings.notes


def test_windows_tells_what_is_committed() -> None:
    told = {"total": 16 * GIB, "available": 6 * GIB, "commit_limit": 20 * GIB, "commit_room": 8 * GIB}
    windows = replace(PC.os, name="Windows", machine="AMD64")
    facts = probe_memory(replay({}, windows_memory=told), windows, Findings())
    assert (facts.total, facts.room, facts.binding) == (16 * GIB, 6 * GIB, "physical memory")
    assert (facts.swap_total, facts.swap_free) == (4 * GIB, 2 * GIB)


@pytest.mark.parametrize(
    "told", [None, 7, {"total": 1}, {"total": -1, "available": 1, "commit_limit": 1, "commit_room": 1}]
)
def test_windows_memory_that_makes_no_sense_is_a_note(told: object) -> None:
    findings = Findings()
    facts = probe_memory(replay({}, windows_memory=told), replace(PC.os, name="Windows"), findings)
    assert (facts.room, [note.source for note in findings.notes]) == (0, ["GlobalMemoryStatusEx"])


@pytest.mark.parametrize(
    ("mount", "root", "group", "folders"),
    [
        ("/sys/fs/cgroup", "/", "/a/b", ("/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup")),
        ("/sys/fs/cgroup", "/docker/x", "/docker/x/job", ("/sys/fs/cgroup/job", "/sys/fs/cgroup")),
        ("/sys/fs/cgroup", "/docker/x", "/", ("/sys/fs/cgroup",)),
        ("/sys/fs/cgroup", "/", "/../other", ("/sys/fs/cgroup",)),
    ],
)
def test_folders_of_a_group(mount: str, root: str, group: str, folders: tuple[str, ...]) -> None:
    assert ancestor_folders(mount, root, group) == folders


def test_room_never_leaves_its_bounds() -> None:
    assert group_room(100, 500, {}, 2) == 0
    assert group_room(100, 10, {"inactive_file": 1000}, 2) == 100


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000\n", None),
        ("150000 100000\n", 2),
        ("10000 100000\n", 1),
        ("", None),
        ("5 0", None),
        ("1e9 1", None),
        (f"{'9' * 400} 1", None),
    ],
)
def test_cpu_max(text: str, cpus: int | None) -> None:
    assert parse_cpu_max(text) == cpus


@pytest.mark.parametrize(
    ("files", "usable", "source"),
    [
        ({}, 4, "affinity"),
        (
            {
                "/proc/self/cgroup": "0::/job\n",
                "/proc/self/mountinfo": V2_MOUNT,
                "/sys/fs/cgroup/job/cpu.max": "200000 100000\n",
            },
            2,
            "/sys/fs/cgroup/job/cpu.max",
        ),
        (
            {
                "/proc/self/cgroup": "1:cpu,cpuacct:/\n",
                "/proc/self/mountinfo": V1_MOUNTS,
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        ),
    ],
)
def test_usable_cpus_follow_affinity_and_quota(files: dict[str, str], usable: int, source: str) -> None:
    findings = Findings()
    facts = probe_cpu(replay(files, cpu_count=64, affinity=4), PC.os, findings)
    assert (facts.logical, facts.usable) == (64, usable)
    assert min(facts.bounds, key=lambda bound: bound.cpus).source == source
    assert Source(fact="cpu.usable", source=source) in findings.sources


def test_vm_stat() -> None:
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:   10.\nPages inactive: 20.\n"
    )
    assert parse_vm_stat(text) == 30 * 16384
    assert parse_vm_stat("") == 0
