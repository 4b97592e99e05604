"""What a distribution is made from, by what its os-release says: texts as the distributions publish them."""

from __future__ import annotations

from typing import Any

import pytest

from floatllm_build.host.findings import Findings
from floatllm_build.host.os_facts import probe_os
from floatllm_build.rules.packages import as_root, install_command
from floatllm_build.rules.systems import debian_of, fedora_of, ids_of, rhel_of, ubuntu_of
from floatllm_build.system import Replay
from floatllm_build.tables.systems import ROLLING
from floatllm_build.values import OsFacts


def system(text: str = "", **kinds: Any) -> OsFacts:
    identity = {"system": "Linux", "sys_platform": "linux", "machine": "x86_64", "libc": "glibc 2.36"}
    identity |= {"bits": 64, "release": "6.1", **kinds.pop("identity", {})}
    native = {"identity": identity, **kinds.pop("native", {})}
    files = {"/etc/os-release": {"text": text}, **kinds.pop("files", {})}
    return probe_os(Replay({"schema_version": 1, "files": files, "native": native, **kinds}), Findings())


UBUNTU = (
    'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\nID=ubuntu\n'
)
MINT = (
    'NAME="Linux Mint"\nVERSION="21.3 (Virginia)"\nID=linuxmint\nID_LIKE="ubuntu debian"\n'
    'PRETTY_NAME="Linux Mint 21.3"\nVERSION_ID="21.3"\nVERSION_CODENAME=virginia\nUBUNTU_CODENAME=jammy\n'
)
LMDE = (
    'PRETTY_NAME="LMDE 6 (faye)"\nNAME="LMDE"\nVERSION_ID="6"\nVERSION="6 (faye)"\nVERSION_CODENAME=faye\n'
    "ID=linuxmint\nID_LIKE=debian\nDEBIAN_CODENAME=bookworm\n"
)
POP = (
    'NAME="Pop!_OS"\nVERSION="22.04 LTS"\nID=pop\nID_LIKE="ubuntu debian"\nPRETTY_NAME="Pop!_OS 22.04 LTS"\n'
    'VERSION_ID="22.04"\nVERSION_CODENAME=jammy\nUBUNTU_CODENAME=jammy\n'
)
KALI = (
    'PRETTY_NAME="Kali GNU/Linux Rolling"\nNAME="Kali GNU/Linux"\nVERSION_ID="2025.3"\n'
    'VERSION="2025.3"\nVERSION_CODENAME=kali-rolling\nID=kali\nID_LIKE=debian\n'
)
RASPBIAN = (
    'PRETTY_NAME="Raspbian GNU/Linux 11 (bullseye)"\nNAME="Raspbian GNU/Linux"\nVERSION_ID="11"\n'
    'VERSION="11 (bullseye)"\nVERSION_CODENAME=bullseye\nID=raspbian\nID_LIKE=debian\n'
)
ARMBIAN = 'PRETTY_NAME="Armbian 25.8.1 noble"\nNAME="Ubuntu"\nVERSION="24.04.2 LTS (Noble Numbat)"\n'
SID = 'PRETTY_NAME="Debian GNU/Linux trixie/sid"\nNAME="Debian GNU/Linux"\nID=debian\n'
NOBARA = (
    'NAME="Nobara Linux"\nVERSION="42 (KDE Plasma)"\nID=nobara\nID_LIKE="rhel centos fedora"\nVERSION_ID=42\n'
)
FEDORA = 'NAME="Fedora Linux"\nVERSION="42 (Workstation Edition)"\nID=fedora\nVERSION_ID=42\n'
ALMA = 'NAME="AlmaLinux"\nID="almalinux"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.10"\n'
AMAZON = (
    'NAME="Amazon Linux"\nVERSION="2023"\nID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n'
    'PRETTY_NAME="Amazon Linux 2023.8.20250721"\n'
)


@pytest.mark.parametrize(
    ("text", "ubuntu", "debian"),
    [
        (UBUNTU, (22, 4), 0),
        (MINT, (22, 4), 0),
        (LMDE, (0, 0), 12),
        (POP, (22, 4), 0),
        (KALI, (0, 0), ROLLING),
        (RASPBIAN, (0, 0), 11),
        (ARMBIAN, (24, 4), 0),
        (SID, (0, 0), 13),
        (FEDORA, (0, 0), 0),
        # Systems of which only the name for people is known.
        ('PRETTY_NAME="Linux Mint 20.3"\n', (20, 4), 0),
        ('PRETTY_NAME="Pop!_OS 22.04 LTS"\n', (22, 4), 0),
        ('PRETTY_NAME="Zorin OS 16.3"\nID=zorin\nVERSION_ID="16"\n', (20, 4), 0),
        ('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n', (0, 0), 12),
        ('PRETTY_NAME="LMDE 6 (faye)"\n', (0, 0), 12),
        ('PRETTY_NAME="MX 23.6 Libretto"\nID=mx\nID_LIKE=debian\nVERSION_ID="23.6"\n', (0, 0), 12),
        # A release that came after this table.
        (
            'PRETTY_NAME="Ubuntu 30.04 LTS"\nID=ubuntu\nVERSION_ID="30.04"\nVERSION_CODENAME=zany\n',
            (30, 4),
            0,
        ),
        ('PRETTY_NAME="Debian GNU/Linux 16 (x)"\nID=debian\nVERSION_ID="16"\n', (0, 0), 16),
        ("", (0, 0), 0),
    ],
)
def test_which_ubuntu_or_debian_is_below(text: str, ubuntu: tuple[int, int], debian: int) -> None:
    assert ubuntu_of(system(text)) == ubuntu
    assert debian_of(system(text)) == debian


@pytest.mark.parametrize(
    ("text", "fedora", "rhel"),
    [
        (FEDORA, 42, 0),
        (ALMA, 0, 8),
        (AMAZON, 0, 0),
        (NOBARA, 42, 0),
        ('PRETTY_NAME="CentOS Linux 8"\nNAME="CentOS Linux"\nVERSION="8"\n', 0, 8),
        ('PRETTY_NAME="CentOS Linux 7 (Core)"\nID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n', 0, 7),
        (UBUNTU, 0, 0),
    ],
)
def test_which_fedora_or_red_hat_is_below(text: str, fedora: int, rhel: int) -> None:
    assert (fedora_of(system(text)), rhel_of(system(text))) == (fedora, rhel)


def test_an_id_counts_before_the_name_and_the_name_where_there_is_none() -> None:
    assert ids_of(system(MINT)) == ("linuxmint", "ubuntu", "debian")
    assert ids_of(system('PRETTY_NAME="Fedora Linux 41"\n')) == ("fedora",)
    assert ids_of(system('PRETTY_NAME="Plan 9 from Linux"\n')) == ()


@pytest.mark.parametrize(
    ("kinds", "image"),
    [
        ({"globs": {"/run/ostree-booted": ["/run/ostree-booted"]}}, "ostree"),
        ({"native": {"usr_flags": 4097}}, "read-only"),
        ({"native": {"usr_flags": 4096}}, ""),
        ({}, ""),
    ],
)
def test_systems_that_cannot_be_changed_in_place(kinds: dict[str, Any], image: str) -> None:
    assert system(FEDORA, **kinds).image == image


@pytest.mark.parametrize(
    ("kinds", "root", "sudo"),
    [
        ({"native": {"euid": 0}}, True, ""),
        ({"native": {"euid": 1000}, "which": {"doas": "/usr/bin/doas"}}, False, "doas"),
        ({"which": {"sudo": "/usr/bin/sudo", "doas": "/usr/bin/doas"}}, None, "sudo"),
    ],
)
def test_who_the_user_is(kinds: dict[str, Any], root: bool | None, sudo: str) -> None:
    facts = system(FEDORA, **kinds)
    assert (facts.root, facts.sudo) == (root, sudo)


@pytest.mark.parametrize(
    ("kinds", "container"),
    [
        (
            {
                "globs": {
                    "/run/.toolboxenv": ["/run/.toolboxenv"],
                    "/run/.containerenv": ["/run/.containerenv"],
                }
            },
            "toolbox",
        ),
        (
            {
                "environ": {"DISTROBOX_ENTER_PATH": "/x"},
                "globs": {"/run/.containerenv": ["/run/.containerenv"]},
            },
            "distrobox",
        ),
        ({"environ": {"SINGULARITY_CONTAINER": "/x.sif"}}, "apptainer"),
        ({"globs": {"/.flatpak-info": ["/.flatpak-info"]}}, "flatpak"),
        ({"identity": {"release": "6.2.1-PRoot-Distro"}}, "proot"),
        ({"environ": {"TERMUX_VERSION": "0.118.1"}}, "proot"),
    ],
)
def test_more_kinds_of_containers(kinds: dict[str, Any], container: str) -> None:
    assert system(UBUNTU, **kinds).container == container


# ---- what brings packages -------------------------------------------------------------------------

OSTREE = {"globs": {"/run/ostree-booted": ["/run/ostree-booted"]}}
BAZZITE = (
    'NAME="Bazzite"\nID=bazzite\nID_LIKE="fedora"\nVERSION_ID=42\nVARIANT_ID=bazzite\nOSTREE_VERSION="42.1"\n'
)
COREOS = 'NAME="Fedora Linux"\nID=fedora\nVERSION_ID=42\nVARIANT_ID=coreos\n'
STEAMOS = 'NAME="SteamOS"\nPRETTY_NAME="SteamOS"\nID=steamos\nID_LIKE=arch\nVARIANT_ID=steamdeck\n'
AEON = 'NAME="openSUSE Aeon"\nID="opensuse-aeon"\nID_LIKE="suse opensuse opensuse-tumbleweed microos"\n'
VANILLA = 'NAME="Vanilla OS"\nID=vanilla\nID_LIKE=debian\nVERSION_CODENAME=orchid\n'


@pytest.mark.parametrize(
    ("text", "kinds", "parts"),
    [
        (
            FEDORA + "VARIANT_ID=kinoite\n",
            {},
            ["toolbox", "sudo rpm-ostree install gcc-c++", "dnf install gcc-c++"],
        ),
        (FEDORA, OSTREE, ["toolbox", "sudo rpm-ostree install gcc-c++"]),
        (
            'PRETTY_NAME="Fedora Linux 42.20250801.0 (Kinoite)"\n',
            {},
            ["toolbox", "rpm-ostree install gcc-c++"],
        ),
        ('PRETTY_NAME="openSUSE MicroOS"\n', {}, ["distrobox", "transactional-update"]),
        (COREOS, OSTREE, ["toolbox", "rpm-ostree"]),
        (BAZZITE, {}, ["distrobox", "toolbox", "rpm-ostree install gcc-c++"]),
        (STEAMOS, {}, ["distrobox", "sudo pacman -S gcc"]),
        (AEON, {}, ["distrobox", "sudo transactional-update pkg install gcc-c++", "zypper install gcc-c++"]),
        (VANILLA, {}, ["apx", "sudo abroot pkg add g++"]),
        (
            'PRETTY_NAME="Endless OS 6.0"\nID=endless\nID_LIKE=debian\n',
            OSTREE,
            ["toolbox", "apt install g++"],
        ),
        (UBUNTU, {"native": {"usr_flags": 1}}, ["toolbox", "sudo apt install g++"]),
    ],
)
def test_a_system_that_is_an_image_gets_a_container(
    text: str, kinds: dict[str, Any], parts: list[str]
) -> None:
    fix = install_command(system(text, **kinds), "c++")
    assert [part for part in parts if part not in fix] == []
    assert "make a container" in fix


def test_other_commands_go_into_the_container_as_well() -> None:
    command = as_root(system(FEDORA, **OSTREE), "sudo dnf install cuda-toolkit-12-9")
    assert "toolbox" in command
    assert "sudo dnf install cuda-toolkit-12-9" in command


def test_in_a_container_of_such_a_system_packages_are_installed_as_usual() -> None:
    inside = {"globs": {"/run/.toolboxenv": ["/run/.toolboxenv"], **OSTREE["globs"]}}
    facts = system(FEDORA, **inside, which={"sudo": "/usr/bin/sudo"}, native={"euid": 1000})
    assert install_command(facts, "c++") == "sudo dnf install gcc-c++"


@pytest.mark.parametrize(
    ("text", "kinds", "command"),
    [
        (MINT, {}, "sudo apt install g++"),
        (KALI, {}, "sudo apt install g++"),
        (NOBARA, {}, "sudo dnf install gcc-c++"),
        ('NAME="EndeavourOS"\nID=endeavouros\nID_LIKE=arch\n', {}, "sudo pacman -S gcc"),
        ('NAME="CachyOS Linux"\nID=cachyos\nID_LIKE=arch\n', {}, "sudo pacman -S gcc"),
        ('NAME="Alpine Linux"\nID=alpine\n', {}, "sudo apk add build-base"),
        ('NAME="Void"\nID="void"\n', {}, "sudo xbps-install -S gcc"),
        (
            'PRETTY_NAME="CentOS Linux 7 (Core)"\nID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="7"\n',
            {},
            "sudo yum",
        ),
        (
            'PRETTY_NAME="Amazon Linux 2"\nID="amzn"\nID_LIKE="centos rhel fedora"\nVERSION_ID="2"\n',
            {},
            "sudo yum",
        ),
        ('PRETTY_NAME="Amazon Linux 2"\n', {}, "sudo yum"),
        (AMAZON, {}, "sudo dnf"),
        (ALMA, {"which": {"microdnf": "/usr/bin/microdnf"}}, "sudo microdnf install gcc-c++"),
        # Nobody knows it, and its own package manager says what it is like.
        (
            'NAME="Plan 9"\nID=plan9\n',
            {"which": {"zypper": "/usr/bin/zypper"}},
            "sudo zypper install gcc-c++",
        ),
        ('NAME="New"\nID=new\nID_LIKE="cachyos arch"\n', {}, "sudo pacman -S gcc"),
        ('NAME="NixOS"\nID=nixos\n', {"native": {"usr_flags": 1}}, "nix-shell -p gcc"),
    ],
)
def test_each_has_its_own_package_manager(text: str, kinds: dict[str, Any], command: str) -> None:
    assert install_command(system(text, **kinds), "c++").startswith(command)


@pytest.mark.parametrize(
    ("kinds", "command"),
    [
        ({"native": {"euid": 0}, "which": {"sudo": "/usr/bin/sudo"}}, "apt install g++"),
        ({"native": {"euid": 1000}, "which": {"sudo": "/usr/bin/sudo"}}, "sudo apt install g++"),
        ({"native": {"euid": 1000}, "which": {"doas": "/usr/bin/doas"}}, "doas apt install g++"),
        ({"native": {"euid": 1000}}, "apt install g++, as root"),
        ({"globs": {"/run/.toolboxenv": ["/run/.toolboxenv"]}}, "sudo apt install g++"),
        ({}, "sudo apt install g++"),
        # In a container: root as a rule, and not where sudo is there or the user is known.
        ({"files": {"/run/systemd/container": {"text": "lxc"}}}, "apt install g++"),
        (
            {"files": {"/run/systemd/container": {"text": "lxc"}}, "which": {"sudo": "/usr/bin/sudo"}},
            "sudo apt install g++",
        ),
        (
            {"globs": {"/.dockerenv": ["/.dockerenv"]}, "native": {"euid": 1000}},
            "apt install g++, as root",
        ),
    ],
)
def test_commands_are_for_the_user_that_runs_them(kinds: dict[str, Any], command: str) -> None:
    assert install_command(system(UBUNTU, **kinds), "c++") == command
