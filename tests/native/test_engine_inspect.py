"""What the engine reads from a header, against the gguf package's reader."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from floatllm import Model, UsageError
from floatllm.metadata import StringArray
from gguf import GGMLQuantizationType as Type
from installed import Installed


def _compare(path: Path) -> None:
    reader = gguf.GGUFReader(path)
    with Model.open(path) as model:
        found = [(t.name, t.type.lower(), list(t.shape), t.offset, t.size) for t in model.tensors]
        metadata = dict(model.metadata)
    expected = [
        (
            t.name,
            t.tensor_type.name.lower(),
            [*map(int, t.shape), *[1] * (4 - len(t.shape))],
            t.data_offset,
            t.n_bytes,
        )
        for t in reader.tensors
    ]
    assert found == expected
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(metadata) == list(fields)
    for key, value in metadata.items():
        assert (list(value) if isinstance(value, (array, StringArray)) else value) == fields[key], key


def test_every_tensor_and_key_of_smollm(engine: Installed, smollm: Path) -> None:
    _compare(smollm)


def test_every_tensor_and_key_of_an_unknown_architecture(engine: Installed, image_like: Path) -> None:
    _compare(image_like)


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_1, Type.Q8_0])
def test_every_type(engine: Installed, made: Callable[..., Path], kind: Type) -> None:
    _compare(made(matrix=kind))


def test_string_arrays_are_sequences(engine: Installed, smollm: Path) -> None:
    with Model.open(smollm) as model:
        tokens = model.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, StringArray)
    assert (tokens[0], tokens[-1], tokens[17:20]) == (
        "<|endoftext|>",
        tokens[len(tokens) - 1],
        ["!", '"', "#"],
    )
    with pytest.raises(IndexError):
        tokens[len(tokens)]


def test_a_closed_model_says_so(engine: Installed, tiny: Path) -> None:
    model = Model.open(tiny)
    metadata = model.metadata
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        metadata["general.name"]
    with pytest.raises(UsageError, match="closed"):
        model.plan()


def test_inspect_prints_everything(engine: Installed, image_like: Path) -> None:
    done = engine.run("inspect", image_like)
    assert (done.returncode, done.stderr) == (0, "")
    assert "tinyvision, 6 tensors" in done.stdout
    assert "[3, 3, 64, 96]" in done.stdout
    # A tab in a value must not reach the terminal as one.
    assert r"é ñ\tü" in done.stdout


def test_inspect_json_holds_what_the_table_holds(engine: Installed, image_like: Path) -> None:
    done = engine.run("inspect", image_like, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["architecture"] == "tinyvision"
    values = {entry["key"]: entry["value"] for entry in document["metadata"]}
    assert values["tinyvision.sizes"] == [224, 112, 56]
    assert values["tinyvision.flags"] == [True, False, True]
    shapes = {tensor["name"]: tensor["shape"] for tensor in document["tensors"]}
    assert shapes["patch_embd.weight"] == [4, 4, 3, 48]
    assert shapes["scale"] == [1, 1, 1, 1]


def test_devices_are_listed(engine: Installed) -> None:
    done = engine.run("devices", "--json")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["versions"]["abi"] == 5
    cpu = next(device for device in document["devices"] if device["name"] == "CPU")
    assert (cpu["kind"], cpu["maps_host"]) == ("cpu", True)
    assert cpu["memory_total"] >= cpu["memory_free"] > 0
    assert "CPU" in engine.run("devices").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and RLIMIT_AS are Linux's")
def test_what_is_free_of_the_cpus_memory_is_what_a_plan_could_have(engine: Installed, tiny: Path) -> None:
    def free(*under: str) -> int:
        done = engine.run("devices", "--json", under=under)
        return next(d["memory_free"] for d in json.loads(done.stdout)["devices"] if d["name"] == "CPU")

    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(facts["MemAvailable"].split()[0]) << 10
    # Other programs come and go meanwhile; control groups may give less.
    assert free() <= available * 1.1 + (256 << 20)
    limit = 2 << 30
    assert 0 < free("prlimit", f"--as={limit}") < limit
    planned = engine.run("plan", tiny, "--json", "--device", "CPU", under=("prlimit", f"--as={limit}"))
    assert json.loads(planned.stdout)["memory"]["limit"] <= limit
