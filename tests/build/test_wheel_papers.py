"""What a wheel says of itself: its manifest lists its files, and its bill of materials is a valid one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from tool_environment import ROOT, Environment

pytestmark = pytest.mark.build

PIN = json.loads((ROOT / "ggml" / "pin.json").read_text())


@pytest.fixture(scope="module")
def native_wheel(engine_env: Environment) -> Path:
    """The wheel that the session's installation kept."""
    return next((engine_env.cache / "wheels").glob("*/floatllm-*.whl"))


@pytest.fixture(
    params=["native", pytest.param("portable", marks=[pytest.mark.ci, pytest.mark.xdist_group("portable")])]
)
def wheel(request: pytest.FixtureRequest) -> zipfile.ZipFile:
    return zipfile.ZipFile(request.getfixturevalue(f"{request.param}_wheel"))


def test_the_wheel_holds_what_its_manifest_lists_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    manifest = json.loads(wheel.read("floatllm/manifest.json"))
    assert sorted(wheel.namelist()) == manifest["files"]


def test_the_bill_of_materials_is_valid_and_names_the_pinned_source(wheel: zipfile.ZipFile) -> None:
    # Here, because this import takes a second.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = wheel.read("floatllm-0.1.0.dist-info/sboms/floatllm.cdx.json").decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    (part,) = json.loads(text)["components"]
    assert (part["name"], part["version"]) == ("llama.cpp", PIN["release"])
    assert part["purl"].endswith(PIN["release"])
    assert [one["value"] for one in part["properties"]] == [PIN["tree_sha256"], PIN["version"]]


def test_both_licences_are_in_its_metadata(wheel: zipfile.ZipFile) -> None:
    for part in ("ggml", "floatllm"):
        assert b"MIT" in wheel.read(f"floatllm-0.1.0.dist-info/licenses/{part}/LICENSE")


def test_the_manifest_says_what_the_cpu_must_have(
    native_wheel: Path, portable_wheel: Path, engine_env: Environment
) -> None:
    native, portable = (
        json.loads(zipfile.ZipFile(path).read("floatllm/manifest.json"))
        for path in (native_wheel, portable_wheel)
    )
    assert native["cpu"]["variants"] == portable["cpu"]["needs"] == []
    assert (native["portable"], portable["portable"]) == (False, True)
    # Under the fixed time of reproducible builds ggml by itself would turn its native build off, silently.
    flags = Path("/proc/cpuinfo").read_text()
    for feature in ("avx2", "fma", "avx512bw"):
        assert (feature in native["cpu"]["needs"]) is (f" {feature} " in flags)
