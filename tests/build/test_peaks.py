"""What units cost: known from measuring, learned from each build."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.build.peaks import Cost, Costs, load_learned, save_learned
from floatllm_build.sizes import MIB

OPS = "ggml/src/CMakeFiles/ggml-cpu.dir/ggml-cpu/ops.cpp.o"
REPACK_ARM = "ggml/src/CMakeFiles/ggml-cpu.dir/ggml-cpu/arch/arm/repack.cpp.o"
VULKAN = "ggml/src/ggml-vulkan/CMakeFiles/ggml-vulkan.dir/ggml-vulkan.cpp.o"
CUDA = "ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/argsort.cu.o"
PLAN = "CMakeFiles/floatllm.dir/src/plan.cpp.o"


def guess(unit: str, compiler: str = "gcc", aim: str = "speed", *, reclaiming: bool = False) -> int:
    return Costs(compiler, aim, reclaiming, {}).of(unit).peak // MIB


def test_what_was_measured_is_held_by_the_guesses() -> None:
    # MiB as measured. A guess that is too low costs a build, one that is twice as high costs jobs.
    measured = [
        (382, guess(OPS)),
        (262, guess(OPS, aim="size")),
        (157, guess(OPS, reclaiming=True)),
        (131, guess(OPS, aim="size", reclaiming=True)),
        (162, guess(OPS, "clang")),
        (160, guess(OPS, "clang", "size")),
        (1592, guess(VULKAN)),
        (1117, guess(VULKAN, aim="size")),
        (689, guess(CUDA)),
    ]
    assert all(real <= guessed <= real * 1.25 for real, guessed in measured)


def test_by_the_name_of_the_unit_and_the_compiler() -> None:
    assert guess(REPACK_ARM) == guess(OPS)
    assert guess(OPS.replace(".o", ".obj")) == guess(OPS)
    assert guess(PLAN) < guess(OPS)
    assert guess(OPS, "msvc") >= guess(OPS)
    assert guess(CUDA + "bj") == guess(CUDA)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("unit", [OPS, VULKAN, CUDA, PLAN])
def test_no_flag_that_saves_memory_makes_a_guess_larger(unit: str, compiler: str) -> None:
    plain = guess(unit, compiler)
    assert guess(unit, compiler, reclaiming=True) <= plain
    assert guess(unit, compiler, "size") <= plain
    assert guess(unit, compiler, "size", reclaiming=True) <= guess(unit, compiler, "size")


def test_what_was_learned_counts_before_what_is_known() -> None:
    learned = {OPS: Cost(10 * MIB, 3.0)}
    costs = Costs("gcc", "speed", reclaiming=False, learned=learned)
    assert costs.of(OPS) == Cost(10 * MIB, 3.0)
    assert costs.of(PLAN).seconds == 0.0


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.builds(Cost, st.integers(0, 1 << 50), st.floats(0, 1e6).map(lambda seconds: round(seconds, 2))),
    )
)
def test_learned_costs_come_back_as_they_were(learned: dict[str, Cost]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "not" / "yet" / "there.json"
        save_learned(path, learned)
        assert load_learned(path) == learned


GOOD = {"schema_version": 1, "units": {"a.o": {"peak": 1, "seconds": 0.5}}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        json.dumps(GOOD)[:-3],
        json.dumps({**GOOD, "schema_version": 2}),
        json.dumps({"units": {}}),
        json.dumps({**GOOD, "units": []}),
        json.dumps({**GOOD, "units": {"a.o": 3}}),
        json.dumps({**GOOD, "units": {"a.o": {"peak": "much", "seconds": 1}}}),
        json.dumps({**GOOD, "units": {"a.o": {"peak": None, "seconds": 1}}}),
        json.dumps({**GOOD, "units": {"a.o": {"peak": float("inf"), "seconds": 1}}}),
        json.dumps({**GOOD, "units": {"a.o": {"peak": float("nan"), "seconds": 1}}}),
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_file_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert load_learned(path) == {}
    path.write_text(json.dumps(GOOD))
    assert load_learned(path) == {"a.o": Cost(1, 0.5)}


@pytest.mark.parametrize(
    "cost", [{"peak": -1, "seconds": 1}, {"peak": 1, "seconds": -1.0}, {"peak": 1, "seconds": math.nan}]
)
def test_no_learned_cost_is_below_nothing(tmp_path: Path, cost: dict[str, float]) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({**GOOD, "units": {"a.o": cost}}))
    assert load_learned(path) == {}


def test_there_may_be_none(tmp_path: Path) -> None:
    assert load_learned(tmp_path / "none.json") == {}
    assert load_learned(tmp_path) == {}
