"""The self-test that proves an installed engine, and that it can fail."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from floatllm import Event, _reference, _testmodel, selftest
from installed import Installed

_KEYS = {
    *("schema_version", "ok", "device", "expected_device", "reason", "chunks", "tensors", "nmse", "nmse_cpu"),
    *("bit_identical", "engine_version", "ggml_version", "abi_version", "agree", "operations"),
}


def test_it_proves_the_engine(engine: Installed, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [engine.python, "-m", "floatllm.selftest", "--device", "CPU", "--report", str(report)]
    done = subprocess.run(command, env=engine.env, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(report.read_text())
    assert set(found) == _KEYS
    assert found["ok"]
    assert found["bit_identical"]
    assert found["device"] == found["expected_device"] == "CPU"
    assert found["chunks"] > 1
    assert found["agree"] == sum(operation["agree"] for operation in found["operations"]) > 150
    assert {"matmul", "RoPE", "attention 64"} <= {operation["operation"] for operation in found["operations"]}
    assert all(operation["nmse"] <= operation["allowed"] for operation in found["operations"])
    lines = done.stdout.splitlines()
    assert len(lines) == found["tensors"] + found["chunks"] + 1
    assert lines[-1] == "[FloatLLM] Engine successfully mapped."


def test_a_device_that_is_not_there_is_not_proven(engine: Installed, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [engine.python, "-m", "floatllm.selftest", "--device", "Abacus0", "--report", str(report)]
    done = subprocess.run(command, env=engine.env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 5
    assert "Abacus0" in done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(report.read_text())
    assert not found["ok"]
    assert "Abacus0" in found["reason"]


@pytest.mark.parametrize(
    ("target", "said"),
    [("sums", "summed"), ("device", "not to"), ("logits", "plain Python"), ("chunks", "different numbers")],
)
def test_a_wrong_engine_is_not_proven(
    engine: Installed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    said: str,
) -> None:
    if target == "sums":
        real = selftest.Engine.map

        def wrong_sums(self: selftest.Engine, listen: object) -> object:
            sums = real(self, listen)  # type: ignore[arg-type]
            sums[3] *= 1.01
            return sums

        monkeypatch.setattr(selftest.Engine, "map", wrong_sums)
    elif target == "device":
        real_map = selftest.Engine.map

        def elsewhere(self: selftest.Engine, listen: Callable[[Event], None]) -> object:
            return real_map(self, lambda event: listen(replace(event, device="Abacus0")))

        monkeypatch.setattr(selftest.Engine, "map", elsewhere)
    elif target == "logits":
        wrong = _testmodel.Shape(rope_base=500.0)
        real_logits = _reference.logits
        monkeypatch.setattr(
            selftest._reference, "logits", lambda _shape, weights, tokens: real_logits(wrong, weights, tokens)
        )
    else:
        counter = iter(range(100))
        real_forward = selftest._forward

        def wobbly(plan: object) -> memoryview:
            values = real_forward(plan)  # type: ignore[arg-type]
            values[0] += 1e-3 * next(counter)
            return values

        monkeypatch.setattr(selftest, "_forward", wobbly)
    assert selftest.main(["--device", "CPU"]) == 5
    assert said in capsys.readouterr().err


def test_the_small_model_is_the_same_everywhere(tmp_path: Path) -> None:
    shape = _testmodel.Shape()
    weights = _testmodel.make(shape)
    data = b"".join(weight.data for weight in weights)
    assert hashlib.sha256(data).hexdigest()[:16] == "43c2222d6de97b26"
    assert sys.getsizeof(data) > 1_000_000
