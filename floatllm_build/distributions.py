"""What an environment holds: its distributions, their sizes and what they need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from floatllm_build.wheel_file import parse_record


@dataclass(frozen=True, kw_only=True)
class Distribution:
    name: str
    """As the index spells names: floatllm-cuda13."""
    version: str
    info: Path
    """Its dist-info folder."""
    requires: tuple[str, ...]
    """Names of what it needs always, not only with an extra."""

    @property
    def size(self) -> int:
        """Bytes of the files that its installer has listed."""
        try:
            listed = parse_record((self.info / "RECORD").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        return sum(_size(self.info.parent / path) for path in listed)


def distributions(sites: Iterable[Path]) -> tuple[Distribution, ...]:
    """All of them, by name."""
    found = [_read(info) for site in sites for info in site.glob("*.dist-info")]
    return tuple(sorted(found, key=lambda one: (one.name, str(one.info))))


def _read(info: Path) -> Distribution:
    # Here, because an install never asks, and has the memory for its compilers.
    import email.parser  # noqa: PLC0415

    from packaging.utils import canonicalize_name  # noqa: PLC0415

    name, _, version = info.name.removesuffix(".dist-info").partition("-")
    try:
        text = (info / "METADATA").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    needs = email.parser.HeaderParser().parsestr(text).get_all("Requires-Dist") or []
    return Distribution(
        name=canonicalize_name(name),
        version=version,
        info=info,
        requires=tuple(dict.fromkeys(filter(None, map(_needed, needs)))),
    )


def _needed(line: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    try:
        wanted = Requirement(line)
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    except InvalidRequirement:
        return ""
    return canonicalize_name(wanted.name) if applies else ""


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
