"""What a wheel's file says of itself: its tag, its files, its programs."""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path

from floatllm_build.values import Target

_REPAIRED = re.compile("(manylinux|musllinux)[0-9]*_")


def platform_fits(wheel: Path, target: Target) -> bool:
    """Whether the target's Python takes a wheel with this file name."""
    tag = wheel.stem.split("-")[-1]
    own = target.platform.replace("-", "_").replace(".", "_")
    if own.startswith("linux_") and _REPAIRED.match(tag):
        # Made on this machine for its C library, which all Pythons here share.
        return all(one.endswith(own.removeprefix("linux")) for one in tag.split("."))
    if not (tag.startswith("macosx_") and own.startswith("macosx_")):
        return own in tag.split(".")
    from packaging.tags import mac_platforms  # noqa: PLC0415  a Mac's affair

    _, major, minor, arch = own.split("_", 3)
    return tag in mac_platforms((int(major), int(minor)), arch)


def read_record(wheel: Path) -> dict[str, str]:
    """Path -> `sha256=...` of every file of the wheel that its RECORD knows a hash of."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        return {path: digest for path, digest in parse_record(archive.read(name).decode()).items() if digest}


def parse_record(text: str) -> dict[str, str]:
    """Path -> hash of each line of a RECORD; the hash is empty where there is none."""
    return {row[0]: row[1] for row in csv.reader(io.StringIO(text)) if len(row) >= 2}


def console_scripts(wheel: Path) -> tuple[str, ...]:
    """Names of the programs that an installer makes for the wheel."""
    entries = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/entry_points.txt"):
                entries.read_string(archive.read(name).decode())
    return tuple(entries["console_scripts"]) if entries.has_section("console_scripts") else ()


def record_hash(content: bytes) -> str:
    """As RECORD writes it: url-safe base64 without padding."""
    text = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={text}"
