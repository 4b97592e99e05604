"""The proof of a device, operation by operation: the CPU holds, and a device that lies is found out."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from floatllm import proof, selftest
from floatllm.errors import MissingError
from floatllm.proof import Check
from installed import Installed
from tool_environment import ROOT, Environment, skip_or_fail

# What program.cpp's multiplies() takes: every type of the pinned ggml, but for helpers of others.
_TYPES = 28
_NEEDED = {
    *("matmul of f32", "matmul of f16", "RMS norm of f32", "RoPE of f32", "RoPE neox of f32", "add of f32"),
    *("bias of f32", "SwiGLU of f32", "get_rows of f32", "set_rows of f16", "matmul of a row slice of f32"),
    *("attention 64 of f16", "attention 128 of f16"),
}


@pytest.mark.usefixtures("engine")
def test_the_cpu_agrees_with_plain_sums() -> None:
    checks = proof.prove("CPU")
    assert [check for check in checks if not check.ok] == []
    assert [check.name for check in checks if check.nmse is None] == []
    assert proof.fault("CPU", checks) == ""
    products = {check.type for check in checks if check.operation == "matmul"}
    assert len(products) == _TYPES
    assert {"f32", "f16", "bf16", "q4_0", "q4_1", "q8_0", "q4_K", "q6_K", "iq1_m", "mxfp4"} <= products
    wide = {check.positions for check in checks if check.operation == "matmul" and check.type == "q4_K"}
    assert wide == {1, 2, 8, 40, 128}
    assert {check.name for check in checks if check.needed} == _NEEDED
    exact = {
        check.name for check in checks if check.operation in {"add", "bias", "get_rows"} and not check.nmse
    }
    assert len(exact) == 3


@pytest.mark.usefixtures("engine")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingError, match="Abacus0"):
        proof.prove("Abacus0")


# ---- a device that lies -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """lying_device.cpp, linked with the objects that the engine's library was made of."""
    if not shutil.which("c++"):
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    library = os.environ.get("FLOATLLM_LIBRARY")
    ggml = os.environ.get("GGML_DIR")
    if library and ggml:
        out, source = Path(library).parent, Path(ggml)
    else:
        tool: Environment = request.getfixturevalue("engine_env")
        out = next((tool.cache / "build").glob("cpu*/out"))
        source = tool.source
    program = tmp_path_factory.mktemp("liar") / "liar"
    objects = sorted(out.glob("CMakeFiles/floatllm.dir/src/**/*.o"))
    archives = sorted(out.glob("**/libggml*.a"))
    assert objects
    assert archives
    includes = (source / "ggml" / "include", source / "ggml" / "src", ROOT / "native" / "include")
    command = ["c++", "-std=c++17", *(f"-I{folder}" for folder in includes)]
    command += [Path(__file__).with_name("lying_device.cpp"), *objects, "-Wl,--start-group", *archives]
    done = subprocess.run(
        [*map(str, command), "-Wl,--end-group", "-lpthread", "-ldl", "-o", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return program


def _told(liar: Path, *lie: object) -> list[tuple[int, str, str, int]]:
    done = subprocess.run([liar, *map(str, lie)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(int(outcome), operation, kind, int(positions)) for outcome, operation, kind, positions in rows]


@pytest.mark.build
def test_a_device_that_tells_the_truth_agrees(liar: Path) -> None:
    told = _told(liar, "none")
    assert Counter(outcome for outcome, *_ in told) == {0: len(told)}
    assert len(told) > 150


@pytest.mark.build
@pytest.mark.parametrize("lie", ["one", "zero"])
def test_one_wrong_number_in_any_result_is_seen(liar: Path, lie: str) -> None:
    told = _told(liar, lie)
    assert Counter(outcome for outcome, *_ in told) == {1: len(told)}
    assert len(told) > 150


@pytest.mark.build
@pytest.mark.parametrize(
    ("lie", "outcome"),
    [
        (("one", "MUL_MAT", "iq4_nl", 40), (1, "matmul", "iq4_nl", 40)),
        (("nan", "MUL_MAT", "q4_K", 8), (1, "matmul", "q4_K", 8)),
        (("unsupported", "MUL_MAT", "q4_K", 8), (2, "matmul", "q4_K", 8)),
    ],
)
def test_the_lie_is_named_and_nothing_else(
    liar: Path, lie: tuple[object, ...], outcome: tuple[object, ...]
) -> None:
    assert [row for row in _told(liar, *lie) if row[0] != 0] == [outcome]


@pytest.mark.build
@pytest.mark.parametrize(
    ("lie", "said"), [("memory", "gave no memory"), ("compute", "failed while computing")]
)
def test_a_device_that_fails_is_an_error(liar: Path, lie: str, said: str) -> None:
    done = subprocess.run([liar, lie], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Liar0" in done.stderr


# ---- what is said of it -----------------------------------------------------------------------


def check(
    nmse: float | None, operation: str = "matmul", kind: str = "q4_K", *, needed: bool = False
) -> Check:
    return Check(operation, kind, 8, nmse, 5e-4, needed)


_WRONG = "CUDA0 computes matmul of q4_K wrongly at 8 positions: "


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ((check(1e-5), check(None)), ""),
        (
            (check(1e-5), check(0.3)),
            f"{_WRONG}NMSE 0.3, 0.0005 is allowed.",
        ),
        (
            (check(None, needed=True), check(math.inf)),
            f"{_WRONG}NMSE infinite, 0.0005 is allowed. 1 more check fails.",
        ),
        (
            (check(None, "RoPE", "f32", needed=True),),
            "CUDA0 does not support RoPE of f32, which every model needs.",
        ),
    ],
)
def test_a_fault_is_one_sentence(checks: tuple[Check, ...], said: str) -> None:
    assert proof.fault("CUDA0", checks) == said


def test_a_self_test_on_a_device_that_lies_is_not_proven(
    engine: Installed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(selftest.proof, "prove", lambda _: (check(1e-6), check(math.inf, kind="q6_K")))
    report = tmp_path / "report.json"
    assert selftest.main(["--device", "CPU", "--report", str(report)]) == 5
    assert "CPU computes matmul of q6_K wrongly" in capsys.readouterr().err
    # JSON has no infinity.
    assert "Infinity" not in report.read_text()
    assert engine.python
