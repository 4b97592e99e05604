"""Distributions: how they name themselves in os-release, and what they are made from.

Sources: os-release(5); ID and ID_LIKE as the distributions' own base-files and release packages have them
(gathered in chef/os_release and ansible's tests/unit/module_utils/facts); releases as in Debian's
distro-info-data. Read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping

# ---- releases by their code names ---------------------------------------------------------------

UBUNTU: Mapping[str, tuple[int, int]] = {
    "trusty": (14, 4),
    "xenial": (16, 4),
    "bionic": (18, 4),
    "focal": (20, 4),
    "groovy": (20, 10),
    "hirsute": (21, 4),
    "impish": (21, 10),
    "jammy": (22, 4),
    "kinetic": (22, 10),
    "lunar": (23, 4),
    "mantic": (23, 10),
    "noble": (24, 4),
    "oracular": (24, 10),
    "plucky": (25, 4),
    "questing": (25, 10),
    "resolute": (26, 4),
}
ROLLING = 99
"""Stands for the number of a release that is always the newest."""
DEBIAN: Mapping[str, int] = {
    "jessie": 8,
    "stretch": 9,
    "buster": 10,
    "bullseye": 11,
    "bookworm": 12,
    "trixie": 13,
    "forky": 14,
    "testing": ROLLING,
    "sid": ROLLING,
    "kali-rolling": ROLLING,
    # Of systems that are made from one release of Debian and say only their own name.
    "beowulf": 10,  # Devuan
    "chimaera": 11,
    "daedalus": 12,
    "excalibur": 13,
    "elsie": 11,  # LMDE
    "faye": 12,
    "gigi": 13,
    "byzantium": 11,  # PureOS
    "crimson": 12,
    "ara": 11,  # Parrot
    "lory": 12,
    "echo": 13,
}
# ID and first number of the version -> the Ubuntu below it, for releases that do not say UBUNTU_CODENAME.
ON_UBUNTU: Mapping[tuple[str, int], str] = {
    ("linuxmint", 20): "focal",
    ("linuxmint", 21): "jammy",
    ("linuxmint", 22): "noble",
    ("zorin", 16): "focal",
    ("zorin", 17): "jammy",
    ("zorin", 18): "noble",
    ("elementary", 6): "focal",
    ("elementary", 7): "jammy",
    ("elementary", 8): "noble",
    ("tuxedo", 2): "jammy",
    ("tuxedo", 3): "jammy",
    ("tuxedo", 4): "noble",
    ("bianbu", 1): "mantic",
    ("bianbu", 2): "noble",
    ("linuxlite", 6): "jammy",
    ("linuxlite", 7): "noble",
    ("bodhi", 7): "jammy",
    ("feren", 2023): "jammy",
}
# The same for Debian.
ON_DEBIAN: Mapping[tuple[str, int], str] = {
    ("mx", 19): "buster",
    ("mx", 21): "bullseye",
    ("mx", 23): "bookworm",
    ("mx", 25): "trixie",
    ("lmde", 5): "bullseye",
    ("lmde", 6): "bookworm",
    ("lmde", 7): "trixie",
    ("devuan", 4): "bullseye",
    ("devuan", 5): "bookworm",
    ("devuan", 6): "trixie",
}
# Their versions are Ubuntu's, or those of the release that they are made from.
NUMBERED_AS_UBUNTU = ("ubuntu", "pop", "neon", "tuxedo")

# ---- names ----------------------------------------------------------------------------------------

# Words of a system's name for people -> its ID, where os-release says no ID. The first that fits counts:
# `Linux Mint (based on Ubuntu)` is Mint.
WORDS: tuple[tuple[str, str], ...] = (
    (r"\blmde", "lmde"),
    (r"linux ?mint", "linuxmint"),
    (r"\bpop!_os", "pop"),
    (r"\bkde neon", "neon"),
    (r"\belementary", "elementary"),
    (r"\bzorin", "zorin"),
    (r"\btuxedo os", "tuxedo"),
    (r"\bbianbu", "bianbu"),
    (r"\blinux lite", "linuxlite"),
    (r"\b(?:[klx]?ubuntu)", "ubuntu"),
    (r"\bkali", "kali"),
    (r"\bparrot", "parrot"),
    (r"\bdevuan", "devuan"),
    (r"\barmbian", "armbian"),
    (r"\braspbian|\braspberry pi os", "raspbian"),
    (r"\bmx(?: linux)? ?-?\d", "mx"),
    (r"\bdebian|\bproxmox", "debian"),
    (r"\bbazzite", "bazzite"),
    (r"\bnobara", "nobara"),
    (r"\bultramarine", "ultramarine"),
    (r"\bfedora", "fedora"),
    (r"\bred hat|\brhel", "rhel"),
    (r"\bcentos", "centos"),
    (r"\brocky", "rocky"),
    (r"\balma", "almalinux"),
    (r"\boracle", "ol"),
    (r"\bscientific linux", "scientific"),
    (r"\bamazon", "amzn"),
    (r"\bopeneuler", "openeuler"),
    (r"\bopencloudos|\btencentos", "opencloudos"),
    (r"\banolis|\balibaba", "anolis"),
    (r"\bmageia", "mageia"),
    (r"\bopenmandriva", "openmandriva"),
    (r"\bsteamos|\bholoiso", "steamos"),
    (r"\barch", "arch"),
    (r"\bmanjaro", "manjaro"),
    (r"\bendeavour", "endeavouros"),
    (r"\bcachyos", "cachyos"),
    (r"\bgaruda", "garuda"),
    (r"\balpine", "alpine"),
    (r"\bpostmarketos", "postmarketos"),
    (r"\bchimera linux", "chimera"),
    (r"\bopensuse microos", "opensuse-microos"),
    (r"\bopensuse aeon|^aeon\b", "aeon"),
    (r"\bopensuse kalpa|^kalpa\b", "kalpa"),
    (r"\bleap micro", "opensuse-leap-micro"),
    (r"\b(?:open)?suse\b", "opensuse"),
    (r"\bvoid\b", "void"),
    (r"\bsolus\b", "solus"),
    (r"\bgentoo", "gentoo"),
    (r"\bnixos", "nixos"),
    (r"\bguix", "guix"),
    (r"\bvanilla", "vanilla"),
    (r"\bendless", "endless"),
    (r"\bfreebsd", "freebsd"),
    (r"\bghostbsd", "ghostbsd"),
    (r"\bmidnightbsd", "midnightbsd"),
    (r"\bdragonfly", "dragonfly"),
    (r"\bopenbsd", "openbsd"),
    (r"\bnetbsd", "netbsd"),
)

# ID -> package manager (a key of tables.packages.MANAGERS). ID_LIKE leads derivatives to one of these.
MANAGERS: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *(
                "debian",
                "ubuntu",
                "linuxmint",
                "lmde",
                "pop",
                "neon",
                "elementary",
                "zorin",
                "tuxedo",
                "kali",
                "parrot",
            ),
            *("devuan", "raspbian", "armbian", "bianbu", "linuxlite", "deepin", "uos", "mx", "pureos"),
        ),
        "apt",
    ),
    **dict.fromkeys(
        (
            *("fedora", "rhel", "centos", "rocky", "almalinux", "ol", "scientific", "amzn", "nobara"),
            *("ultramarine", "openeuler", "opencloudos", "anolis", "bazzite", "openmandriva", "virtuozzo"),
        ),
        "dnf",
    ),
    **dict.fromkeys(("arch", "archarm", "manjaro", "endeavouros", "cachyos", "garuda", "artix"), "pacman"),
    **dict.fromkeys(("alpine", "postmarketos"), "apk"),
    **dict.fromkeys(
        ("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "opensuse-slowroll", "sles", "sled"),
        "zypper",
    ),
    **dict.fromkeys(("azurelinux", "mariner", "photon"), "tdnf"),
    "void": "xbps-install",
    "solus": "eopkg",
    "gentoo": "emerge",
    "mageia": "urpmi",
    "nixos": "nix-shell",
    "guix": "guix",
    **dict.fromkeys(("freebsd", "ghostbsd", "midnightbsd", "dragonfly"), "pkg (FreeBSD)"),
    "openbsd": "pkg_add",
    "netbsd": "pkgin",
}

# ---- systems that are an image ----------------------------------------------------------------------

# ID or VARIANT_ID -> how packages come into it: a key of tables.packages.IMAGES.
IMAGES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("silverblue", "kinoite", "sericea", "onyx", "sway-atomic", "budgie-atomic", "cosmic-atomic"),
            *("xfce-atomic", "lxqt-atomic", "coreos", "iot", "base-main", "fedora-coreos"),
        ),
        "rpm-ostree",
    ),
    # Made by Universal Blue; they bring distrobox.
    **dict.fromkeys(("bazzite", "bluefin", "aurora", "ucore"), "universal-blue"),
    **dict.fromkeys(("steamos", "holo", "holoiso", "steamdeck"), "steamos"),
    **dict.fromkeys(
        (
            *("opensuse-microos", "microos", "opensuse-aeon", "aeon", "opensuse-kalpa", "kalpa"),
            *("opensuse-leap-micro", "leap-micro", "sle-micro", "sl-micro"),
        ),
        "transactional-update",
    ),
    "vanilla": "abroot",
    **dict.fromkeys(
        ("endless", "chimeraos", "blendos", "flatcar", "cos", "ubuntu-core", "bottlerocket"), "other"
    ),
}
