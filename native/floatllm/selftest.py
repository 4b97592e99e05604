"""`python -m floatllm.selftest`: proves that this engine maps and computes on the device it should.

Computes each operation of the engine's graphs on the device and compares it with the CPU, and the CPU with
plain sums. Makes a small model, maps it chunk by chunk and checks every tensor's device and sum; runs a
forward pass in several chunks and in one and compares them with each other, with plain Python, and, on a
device other than the CPU, with the CPU. Exits 0, or 5 with the reason on stderr.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from floatllm import _reference, _testmodel, proof
from floatllm.devices import versions
from floatllm.engine import Engine, Event
from floatllm.errors import FloatLLMError
from floatllm.interrupt import terminated_in_order
from floatllm.model import Model
from floatllm.report import Report
from floatllm.streams import guarded, say, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from floatllm.plan import Plan

SCHEMA_VERSION = 1
NOT_PROVEN = 5

_MEMORY = "256M"
_MAP_CHUNK = "64K"
_RUN_CHUNK = "640K"
_SHAPE = _testmodel.Shape()
_TOKENS = (1, 7, 300, 42, 42, 128, 0, 319)
# A sum may be wrong by this share of the sum of magnitudes. Q8_0: a row is multiplied by ones rounded to the
# same format, whose scale 1/127 in half precision is off by 2e-4. F16: a GPU may add in half precision.
_SUM_TOLERANCE = {"f32": 1e-4, "f16": 1e-3, "q8_0": 1e-3}
# ggml rounds activations to Q8_0 before it multiplies Q8_0 weights, and to F16 before F16.
_REFERENCE_NMSE = 5e-4
_DEVICE_NMSE = 1e-3


class _NotProvenError(Exception):
    """A proof that did not hold."""


@dataclass
class Operation:
    """The checks of one operation; of those supported, the closest to failing."""

    operation: str
    agree: int = 0
    unsupported: tuple[str, ...] = ()
    type: str = ""
    positions: int = 0
    nmse: float | None = None
    allowed: float = 0.0


@dataclass
class Result:
    """The report of --report. `nmse` is the distance from plain Python, `nmse_cpu` from the CPU backend.

    `operations` holds the distances from the CPU, or the CPU's from plain sums; `agree` counts checks.
    """

    schema_version: int = SCHEMA_VERSION
    ok: bool = False
    device: str = ""
    expected_device: str = ""
    reason: str = ""
    chunks: int = 0
    tensors: int = 0
    nmse: float | None = None
    nmse_cpu: float | None = None
    bit_identical: bool = False
    engine_version: str = ""
    ggml_version: str = ""
    abi_version: int = 0
    agree: int = 0
    operations: list[Operation] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the test; returns 0 or 5."""
    parser = argparse.ArgumentParser(prog="floatllm.selftest", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", metavar="NAME", help="ggml's name; default: the first GPU, else the CPU")
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the result as JSON")
    arguments = parser.parse_args(argv)
    result = Result(expected_device=arguments.device or "")
    try:
        _prove(result, arguments.device)
        result.ok = True
    except (_NotProvenError, FloatLLMError) as error:
        result.reason = str(error)
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    if not result.ok:
        say(f"floatllm.selftest: {result.reason}")
        return NOT_PROVEN
    return 0


def _prove(result: Result, device: str | None) -> None:
    found = versions()
    result.engine_version, result.ggml_version, result.abi_version = found.engine, found.ggml, found.abi
    with terminated_in_order(), tempfile.TemporaryDirectory(prefix="floatllm-") as folder:
        path = Path(folder) / "selftest.gguf"
        weights = _testmodel.make(_SHAPE)
        _testmodel.write(path, _SHAPE, weights)
        with Model.open(path) as model:
            _check_header(model, weights)
            _check_operations(result, device or model.plan(_MEMORY, mode="map").device)
            _check_map(result, model, weights, device)
            _check_run(result, model, weights, device)


def _check_header(model: Model, weights: Sequence[_testmodel.Weight]) -> None:
    found = [(t.name, t.type.lower(), t.shape, t.size) for t in model.tensors]
    expected = [(w.name, _testmodel.TYPE_NAMES[w.type], w.shape, len(w.data)) for w in weights]
    for left, right in zip_longest(found, expected):
        if left != right:
            msg = f"The model's header was read wrongly: found {left} where {right} was written."
            raise _NotProvenError(msg)


def _check_operations(result: Result, device: str) -> None:
    # What the device is compared with is proven first, so that neither is blamed for the other.
    if device != "CPU" and (reason := proof.fault("CPU", proof.prove("CPU"))):
        raise _NotProvenError(reason)
    checks = proof.prove(device)
    result.operations = _by_operation(checks)
    result.agree = sum(operation.agree for operation in result.operations)
    reason = proof.fault(device, checks)
    if reason:
        raise _NotProvenError(reason)


def _by_operation(checks: Sequence[proof.Check]) -> list[Operation]:
    found: dict[str, Operation] = {}
    for check in checks:
        one = found.setdefault(check.operation, Operation(check.operation))
        if check.nmse is None:
            if check.type not in one.unsupported:
                one.unsupported = (*one.unsupported, check.type)
            continue
        one.agree += check.ok
        # JSON knows no infinity.
        distance = min(check.nmse, sys.float_info.max)
        if one.nmse is None or distance / check.allowed > one.nmse / one.allowed:
            one.type, one.positions = check.type, check.positions
            one.nmse, one.allowed = distance, check.allowed
    return list(found.values())


def _check_map(
    result: Result, model: Model, weights: Sequence[_testmodel.Weight], device: str | None
) -> None:
    plan = model.plan(_MEMORY, device, mode="map", chunk=_MAP_CHUNK)
    result.expected_device = device or plan.device
    result.chunks = len(plan.chunks)
    if len(plan.chunks) < 2 or not any(part.sliced for chunk in plan.chunks for part in chunk.parts):
        msg = f"{len(plan.chunks)} chunks were planned; several, and a tensor cut by rows, were asked for."
        raise _NotProvenError(msg)
    events: list[Event] = []
    with Engine(plan) as engine:
        report = Report(model, lambda line: write(line + "\n"), tensors=True)

        def listen(event: Event) -> None:
            events.append(event)
            report(event)

        sums = engine.map(listen)
    _check_devices(result, model, plan, events)
    for tensor, weight, found in zip(model.tensors, weights, sums, strict=True):
        expected = math.fsum(value for row in weight.rows for value in row)
        magnitude = math.fsum(abs(value) for row in weight.rows for value in row)
        if not abs(found - expected) <= _SUM_TOLERANCE[tensor.type.lower()] * magnitude:
            msg = f"{result.device} summed {tensor.name} to {found!r}; it is {expected!r}."
            raise _NotProvenError(msg)


def _check_devices(result: Result, model: Model, plan: Plan, events: Sequence[Event]) -> None:
    held = {event.tensor: event for event in events if event.tensor is not None}
    result.tensors = len(held)
    result.device = plan.device
    for index, tensor in enumerate(model.tensors):
        if index not in held:
            msg = f"{tensor.name} was never mapped."
            raise _NotProvenError(msg)
        if held[index].device != result.expected_device:
            result.device = held[index].device
            msg = f"{tensor.name} was mapped to {held[index].device}, not to {result.expected_device}."
            raise _NotProvenError(msg)
        if not held[index].computed:
            msg = f"{tensor.name} was mapped, but no graph computed on it."
            raise _NotProvenError(msg)
    done = [event.chunk for event in events if event.kind == "chunk"]
    if done != list(range(len(plan.chunks))):
        msg = f"Chunks {done} were executed, not each of {len(plan.chunks)} once and in order."
        raise _NotProvenError(msg)


def _check_run(
    result: Result, model: Model, weights: Sequence[_testmodel.Weight], device: str | None
) -> None:
    plan = model.plan(_MEMORY, device, _SHAPE.context, chunk=_RUN_CHUNK)
    whole = model.plan(_MEMORY, device, _SHAPE.context)
    if len(plan.chunks) < 2 or len(whole.chunks) != 1:
        msg = (
            f"{len(plan.chunks)} and {len(whole.chunks)} chunks were planned; several and one were asked for."
        )
        raise _NotProvenError(msg)
    streamed, resident = _forward(plan), _forward(whole)
    result.bit_identical = streamed.tobytes() == resident.tobytes()
    if not result.bit_identical:
        msg = "The model in several chunks and the model in one gave different numbers."
        raise _NotProvenError(msg)
    expected = _reference.logits(_SHAPE, weights, _TOKENS)
    result.nmse = _near(resident, expected, _REFERENCE_NMSE, "plain Python")
    if result.device != "CPU":
        on_cpu = _forward(model.plan(_MEMORY, "CPU", _SHAPE.context))
        result.nmse_cpu = _near(resident, on_cpu.tolist(), _DEVICE_NMSE, "the CPU")


def _forward(plan: Plan) -> memoryview[float]:
    with Engine(plan) as engine:
        # Two calls, so that the second reads what the first left in the KV cache.
        engine.forward(_TOKENS[:-1])
        return engine.forward(_TOKENS[-1:])


def _near(found: memoryview[float], expected: Sequence[float], limit: float, peer: str) -> float:
    distance = _reference.nmse(found, expected)
    if not distance <= limit:
        msg = f"The logits differ from {peer}'s by an NMSE of {distance:.3g}; {limit:g} is allowed."
        raise _NotProvenError(msg)
    return distance


if __name__ == "__main__":
    sys.exit(guarded(main))
