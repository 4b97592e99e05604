"""What compilers and linkers print about themselves, and who they are by that. Pure."""

from __future__ import annotations

import re

_COMPILERS = (
    ("appleclang", r"Apple clang version (\S{1,40})"),
    ("clang", r"clang version (\d[\w.]{0,40})"),
    ("gcc", r"(?s)\A.{0,200}? (\d{1,3}\.\d{1,3}\.\d{1,3})(?:\s|$).*Free Software Foundation"),
    ("msvc", r"Microsoft \(R\).{0,40}Version (\d[\d.]{0,40})"),
)
# lld and mold say that they are compatible with GNU ld, so they come first.
_LINKERS = (
    ("mold", r"^mold (\d[\w.]{0,40})"),
    ("lld", r"LLD (\d[\w.]{0,40})"),
    ("gold", r"^GNU gold .{0,200}\) (\d[\w.]{0,40})"),
    ("ld", r"^GNU ld .{0,200}?(\d{1,3}\.\d[\w.-]{0,40})$"),
    ("apple", r"PROJECT:(?:ld|dyld)\w*-(\d[\w.]{0,40})"),
    ("msvc", r"Microsoft \(R\) Incremental Linker Version (\d[\d.]{0,40})"),
)


def parse_compiler(text: str) -> tuple[str, str] | None:
    """Kind and version from what a compiler prints for --version; None where it is none of those known."""
    return _first_match(_COMPILERS, text)


def parse_linker(text: str) -> tuple[str, str] | None:
    """As parse_compiler(), for a linker."""
    return _first_match(_LINKERS, text)


def _first_match(patterns: tuple[tuple[str, str], ...], text: str) -> tuple[str, str] | None:
    for kind, pattern in patterns:
        if match := re.search(pattern, text[:4000], re.MULTILINE):
            return kind, match[1]
    return None
