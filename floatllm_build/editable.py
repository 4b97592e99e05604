"""Makes an editable wheel (PEP 660) of a proven one: what was compiled goes into the environment, the modules
are those of the sources.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from floatllm_build.wheel_file import record_hash

_PACKAGE = "floatllm/"
_MODULES = (".py", ".typed")
# A package without __init__.py gives way to one with it, wherever that is on the path: so the folder of the
# libraries in the environment does not hide the package in the sources.
_LINK = "_floatllm_editable.pth"


def as_editable(wheel: Path, native: Path, out: Path) -> Path:
    """Writes the wheel into the folder `out`, under the same name; `native` is what holds the package."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / wheel.name
    lines = []
    with zipfile.ZipFile(wheel) as given, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        link = zipfile.ZipInfo(_LINK)
        link.external_attr = 0o644 << 16
        members = [(link, f"{native}\n".encode())]
        members += [
            (member, given.read(member)) for member in given.infolist() if not _is_module(member.filename)
        ]
        for member, content in members:
            if member.filename.endswith(".dist-info/RECORD"):
                lines.append(f"{member.filename},,\n")
                content = "".join(lines).encode()  # noqa: PLW2901  wheels have it as their last file
            else:
                lines.append(f"{member.filename},{record_hash(content)},{len(content)}\n")
            made.writestr(member, content, zipfile.ZIP_DEFLATED)
    return target


def _is_module(name: str) -> bool:
    return name.startswith(_PACKAGE) and name.endswith(_MODULES)
