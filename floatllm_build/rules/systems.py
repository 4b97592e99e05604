"""Which distribution this is at its root: a derivative is served by what it is made from."""

from __future__ import annotations

import re

from floatllm_build.tables.systems import DEBIAN, NUMBERED_AS_UBUNTU, ON_DEBIAN, ON_UBUNTU, UBUNTU, WORDS
from floatllm_build.values import OsFacts
from floatllm_build.versions import version_tuple


def ids_of(os_facts: OsFacts) -> tuple[str, ...]:
    """Its own ID and those of what it is made from, closest first; where os-release has no ID, the one that
    the system's name for people means. Empty for a system that nobody knows.
    """
    if os_facts.id and os_facts.id != "linux":
        return (os_facts.id, *os_facts.id_like)
    called = os_facts.version.lower() or os_facts.name.lower()
    meant = tuple(system for words, system in WORDS if re.search(words, called))[:1]
    return meant + os_facts.id_like


def ubuntu_of(os_facts: OsFacts) -> tuple[int, int]:
    """(22, 4) on Ubuntu 22.04 and on what is made from it, as Linux Mint 21; (0, 0) elsewhere."""
    for name in (os_facts.ubuntu_codename, os_facts.codename):
        if name in UBUNTU:
            return UBUNTU[name]
    ids = ids_of(os_facts)
    numbers = numbers_of(os_facts)
    if ids and numbers and (ids[0], numbers[0]) in ON_UBUNTU:
        return UBUNTU[ON_UBUNTU[ids[0], numbers[0]]]
    # A year and a month.
    if ids and ids[0] in NUMBERED_AS_UBUNTU and len(numbers) > 1 and numbers[0] >= 14:
        return numbers[0], numbers[1]
    words = re.search(r"\bubuntu (\d{2})\.(\d{2})\b", os_facts.version.lower())
    return (int(words[1]), int(words[2])) if words else (0, 0)


def debian_of(os_facts: OsFacts) -> int:
    """12 on Debian 12 and on what is made from it, as Raspberry Pi OS and LMDE 6; ROLLING on testing, sid and
    Kali; 0 elsewhere, Ubuntu and its derivatives among it.
    """
    ids = ids_of(os_facts)
    if any(ubuntu_of(os_facts)) or "ubuntu" in ids:
        return 0
    for name in (os_facts.debian_codename, os_facts.codename):
        if name in DEBIAN:
            return DEBIAN[name]
    numbers = numbers_of(os_facts)
    if ids and numbers and (ids[0], numbers[0]) in ON_DEBIAN:
        return DEBIAN[ON_DEBIAN[ids[0], numbers[0]]]
    if not {"debian", "raspbian", "kali"} & set(ids):
        return 0
    called = [DEBIAN[word] for word in re.findall(r"[a-z]+", os_facts.version.lower()) if word in DEBIAN]
    if ids[0] in {"debian", "raspbian"} and numbers and not called:
        return numbers[0]
    return DEBIAN["kali-rolling"] if ids[0] == "kali" else min(called, default=0)


# Some of their derivatives call themselves like both; the numbers tell. Red Hat's are far behind.
_FIRST_FEDORA = 20
_RED_HATS = {
    "rhel",
    "centos",
    "rocky",
    "almalinux",
    "ol",
    "scientific",
    "cloudlinux",
    "virtuozzo",
    "eurolinux",
}


def fedora_of(os_facts: OsFacts) -> int:
    """42 on Fedora 42 and on what has its numbers, as Nobara 42; 0 elsewhere."""
    numbers = numbers_of(os_facts)
    return numbers[0] if "fedora" in ids_of(os_facts) and numbers and _FIRST_FEDORA < numbers[0] < 100 else 0


def rhel_of(os_facts: OsFacts) -> int:
    """8 on Red Hat Enterprise Linux 8 and on what is made from it, as Rocky 8 and CentOS 8; 0 elsewhere."""
    ids, numbers = ids_of(os_facts), numbers_of(os_facts)
    # Amazon's systems are "like" it and have numbers of their own.
    red_hats = bool(_RED_HATS & set(ids)) and ids[0] != "amzn"
    return numbers[0] if red_hats and numbers and numbers[0] <= _FIRST_FEDORA else 0


def numbers_of(os_facts: OsFacts) -> tuple[int, ...]:
    """The version's, by VERSION_ID or the first number in the name for people."""
    if version_tuple(os_facts.version_id):
        return version_tuple(os_facts.version_id)
    found = re.search(r"\d{1,4}(?:\.\d{1,3}){0,2}", os_facts.version)
    return version_tuple(found[0]) if found else ()
