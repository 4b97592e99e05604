"""The JSON schemas in docs/schema: made from the tool's values, true of what it prints, of nothing else."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import CUDA_12_4, GOOD_VULKAN, M4, NVIDIA, PC, ROCM, pc, phone
from tool_environment import ROOT, Environment, skip_or_fail

from floatllm_build.host import probe_host
from floatllm_build.paths import data_dir
from floatllm_build.presets import load_presets
from floatllm_build.record import find_fault
from floatllm_build.select import make_plan
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem, Recorder
from floatllm_build.values import (
    Compiler,
    CpuBound,
    Engine,
    Host,
    Lack,
    Linker,
    Note,
    Presence,
    Program,
    Request,
    Source,
    to_json,
)

FOLDER = ROOT / "docs" / "schema"
NAMES = ("detect", "host-record", "plan")
FULL = pc(
    cuda=replace(NVIDIA, toolkits=(CUDA_12_4, replace(CUDA_12_4, layout="wheels"))),
    vulkan=GOOD_VULKAN,
    hip=ROCM,
    metal=M4,
    cpu=replace(PC.cpu, bounds=(CpuBound(source="affinity", cpus=2),)),
    toolchain=replace(
        PC.toolchain,
        others=(Compiler(command="g++-12", kind="gcc", version="12.2.0"),),
        linkers=(Linker(kind="mold", path="/usr/bin/mold", version="2.4"),),
        launcher=Program(path="/usr/bin/ccache", version="4.8"),
    ),
    others=(Presence(what="opencl", where="Portable Computing Language"),),
    sources=(Source(fact="cpu", source="/proc/cpuinfo"),),
    notes=(Note(source="nvidia-smi", said="no answer"),),
)
LACK = asdict(Lack(what="ninja", why="it runs the build", fix="apt install ninja-build"))


def checker(name: str) -> Any:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        skip_or_fail("no jsonschema; `pip install '.[test]'` brings it")
    text = (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def as_read(value: Any) -> Any:
    """As a reader of the printed text has it: tuples are lists."""
    return json.loads(json.dumps(value))


def detected(host: Host) -> dict[str, Any]:
    plan = to_json(make_plan(host, Request(), load_presets(data_dir())))
    found: dict[str, Any] = as_read({**to_json(host), "plan": plan, "missing": [LACK], "problem": None})
    return found


def faults(name: str, value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in checker(name).iter_errors(value)]


@pytest.mark.slow
def test_the_schemas_are_what_their_maker_makes_of_the_values(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "make.py", tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'pydantic'" in done.stderr:
        skip_or_fail("no pydantic; `pip install '.[test]'` brings it")
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    there = {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
    assert made == there, "a value has changed; run `python docs/schema/make.py`"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_are_schemas(name: str) -> None:
    checker(name).check_schema(checker(name).schema)


@pytest.mark.parametrize(
    "host", [PC, FULL, phone("asimddp"), replace(PC, target=None)], ids=["pc", "full", "phone", "no target"]
)
def test_what_detect_and_plan_print_is_valid(host: Host) -> None:
    whole = detected(host)
    assert faults("detect", whole) == []
    assert faults("detect", {**whole, "plan": None, "problem": "nothing works"}) == []
    assert faults("plan", {**whole["plan"], "missing": [LACK]}) == []


def test_an_engine_that_is_there_is_valid_too() -> None:
    whole = detected(PC)
    there = Engine(
        version="0.1.0",
        preset="cpu",
        backends=("cpu",),
        device="CPU",
        ggml="0.26.0",
        plugins=(),
        current=False,
        changes=("preset cpu to cuda",),
    )
    assert faults("detect", {**whole, "engine": None}) == []
    assert faults("detect", as_read({**whole, "engine": vars(there)})) == []
    assert faults("detect", as_read({**whole, "engine": {**vars(there), "current": "no"}}))


def test_the_probed_host_and_its_record_are_valid() -> None:
    recorder = Recorder(Door(LiveSystem(), Symbols.of_this_user()))
    host = probe_host(recorder)
    assert faults("detect", as_read({**to_json(host), "plan": None, "missing": [], "problem": "x"})) == []
    assert faults("host-record", json.loads(recorder.text())) == []


def test_what_the_installed_tool_prints_and_saves_is_valid(tool_env: Environment, tmp_path: Path) -> None:
    record = tmp_path / "host.json"
    done = tool_env.tool("detect", "--json", "--save", record)
    assert faults("detect", json.loads(done.stdout)) == []
    assert faults("host-record", json.loads(record.read_text(encoding="utf-8"))) == []
    done = tool_env.tool("plan", "--json", "--from", record)
    assert faults("plan", json.loads(done.stdout)) == []


Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, Change] = {
    "a field is gone": lambda whole: whole["cpu"].pop("usable"),
    "a field too many": lambda whole: whole["os"].update(colour="red"),
    "a key too many": lambda whole: whole.update(verdict="good"),
    "another version": lambda whole: whole.update(schema_version=2),
    "no version": lambda whole: whole.pop("schema_version"),
    "a plan without version": lambda whole: whole["plan"].pop("schema_version"),
    "less than nothing": lambda whole: whole["memory"].update(room=-1),
    "less than nothing in a list": lambda whole: whole["memory"]["bounds"][0].update(limit=-1),
    "no CPU": lambda whole: whole["cpu"].update(usable=0),
    "text for a number": lambda whole: whole["memory"].update(total="16 GiB"),
    "a fraction": lambda whole: whole["cuda"]["devices"][0].update(memory=1.5),
    "an unknown backend": lambda whole: whole["plan"].update(backend="abacus"),
    "an unknown layout": lambda whole: whole["cuda"]["toolkits"][0].update(layout="heap"),
    "a version of three": lambda whole: whole["target"].update(version=[3, 11, 2]),
    "a version of one": lambda whole: whole["target"].update(version=[3]),
    "nothing for text": lambda whole: whole["python"].update(version=None),
    "a lack without a fix": lambda whole: whole["missing"][0].pop("fix"),
    "no problem given": lambda whole: whole.pop("problem"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_not_valid(what: str) -> None:
    whole = detected(FULL)
    WRONG[what](whole)
    assert len(faults("detect", whole)) > 0


def test_everything_in_the_tools_own_output_is_closed_and_required() -> None:
    """Whoever reads it may rely on every name."""
    for name in ("detect", "plan"):
        objects = [
            shape
            for shape in below(checker(name).schema)
            if isinstance(shape, dict) and "properties" in shape
        ]
        assert len(objects) > 4
        for shape in objects:
            assert shape["additionalProperties"] is False
            assert set(shape["required"]) == set(shape["properties"])


def below(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        yield from below(item)


# ---- the record's schema and the tool's own check of it -------------------------------------------

GOOD: dict[str, Any] = {
    "schema_version": 1,
    "about": "by hand",
    "files": {"/a": {"text": "x"}, "/b": {"errno": "EACCES"}},
    "commands": {"cc --version": {"rc": 0, "out": "", "err": ""}},
    "asked": {"cuda x": {"rc": -11, "out": "", "err": ""}},
    "environ": {"CC": None},
    "which": {"cc": "/usr/bin/cc"},
    "globs": {"/lib/*": ["/lib/a"]},
    "native": {
        "identity": {"system": "Linux", "bits": 64},
        "cpu_count": 4,
        "affinity": None,
        "hwcaps": {"hwcap": 1, "hwcap2": 2},
        "windows_memory": None,
    },
}


def places(value: Any) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += [(key,), *((key, *inner) for inner in places(value[key]))]
    return found


odd = st.sampled_from(
    [None, True, -1, 0, 1, 1 << 31, 1 << 32, 1 << 64, "", "x", "EIO", "a\0b", [], ["a"], [1], {}, {"rc": 0}]
)


@given(place=st.sampled_from(places(GOOD)), value=odd, act=st.sampled_from(["set", "drop", "add", "rename"]))
def test_the_tool_refuses_what_the_schema_refuses_and_nothing_else(
    place: tuple[Any, ...], value: Any, act: str
) -> None:
    record = copy.deepcopy(GOOD)
    holder = record
    for key in place[:-1]:
        holder = holder[key]
    if act == "drop":
        del holder[place[-1]]
    elif act == "set" or isinstance(holder, list):
        holder[place[-1]] = value
    elif act == "add":
        holder["new\0" if value == "a\0b" else "new"] = value
    else:
        holder["text"] = holder.pop(place[-1])
    assert bool(find_fault(record)) == bool(faults("host-record", record)), find_fault(record)
