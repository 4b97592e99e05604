"""Makes variant wheels of a plain one, and the index that tells them apart. Experimental: PEP 817 is a draft.

A variant of a backend is the same engine that also depends on the backend's plugin. The plain wheel stays
beside them: an installer that knows nothing of variants takes it, and so does one where no variant fits.
"""

from __future__ import annotations

import copy
import csv
import importlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from floatllm_build import __version__
from floatllm_build.errors import MissingError
from floatllm_build.files import write_whole
from floatllm_build.matrix import FEATURE
from floatllm_build.values import Backend
from floatllm_build.wheel_file import record_hash

NAMESPACE = "floatllm"
# Where installers ask which variants fit a machine, as pyproject.toml of a project with variants says it.
PROVIDER = {
    "default-priorities": {"namespace": [NAMESPACE]},
    "providers": {
        NAMESPACE: {
            "requires": [f"floatllm-build>={__version__}"],
            "plugin-api": "floatllm_build.variant_provider",
        }
    },
}
_INSTALL = "pip install 'floatllm-build[variants]'"


def check_variantlib() -> None:
    """Raises MissingError where variants cannot be made."""
    _module("api")


def write_variants(wheel: Path, plugins: Mapping[Backend, str]) -> tuple[Path, ...]:
    """One wheel for each plugin beside the plain one, and then the index of all.

    `plugins` has the distribution for each backend. Raises MissingError where variantlib is not installed.
    """
    api, common = _module("api"), _module("pyproject_toml").VariantPyProjectToml({"variant": PROVIDER})
    name, version = wheel.name.split("-")[:2]
    made, index = [], _module("variants_json").VariantsJson(common)
    for backend, distribution in plugins.items():
        properties = [api.VariantProperty(NAMESPACE, FEATURE, backend)]
        described = api.VariantDescription(properties, label=backend)
        index.variants[backend] = described
        target = wheel.with_name(f"{wheel.stem}-{backend}.whl")
        text = api.make_variant_dist_info(described, variant_info=common)
        write_whole(target, _variant(wheel, text, f"{distribution}=={version}"), shared=True)
        made.append(target)
    listing = wheel.with_name(f"{name}-{version}-variants.json")
    write_whole(listing, index.to_str().encode(), shared=True)
    return (*made, listing)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"variantlib.{name}")
    except ImportError as error:
        raise MissingError(
            f"Variant wheels are made with variantlib, which cannot be used ({error}). Run {_INSTALL}"
        ) from error


def _variant(wheel: Path, described: str, requirement: str) -> bytes:
    """The wheel with variant.json and one requirement more; all else, times included, as it is."""
    packed = io.BytesIO()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(packed, "w") as new:
        record = next(entry for entry in old.infolist() if entry.filename.endswith(".dist-info/RECORD"))
        folder = record.filename.rpartition("/")[0]
        lines = io.StringIO()
        listed = csv.writer(lines, lineterminator="\n")
        for entry in (entry for entry in old.infolist() if entry is not record):
            content = old.read(entry)
            if entry.filename == f"{folder}/METADATA":
                content = _requiring(content, requirement)
            new.writestr(_like(entry, entry.filename), content)
            if not entry.is_dir():
                listed.writerow((entry.filename, record_hash(content), len(content)))
        content = described.encode()
        new.writestr(_like(record, f"{folder}/variant.json"), content)
        listed.writerow((f"{folder}/variant.json", record_hash(content), len(content)))
        listed.writerow((record.filename, "", ""))
        new.writestr(_like(record, record.filename), lines.getvalue())
    return packed.getvalue()


def _like(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    """An entry for other content, with the same time, mode and compression."""
    like = copy.copy(entry)
    like.filename = like.orig_filename = name
    return like


def _requiring(metadata: bytes, requirement: str) -> bytes:
    head, blank, text = metadata.partition(b"\n\n")
    return (
        head.rstrip(b"\n")
        + f"\nRequires-Dist: {requirement}\n".encode()
        + (blank[1:] + text if blank else b"")
    )
