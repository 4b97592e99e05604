"""What files and commands say about the system, and what we make of it."""

from __future__ import annotations

from typing import Any

import pytest
from recorded_answers import DEBIAN, done, machine, os_of

from floatllm_build.host.cpu import probe_cpu
from floatllm_build.host.findings import Findings
from floatllm_build.host.memory import probe_memory
from floatllm_build.host.os_facts import probe_os
from floatllm_build.system import LiveSystem


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
    assert os_of(files={"/etc/os-release": text}).version == name


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
