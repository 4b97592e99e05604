"""Packs the engine's source archive: the repository's own shape, with the verified ggml in it and those
parts of this tool that the build backend needs.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from floatllm_build.errors import BuildFailedError, MissingError, UsageFaultError
from floatllm_build.files import write_whole
from floatllm_build.process import run_child

_HOME = Path(__file__).resolve().parent
_PROJECT = "native/pyproject.toml"
# The command line needs packages that are not among the requirements of a build.
_NOT_CARRIED = {"__main__.py", "cli", "data", "render"}
# How the archive's own project file differs from the engine's, which lies a folder deeper.
_CHANGES = (
    ('backend-path = ["."]', 'backend-path = ["native"]'),
    ('readme = "README.md"', 'readme = "native/README.md"'),
    ('license = "MIT"', 'license = "MIT"\nlicense-files = ["LICENSE", "ggml/source/LICENSE"]'),
)
# What the project file names.
_NAMED = ("LICENSE", "ggml/source/LICENSE", "native/README.md")
# What a wheel built from it may have otherwise: which packages it needs is part of the plan, and its
# licences have folders of their own.
_DYNAMIC = "Dynamic: Requires-Dist\nDynamic: License-File\n"
# 1980, where the times of a wheel's files begin as well.
_EPOCH = "315532800"
_DIGITS = len(str(1 << 32))
_LAST_LINES = 6


def pack_sdist(files: Mapping[str, bytes], out: Path) -> Path:
    """Packs `files` (by POSIX path) and our own modules: the same content makes the same bytes.

    Raises BuildFailedError where the metadata cannot be made, MissingError for damaged sources and
    UsageFaultError for a SOURCE_DATE_EPOCH that is no time.
    """
    time = _time()
    project = {"pyproject.toml": root_project(files.get(_PROJECT, b""))}
    metadata = _metadata({**project, **{name: files[name] for name in _NAMED}})
    stem = "-".join(_field(metadata, name) for name in ("Name", "Version"))
    whole = {**files, **_own_modules(), **project, "PKG-INFO": metadata.encode()}
    target = out / f"{stem}.tar.gz"
    whole_file = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", mtime=time, fileobj=whole_file) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, content in sorted(whole.items()):
            # Nobody's, and no program.
            member = tarfile.TarInfo(f"{stem}/{name}")
            member.size, member.mtime = len(content), time
            archive.addfile(member, io.BytesIO(content))
    write_whole(target, whole_file.getvalue(), shared=True)
    return target


def root_project(text: bytes) -> bytes:
    """The archive's own pyproject.toml, made from the engine's. Raises MissingError for a damaged one."""
    # What follows are settings for packing wheels, which are read where they are.
    head, found, _ = text.decode().partition("\n[tool.")
    for before, after in _CHANGES:
        if not found or head.count(f"{before}\n") != 1:
            raise MissingError(f"{_PROJECT} of this floatllm-build is damaged. Install the tool again.")
        head = head.replace(f"{before}\n", f"{after}\n")
    return head.encode()


def _metadata(files: Mapping[str, bytes]) -> str:
    """What PKG-INFO says, made of the project file by scikit-build-core."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as made:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        module = f"{_HOME.name}.build.skbuild"
        argv = (sys.executable, "-m", module, made, json.dumps({"wheel.cmake": "false"}), "metadata")
        env = {name: value for name, value in os.environ.items() if not name.startswith("SKBUILD_")}
        said: list[str] = []
        status = run_child(
            argv,
            cwd=Path(scratch),
            env={**env, "PYTHONPATH": os.pathsep.join((str(_HOME.parent), env.get("PYTHONPATH", "")))},
            on_text=said.append,
        )
        found = list(Path(made).glob("*.dist-info/METADATA"))
        if status != 0 or not found:
            last = "\n".join("".join(said).splitlines()[-_LAST_LINES:])
            raise BuildFailedError(
                f"The source archive's metadata could not be made:\n{last}\nRun this again."
            )
        head, _, text = found[0].read_text(encoding="utf-8").partition("\n\n")
    return f"{head}\n{_DYNAMIC}\n{text}"


def _field(metadata: str, name: str) -> str:
    return next(line for line in metadata.splitlines() if line.startswith(f"{name}: ")).partition(": ")[2]


def _time() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH") or _EPOCH
    # Its length first: Python makes no number of thousands of digits.
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS and int(text) < 1 << 32):
        raise UsageFaultError(
            f"SOURCE_DATE_EPOCH is `{text[:_DIGITS]}`, which is no number of seconds since 1970 below 2**32. "
            "Set it to one, or unset it."
        )
    return int(text)


def _own_modules() -> dict[str, bytes]:
    paths = (path for path in _HOME.rglob("*") if path.suffix in {".py", ".typed"} and path.is_file())
    inside = ((path.relative_to(_HOME), path) for path in paths)
    return {
        f"{_HOME.name}/{name.as_posix()}": path.read_bytes()
        for name, path in inside
        if name.parts[0] not in _NOT_CARRIED
    }
