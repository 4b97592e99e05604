"""Makes an editable wheel (PEP 660) of a proven one: what was compiled goes into the environment, the modules
are those of the sources.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from floatllm_build.sites import EDITABLE_LINK, KEY_FILE, is_module
from floatllm_build.values import Wheel
from floatllm_build.wheel_file import record_hash


def as_editable(wheel: Wheel, native: Path, out: Path) -> Path:
    """Writes the wheel into the folder `out`, under the same name; `native` is what holds the package.

    It says which engine it was made of, as the folder of another wheel does.
    """
    out.mkdir(parents=True, exist_ok=True)
    target = out / Path(wheel.path).name
    lines = []
    with zipfile.ZipFile(wheel.path) as given, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        info = next(name for name in given.namelist() if name.endswith(".dist-info/RECORD"))[: -len("RECORD")]
        members = [
            (_member(EDITABLE_LINK), f"{native}\n".encode()),
            (_member(info + KEY_FILE), json.dumps({"key": wheel.key}).encode()),
        ]
        members += [
            (member, given.read(member)) for member in given.infolist() if not is_module(member.filename)
        ]
        for member, content in members:
            if member.filename.endswith(".dist-info/RECORD"):
                lines.append(f"{member.filename},,\n")
                content = "".join(lines).encode()  # noqa: PLW2901  wheels have it as their last file
            else:
                lines.append(f"{member.filename},{record_hash(content)},{len(content)}\n")
            made.writestr(member, content, zipfile.ZIP_DEFLATED)
    return target


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    return member
