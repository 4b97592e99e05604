"""What a user asks for through pip: names, switches, paths, and what was meant by a slip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from machines import PC
from pages import make_docs

from floatllm_build.cli import app
from floatllm_build.errors import UsageFaultError
from floatllm_build.presets import load_presets
from floatllm_build.select import make_plan
from floatllm_build.settings import (
    NAMES,
    in_pips_words,
    path_of,
    request_of,
    settings_for_pip,
    variable,
)
from floatllm_build.system import Replay
from floatllm_build.values import Request

ROOT = Path(__file__).resolve().parents[2]
NOTHING = Replay({})


def asked(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Request:
    return request_of(NOTHING, settings_for_pip(given, environment or {}))


def test_names_are_options_of_the_command_line_with_its_variables() -> None:
    rows, _ = make_docs.settings(app)
    options = {row.option: row.variable for row in rows if "wheel" in row.commands}
    assert {f"--{name}": variable(name) for name in NAMES}.items() <= options.items()


def test_all_that_can_be_requested_has_a_name() -> None:
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(Request)}
    assert fields - set(NAMES) == {"cmake-args"}


def test_texts_become_a_request() -> None:
    given = {
        "floatllm.backend": "cuda",
        "floatllm.low-mem": "on",
        "floatllm.memory": "2GiB",
        "floatllm.jobs": "3",
        "floatllm.architectures": "86;90",
    }
    wanted = Request(backend="cuda", low_mem=True, memory=2 << 30, jobs=3, architectures=("86", "90"))
    assert asked(given) == wanted
    variables = {f"FLOATLLM_{name[9:].upper().replace('-', '_')}": text for name, text in given.items()}
    assert asked({}, variables) == wanted
    assert asked({}) == asked({}, dict.fromkeys(variables, "")) == Request()


def test_what_pip_is_told_beats_the_environment() -> None:
    assert asked({"floatllm.backend": "cpu"}, {"FLOATLLM_BACKEND": "cuda"}).backend == "cpu"
    assert not asked({"floatllm.low_mem": "off"}, {"FLOATLLM_LOW_MEM": "1"}).low_mem


def test_cmakes_options_come_along() -> None:
    system = Replay({"environ": {"CMAKE_ARGS": "-DGGML_LTO=ON"}})
    assert request_of(system, {}).cmake_args == ("-DGGML_LTO=ON",)


@pytest.mark.parametrize(
    ("text", "on"), [("", True), ("Yes", True), ("1", True), ("off", False), ("F", False)]
)
def test_a_switch(text: str, on: bool) -> None:
    assert asked({"floatllm.portable": text}).portable is on


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"floatllm.backnd": "cuda"}, r"Did you mean floatllm\.backend\?"),
        ({"backend": "cuda"}, r"Did you mean floatllm\.backend\?"),
        ({"floatllm.zzz": "1"}, r"There are: floatllm\.backend, floatllm\.preset"),
        ({"floatllm.backend": "cudda"}, r"no backend `cudda`\. Did you mean cuda\?"),
        ({"floatllm.backend": "abacus"}, r"There are: metal, cuda, hip, vulkan, cpu"),
        ({"floatllm.backend": ["cpu", "cuda"]}, "more than once"),
        ({"floatllm.preset": ""}, "has no value"),
        ({"floatllm.memory": "lots"}, "is not a size"),
        ({"floatllm.jobs": "0"}, "no number of jobs"),
        ({"floatllm.jobs": "²"}, "no number of jobs"),
        ({"floatllm.low-mem": "perhaps"}, "on or off"),
        ({"cmake.define.GGML_LTO": "ON"}, "CMAKE_ARGS"),
        ({"build-dir": "x"}, "scikit-build-core"),
    ],
)
def test_what_makes_no_sense_is_an_error(given: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageFaultError, match=said):
        asked(given)


def test_a_slip_in_a_variable_is_an_error_and_what_others_read_is_not() -> None:
    with pytest.raises(UsageFaultError, match="Did you mean FLOATLLM_BACKEND"):
        asked({}, {"FLOATLLM_BACKEDN": "cuda"})
    rows, _ = make_docs.settings(app)
    others = [row.variable for row in rows] + [name for name, _, _ in make_docs.OURS]
    known = {variable(name) for name in NAMES}
    assert asked({}, {name: "x" for name in others if name not in known}) == Request()


def test_a_path_is_whole_because_pip_works_elsewhere(tmp_path: Path) -> None:
    assert path_of({"ggml-dir": str(tmp_path)}, "ggml-dir") == tmp_path
    assert path_of({}, "ggml-dir") is None
    with pytest.raises(UsageFaultError, match="whole path"):
        path_of({"ggml-dir": "ggml"}, "ggml-dir")


def test_a_request_through_pip_makes_the_plan_of_the_command_line() -> None:
    presets = load_presets(ROOT)
    plan = make_plan(PC, asked({"floatllm.preset": "cpu-low-mem"}), presets)
    assert plan == make_plan(PC, Request(preset="cpu-low-mem"), presets)


@pytest.mark.parametrize(
    ("said", "to_pips_user"),
    [
        ("Try another backend with --backend.", "Try another backend with FLOATLLM_BACKEND."),
        ("Leave out --low-mem or --preset.", "Leave out FLOATLLM_LOW_MEM=on or FLOATLLM_PRESET."),
        ("or: floatllm-build install --backend cpu", "or: FLOATLLM_BACKEND=cpu pip install ./native"),
        ("floatllm-build install --jobs 1, or", "FLOATLLM_JOBS=1 pip install ./native, or"),
        ("Run floatllm-build install again.", "Run pip install ./native again."),
        ("--memory is 64M, and no", "FLOATLLM_MEMORY is 64M, and no"),
        ("then --architectures gfx1030", "then FLOATLLM_ARCHITECTURES=gfx1030"),
        ("then add --ggml-dir ggml-source.", "then add FLOATLLM_GGML_DIR=$PWD/ggml-source."),
        ("give --ggml-dir FOLDER here", "give FLOATLLM_GGML_DIR=FOLDER here"),
        ("--preset wheel-cpu", "FLOATLLM_PRESET=wheel-cpu"),
        (
            "floatllm-build install --python .venv/bin/python",
            "floatllm-build install --python .venv/bin/python",
        ),
        # Other programs' options, and other commands.
        ("cmake --preset cpu -S native", "cmake --preset cpu -S native"),
        ("docker run --device /dev/kfd --memory-swap 1", "docker run --device /dev/kfd --memory-swap 1"),
        ("run `floatllm-build fetch`", "run `floatllm-build fetch`"),
    ],
)
def test_a_message_names_the_options_of_the_way_in(said: str, to_pips_user: str) -> None:
    assert in_pips_words(said) == to_pips_user
