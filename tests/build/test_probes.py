"""What files and commands say about the system and its processor, and what we make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import PC

from floatllm_build.errors import UsageFaultError
from floatllm_build.host.arm import arm_features
from floatllm_build.host.cpu import parse_cpu_list, parse_cpuinfo, probe_cpu
from floatllm_build.host.findings import Findings
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.os_facts import parse_os_release, probe_os
from floatllm_build.host.python import find_target, probe_python
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.sizes import parse_size, show_size
from floatllm_build.system import LiveSystem, Replay
from floatllm_build.values import CpuFacts, OsFacts

LINUX = {"system": "Linux", "sys_platform": "linux", "release": "6.1.0", "machine": "x86_64", "bits": 64}
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION="12 (bookworm)"\n'
PHONE = replace(PC.os, name="Android", machine="aarch64", termux=True)
BOARD = replace(PC.os, machine="aarch64")


def done(out: str = "", err: str = "", rc: int = 0) -> dict[str, Any]:
    return {"rc": rc, "out": out, "err": err}


def machine(identity: dict[str, Any] | None = None, **kinds: dict[str, Any]) -> Replay:
    files = {
        path: {"text": text} if isinstance(text, str) else text
        for path, text in kinds.pop("files", {}).items()
    }
    native = {"identity": {**LINUX, **(identity or {})}, **kinds.pop("native", {})}
    return Replay({"schema_version": 1, "files": files, "native": native, **kinds})


def os_of(identity: dict[str, Any] | None = None, **kinds: dict[str, Any]) -> OsFacts:
    return probe_os(machine(identity, **kinds), Findings())


# ---- system -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "environ", "name", "termux"),
    [
        ({}, {"TERMUX_VERSION": "0.118"}, "Android", True),
        ({}, {"PREFIX": "/data/data/com.termux/files/usr"}, "Android", True),
        ({"prefix": "/data/data/com.termux/files/usr"}, {}, "Android", True),
        ({"prefix": "/data/data/com.termux/files/home/venv"}, {}, "Android", True),
        ({"system": "Android", "sys_platform": "android"}, {}, "Android", False),
        ({}, {}, "Linux", False),
        ({}, {"PREFIX": "/usr/local"}, "Linux", False),
        # A distribution inside proot inherits the variables.
        ({"libc": "glibc 2.36"}, {"TERMUX_VERSION": "0.118"}, "Linux", False),
    ],
)
def test_termux_under_all_its_names(
    identity: dict[str, str], environ: dict[str, str], name: str, termux: bool
) -> None:
    facts = os_of(identity, environ=environ)
    assert (facts.name, facts.termux) == (name, termux)


def test_termux_over_ssh_inside_an_environment_is_known_by_its_folder() -> None:
    pkg = "/data/data/com.termux/files/usr/bin/pkg"
    globs = {"/system/build.prop": ["/system/build.prop"], pkg: [pkg]}
    facts = os_of({"prefix": "{home}/venv", "libc": "libc"}, globs=globs)
    assert (facts.name, facts.termux, facts.libc) == ("Android", True, "bionic")


PROPERTIES = "ro.build.version.release=13\nro.build.version.sdk=33\n"


@pytest.mark.parametrize(
    ("commands", "files", "version", "level"),
    [
        (
            {
                "getprop ro.build.version.release": done("15\n"),
                "getprop ro.build.version.sdk": done("35\n"),
            },
            {},
            "Android 15",
            35,
        ),
        ({}, {"/system/build.prop": PROPERTIES}, "Android 13", 33),
        ({}, {"/system/build.prop": {"errno": "EACCES"}}, "", 0),
        ({"getprop ro.build.version.sdk": done("9" * 9000)}, {}, "", 0),
    ],
)
def test_android_tells_its_version(
    commands: dict[str, Any], files: dict[str, Any], version: str, level: int
) -> None:
    facts = os_of(environ={"TERMUX_VERSION": "0.118"}, commands=commands, files=files)
    assert (facts.version, facts.api_level) == (version, level)


def test_what_android_refuses_is_a_note() -> None:
    findings = Findings()
    files = {"/system/build.prop": {"errno": "EACCES"}}
    probe_os(machine(environ={"TERMUX_VERSION": "1"}, files=files), findings)
    assert {note.source for note in findings.notes} == {
        "getprop ro.build.version.release",
        "getprop ro.build.version.sdk",
        "/system/build.prop",
    }


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (DEBIAN, "Debian GNU/Linux 12 (bookworm)"),
        ("NAME=Alpine\nVERSION='3.20'\n", "Alpine 3.20"),
        ("ID=x\n", ""),
    ],
)
def test_os_release(text: str, name: str) -> None:
    assert parse_os_release(text) == name


@pytest.mark.parametrize("path", ["/etc/os-release", "/usr/lib/os-release"])
def test_the_systems_name_stands_in_either_file(path: str) -> None:
    assert os_of(files={path: DEBIAN}).version == "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.parametrize(
    ("identity", "commands", "version", "release"),
    [
        ({"system": "Darwin", "system_version": "15.1", "release": "24.1.0"}, {}, "macOS 15.1", "24.1.0"),
        (
            {"system": "Darwin", "system_version": "10.16", "release": "24.1.0"},
            {"SYSTEM_VERSION_COMPAT=0 sw_vers -productVersion": done("15.1\n")},
            "macOS 15.1",
            "24.1.0",
        ),
        (
            {"system": "Windows", "system_version": "10.0.22631", "release": "11"},
            {},
            "Windows 11 (10.0.22631)",
            "10.0.22631",
        ),
    ],
)
def test_macs_and_windows(
    identity: dict[str, Any], commands: dict[str, Any], version: str, release: str
) -> None:
    facts = os_of(identity, commands=commands)
    assert (facts.version, facts.release, facts.libc) == (version, release, "")


MUSL = {"/lib/ld-musl-*.so.1": ["/lib/ld-musl-x86_64.so.1"]}
MUSL_SAYS = (
    "musl libc (x86_64)\nVersion 1.2.5\nDynamic Program Loader\nUsage: /lib/ld-musl-x86_64.so.1 [options]\n"
)


@pytest.mark.parametrize(
    ("told", "globs", "libc"),
    [
        ("glibc 2.36", {}, "glibc 2.36"),
        ("", MUSL, "musl 1.2.5"),
        # What platform.libc_ver() finds in the interpreter's file need not be what runs it.
        ("libc", MUSL, "musl 1.2.5"),
        ("glibc 2.17", MUSL, "musl 1.2.5"),
        ("glibc 2.36", {**MUSL, "/lib*/ld-linux*.so.*": ["/lib64/ld-linux-x86-64.so.2"]}, "glibc 2.36"),
        ("", {}, ""),
    ],
)
def test_c_libraries(told: str, globs: dict[str, Any], libc: str) -> None:
    commands = {"/lib/ld-musl-x86_64.so.1": done(err=MUSL_SAYS, rc=1)}
    assert os_of({"libc": told}, globs=globs, commands=commands).libc == libc


@pytest.mark.parametrize(
    ("kinds", "container"),
    [
        ({}, ""),
        ({"globs": {"/.dockerenv": ["/.dockerenv"]}}, "docker"),
        ({"globs": {"/run/.containerenv": ["/run/.containerenv"]}}, "podman"),
        ({"files": {"/run/systemd/container": "lxc\n"}}, "lxc"),
        ({"files": {"/run/systemd/container": "wsl\n"}}, ""),
        ({"environ": {"container": "oci"}}, "container"),
        ({"environ": {"container": "systemd-nspawn"}}, "systemd-nspawn"),
        ({"environ": {"container": "\x1b[31m"}}, "container"),
        (
            {"environ": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "globs": {"/.dockerenv": ["/.dockerenv"]}},
            "kubernetes",
        ),
        ({"files": {"/proc/1/cgroup": "1:name=systemd:/libpod-0/x\n"}}, "podman"),
        ({"files": {"/proc/1/cgroup": "0::/init.scope\n"}}, ""),
    ],
)
def test_containers(kinds: dict[str, Any], container: str) -> None:
    assert os_of(**kinds).container == container


@pytest.mark.parametrize(
    ("release", "environ", "wsl"),
    [
        ("5.15.153.1-microsoft-standard-WSL2", {"WSL_DISTRO_NAME": "Ubuntu"}, 2),
        ("5.15.153.1-microsoft-standard-WSL2", {}, 2),
        ("4.4.0-19041-Microsoft", {"WSL_DISTRO_NAME": "Ubuntu"}, 1),
        ("6.6.1-mine", {"WSL_DISTRO_NAME": "Ubuntu"}, 2),
        ("6.1.0-21-amd64", {}, 0),
    ],
)
def test_wsl(release: str, environ: dict[str, Any], wsl: int) -> None:
    assert os_of({"release": release}, environ=environ).wsl == wsl


@pytest.mark.parametrize(
    ("name", "answer", "rosetta"),
    [("x86_64", "1\n", True), ("x86_64", "0\n", False), ("arm64", "1\n", False)],
)
def test_rosetta(name: str, answer: str, rosetta: bool) -> None:
    commands = {"sysctl -n sysctl.proc_translated": done(answer)}
    assert os_of({"system": "Darwin", "machine": name}, commands=commands).rosetta is rosetta


@pytest.mark.parametrize("name", ["aarch64", "armv8l", "x86_64"])
def test_a_32_bit_userland_on_a_64_bit_kernel_is_noted(name: str) -> None:
    findings = Findings()
    facts = probe_os(machine({"machine": name, "bits": 32}), findings)
    assert (facts.bits, facts.machine) == (32, name)
    assert any("32-bit program on a 64-bit machine" in note.said for note in findings.notes)


def test_this_machine_answers_every_probe() -> None:
    findings, live = Findings(), LiveSystem()
    facts = probe_os(live, findings)
    assert facts.name in {"Linux", "Darwin", "Android", "Windows"}
    assert facts.version
    cpu, memory = probe_cpu(live, facts, findings), probe_memory(live, facts, findings)
    assert cpu.features
    assert 1 <= cpu.usable <= cpu.logical
    assert 0 < memory.room <= memory.capacity <= memory.total
    assert {source.fact.split(".")[0] for source in findings.sources} == {"os", "cpu", "memory"}


# ---- processor --------------------------------------------------------------------------------


def cpu_of(os_facts: OsFacts, **kinds: dict[str, Any]) -> CpuFacts:
    return probe_cpu(machine(**kinds), os_facts, Findings())


X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) N100\nflags\t\t: fpu avx avx2\n"
A53_A73 = (
    "processor\t: 0\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n\n"
    "processor\t: 4\nFeatures\t: fp asimd crc32 asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd09\n\n"
)


@pytest.mark.parametrize(
    ("text", "vendor", "name", "features"),
    [
        (X86, "GenuineIntel", "Intel(R) N100", ("avx", "avx2", "fpu")),
        (A53_A73, "ARM", "Cortex-A53 + Cortex-A73", ("asimd", "crc32", "fp")),
        (
            A53_A73 + "Hardware\t: Qualcomm Technologies, Inc SDM660\n",
            "ARM",
            "Qualcomm Technologies, Inc SDM660 (Cortex-A53 + Cortex-A73)",
            ("asimd", "crc32", "fp"),
        ),
        ("CPU implementer : 0x99\nCPU part : 0x1\nFeatures : fp\n", "", "", ("fp",)),
        ("CPU implementer : 0x51\nCPU part : 0x001\n", "Qualcomm", "Oryon", ()),
        ("CPU implementer : 0xc0\nCPU part : 0xac3\n", "Ampere", "Ampere-1", ()),
        ("", "", "", ()),
    ],
)
def test_cpuinfo(text: str, vendor: str, name: str, features: tuple[str, ...]) -> None:
    found = parse_cpuinfo(text)
    assert (found.vendor, found.name, found.features) == (vendor, name, features)


def test_only_the_lines_that_count_are_read_from_cpuinfo() -> None:
    text = X86 + "Serial\t\t: 10000000abcdef01\nbugs\t\t: avx512f\n"
    facts = cpu_of(PC.os, files={"/proc/cpuinfo": text}, native={"cpu_count": 4})
    assert (facts.name, facts.features) == ("Intel(R) N100", ("avx", "avx2", "fpu"))


# Bits by the kernel's documentation of arm64's hwcaps: ASIMDDP is bit 20 of the first word, and so on.
@pytest.mark.parametrize(
    ("first", "second", "features"),
    [
        (1 << 1, 0, ("asimd",)),
        (1 << 10, 0, ("asimdhp",)),
        (1 << 20, 0, ("asimddp",)),
        (1 << 22, 0, ("sve",)),
        (1 << 23, 0, ("asimdfhm",)),
        (1 << 31, 0, ("pacg",)),
        (0, 1 << 1, ("sve2",)),
        (0, 1 << 9, ("svei8mm",)),
        (0, 1 << 13, ("i8mm",)),
        (0, 1 << 14, ("bf16",)),
        (0, 1 << 23, ("sme",)),
        (0, 1 << 37, ("sme2",)),
        (1 << 63, 1 << 63, ()),
    ],
)
def test_hardware_capabilities(first: int, second: int, features: tuple[str, ...]) -> None:
    assert arm_features(first, second) == features


def test_the_kernels_word_counts_more_than_cpuinfo_on_arm() -> None:
    caps = {"hwcap": 0b11 | 1 << 20, "hwcap2": 1 << 13}
    found = cpu_of(PHONE, files={"/proc/cpuinfo": A53_A73}, native={"hwcaps": caps, "cpu_count": 8})
    assert found.features == ("asimd", "asimddp", "fp", "i8mm")


@pytest.mark.parametrize("caps", [None, [], {"hwcap": 0}, {"hwcap": "3"}, {"hwcap": -1}, {"hwcap": 1 << 70}])
def test_without_it_counts_what_all_cores_share(caps: object) -> None:
    findings = Findings()
    system = machine(files={"/proc/cpuinfo": A53_A73}, native={"hwcaps": caps, "cpu_count": 8})
    assert probe_cpu(system, PHONE, findings).features == ("asimd", "crc32", "fp")
    assert "getauxval" in {note.source for note in findings.notes}


def test_to_a_32_bit_program_the_bits_mean_something_else() -> None:
    system = machine(files={"/proc/cpuinfo": A53_A73}, native={"hwcaps": {"hwcap": 1 << 22, "hwcap2": 0}})
    assert "sve" not in probe_cpu(system, replace(PHONE, bits=32), Findings()).features


def test_a_board_has_a_name() -> None:
    name = "/sys/firmware/devicetree/base/model"
    cores = "CPU implementer : 0x41\nCPU part : 0xd42\n"
    files = {name: "NVIDIA Jetson AGX Orin Developer Kit\0", "/proc/cpuinfo": cores}
    assert cpu_of(BOARD, files=files).name == "NVIDIA Jetson AGX Orin Developer Kit (Cortex-A78AE)"
    pi = "Raspberry Pi 4 Model B Rev 1.4"
    both = {name: f"{pi}\0", "/proc/cpuinfo": f"CPU implementer : 0x41\nCPU part : 0xd08\nModel : {pi}\n"}
    assert cpu_of(BOARD, files=both).name == f"{pi} (Cortex-A72)"


def _frequencies(*values: int) -> dict[str, Any]:
    folder = "/sys/devices/system/cpu"
    return {f"{folder}/cpu{i}/cpufreq/cpuinfo_max_freq": f"{value}\n" for i, value in enumerate(values)}


CPUS = "/sys/devices/system/cpu"


@pytest.mark.parametrize(
    ("files", "big"),
    [
        ({}, 0),
        (_frequencies(1800000, 1800000, 2200000, 2200000), 2),
        (_frequencies(1785600, 1785600, 2496000, 2995200), 2),
        (_frequencies(1800000, 1800000), 0),
        # One small core with a large core's clock: the kernel's measure decides.
        (
            {
                **_frequencies(2000000, 2000000),
                f"{CPUS}/cpu0/cpu_capacity": "400\n",
                f"{CPUS}/cpu1/cpu_capacity": "1024\n",
            },
            1,
        ),
    ],
)
def test_big_cores(files: dict[str, Any], big: int) -> None:
    assert cpu_of(PHONE, files=files, native={"cpu_count": 4}).big_cores == big


def test_clocks_that_are_denied_are_one_note() -> None:
    files = {f"{CPUS}/cpu{i}/cpufreq/cpuinfo_max_freq": {"errno": "EACCES"} for i in range(8)}
    findings = Findings()
    assert probe_cpu(machine(files=files, native={"cpu_count": 8}), PHONE, findings).big_cores == 0
    assert [note.source for note in findings.notes if "freq" in note.source] == [
        f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq"
    ]


def test_a_hybrid_pc_counts_cores_and_not_threads() -> None:
    files = {"/sys/devices/cpu_core/cpus": "0-3\n", "/sys/devices/cpu_atom/cpus": "4-7\n"}
    files |= {f"{CPUS}/cpu{i}/topology/thread_siblings_list": f"{i & ~1}-{i | 1}\n" for i in range(4)}
    assert cpu_of(PC.os, files=files, native={"cpu_count": 8}).big_cores == 2


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8\n", (0, 1, 2, 3, 8)), ("", ()), ("x", ()), ("1022-9999", (1022, 1023))]
)
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def test_a_mac() -> None:
    commands = {
        "sysctl -n machdep.cpu.brand_string": done("Apple M4\n"),
        "sysctl hw.optional": done("hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\n"),
        "sysctl -n hw.perflevel0.physicalcpu": done("4\n"),
        "sysctl -n hw.perflevel1.physicalcpu": done("6\n"),
    }
    facts = cpu_of(
        replace(PC.os, name="Darwin", machine="arm64"), commands=commands, native={"cpu_count": 10}
    )
    assert (facts.arch, facts.vendor, facts.name) == ("arm64", "Apple", "Apple M4")
    assert (facts.features, facts.big_cores) == (("FEAT_DotProd",), 4)


def test_windows_names_the_processor_in_a_variable() -> None:
    environ = {"PROCESSOR_IDENTIFIER": "Intel64 Family 6 Model 154 Stepping 3, GenuineIntel"}
    facts = cpu_of(replace(PC.os, name="Windows", machine="AMD64"), environ=environ)
    assert (facts.arch, facts.vendor) == ("x86_64", "GenuineIntel")
    assert facts.name == "Intel64 Family 6 Model 154 Stepping 3"


# ---- whatever a record says -------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PATHS = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/etc/os-release",
    "/proc/1/cgroup",
    "/sys/firmware/devicetree/base/model",
    f"{CPUS}/cpu0/cpu_capacity",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cpu.max",
    "/sys/devices/cpu_core/cpus",
)
WORDS = st.sampled_from(
    [
        "0::/\n",
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "MemTotal: 9 kB\n",
        "9" * 5000,
        "-1",
        "1-9",
    ]
)
TEXTS = st.lists(st.text(max_size=60) | WORDS, max_size=3).map("".join)
ANSWERS = st.fixed_dictionaries({"rc": st.integers(-9, 127), "out": TEXTS, "err": TEXTS})
NAMES = ("cpu_count", "affinity", "hwcaps", "rlimit_as", "windows_memory")
COMMANDS = ("c++ --version", "/x/ld --version", "xcode-select -p", "vm_stat", "sysctl -n hw.memsize", "cl")
SYSTEMS = st.sampled_from(["Linux", "Darwin", "Windows", "Android", "Plan9"])


@settings(max_examples=200, deadline=None)
@given(
    identity=st.dictionaries(
        st.sampled_from(["machine", "bits", "release", "libc", "prefix", "executable"]), JSON
    )
    | JSON,
    name=SYSTEMS,
    native=st.dictionaries(st.sampled_from(NAMES), JSON),
    files=st.dictionaries(st.sampled_from(PATHS), TEXTS.map(lambda text: {"text": text})),
    commands=st.dictionaries(st.sampled_from(COMMANDS), ANSWERS),
    asked=ANSWERS,
)
def test_no_record_makes_a_probe_raise(
    identity: Any, name: str, native: dict[str, Any], files: Any, commands: Any, asked: Any
) -> None:
    told = {"system": name, **identity} if isinstance(identity, dict) else identity
    which = {"c++": "/x/c++", "ld": "/x/ld", "cl": "/x/cl", "g++-12": "/x/g"}
    record = {
        "schema_version": 1,
        "native": {"identity": told, **native},
        "files": files,
        "commands": commands,
        "which": which,
        "asked": {"target /p/python": asked},
    }
    system, findings = Replay(record), Findings()
    facts = probe_os(system, findings)
    for os_facts in (facts, replace(facts, name=name, machine="aarch64", bits=64)):
        cpu = probe_cpu(system, os_facts, findings)
        assert 1 <= cpu.usable <= cpu.logical
        memory = probe_memory(system, os_facts, findings)
        assert 0 <= memory.room < 1 << 63
        probe_toolchain(system, os_facts, findings)
    probe_python(system, findings)
    find_target(system, "/p/python", findings)


# ---- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("2GiB", 2 << 30), ("1.5g", 3 << 29), ("48 m", 48 << 20), ("7", 7), ("1kib", 1024)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1M", "1X", "1e9", "0.1", "nan", "M", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageFaultError):
        parse_size(text)


def test_sizes_are_shown_in_the_largest_unit() -> None:
    assert [show_size(size) for size in (512, 1 << 20, 1500 << 20, 23 << 30)] == [
        *("512 B", "1.0 MiB", "1.5 GiB", "23.0 GiB")
    ]
