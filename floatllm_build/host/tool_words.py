"""What compilers and linkers print about themselves, and who they are by that. Pure."""

from __future__ import annotations

import re

_COMPILERS = (
    ("appleclang", r"Apple clang version (\S{1,40})"),
    ("clang", r"clang version (\d[\w.]{0,40})"),
    ("gcc", r"(?s)\A.{0,200}? (\d{1,3}\.\d{1,3}\.\d{1,3})(?:\s|$).*Free Software Foundation"),
)
# Microsoft's compiler speaks the language of its installation, in the console's code page: of its first line
# only the names, the version and the target are the same everywhere (oracle/graal#2499).
_MSVC = re.compile(r"\A[^\n]{0,200}?Microsoft ?(?:\(R\)|®)?")
_MSVC_C = re.compile(r"\A[^\n]{0,200}?C/C\+\+")
_MSVC_VERSION = re.compile(r"\A[^\n]{0,200}?(?<![\d.])(\d{2}\.\d{2}\.\d{4,6}(?:\.\d{1,6})?)(?![\d.]*\d)")
_MSVC_TARGET = re.compile(
    r"\A[^\n]{0,200}?(?<![A-Za-z0-9])(x64|(?:80)?x86|ARM64EC|ARM64|ARM|AMD64)(?![A-Za-z0-9])"
)
_MSVC_TARGETS = {"80x86": "x86", "amd64": "x64"}
_CLANG_TARGET = re.compile(r"^Target: ([\w.-]{1,60})$", re.MULTILINE)
# lld and mold say that they are compatible with GNU ld, so they come first.
_LINKERS = (
    ("mold", r"^mold (\d[\w.]{0,40})"),
    ("lld", r"LLD (\d[\w.]{0,40})"),
    ("gold", r"^GNU gold .{0,200}\) (\d[\w.]{0,40})"),
    ("ld", r"^GNU ld .{0,200}?(\d{1,3}\.\d[\w.-]{0,40})$"),
    ("apple", r"PROJECT:(?:ld|dyld)\w*-(\d[\w.]{0,40})"),
    ("msvc", r"Microsoft ?\(R\) Incremental Linker [^\n]{0,40}?(\d[\d.]{0,40})"),
)


def parse_compiler(text: str) -> tuple[str, str, str] | None:
    """Kind, version and target (empty where it does not say) from what a compiler prints about itself: for
    --version, and Microsoft's for no argument at all. None where it is none of those known.
    """
    if found := _first_match(_COMPILERS, text):
        target = _CLANG_TARGET.search(text[:4000])
        return (*found, target[1] if target else "")
    banner = text.lstrip("\ufeff \r\n\t")[:400]
    version = _MSVC_VERSION.search(banner)
    if not version or not _MSVC.search(banner) or not _MSVC_C.search(banner):
        return None
    said = _MSVC_TARGET.search(banner)
    target_word = said[1].lower() if said else ""
    return "msvc", version[1], _MSVC_TARGETS.get(target_word, target_word)


def parse_linker(text: str) -> tuple[str, str] | None:
    """As parse_compiler(), for a linker."""
    return _first_match(_LINKERS, text)


def _first_match(patterns: tuple[tuple[str, str], ...], text: str) -> tuple[str, str] | None:
    for kind, pattern in patterns:
        if match := re.search(pattern, text[:4000], re.MULTILINE):
            return kind, match[1]
    return None
