"""Streamed equals resident to the last bit: every architecture, however the model is cut and read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import arch_files
import pytest
from cuts import MOST, chunk_size
from floatllm import Engine, Model
from floatllm.plan import Plan
from gguf import GGMLQuantizationType as Type
from installed import Installed

pytestmark = pytest.mark.cpus

CUTS = (1, 2, 3, 7, MOST)
TYPES = (Type.F32, Type.F16, Type.Q8_0, Type.Q4_0, Type.Q4_K, Type.Q6_K)
# Two kinds of blocks each time, and the others in CI.
SOME_TYPES = [
    pytest.param(matrix, marks=() if matrix in {Type.Q8_0, Type.Q4_K} else pytest.mark.ci) for matrix in TYPES
]
_TEXT = [(37 * i * i + 11 * i + 5) % arch_files.VOCAB for i in range(40)]
# More than one pass, more than the tiles of attention, and more cells than one thread looks at alone.
_LONG = [(53 * i * i + 7 * i + 2) % arch_files.VOCAB for i in range(530)]


def _bits(plan: Plan, prompt: list[int]) -> bytes:
    """Logits behind a prompt, then behind single tokens, then of a few positions in one pass."""
    out = bytearray()
    with Engine(plan) as engine:
        for tokens in (prompt, [9], [17]):
            out += engine.forward(tokens).cast("B")
        for row in engine.append([(0, [3, 1, 4, 1, 5, 9, 2, 6], 4)])[0]:
            out += row.cast("B")
    return bytes(out)


def _streamed(model: Model, **given: Any) -> Iterator[Plan]:
    """A plan for each number of chunks and each way of reading."""
    for wanted in CUTS:
        size = chunk_size(model, wanted, **given)
        for io in ("mmap", "direct"):
            plan = model.plan(chunk=size, io=io, **given)
            assert plan.io == io
            assert wanted == MOST or len(plan.chunks) == wanted
            assert not any(chunk.pinned for chunk in plan.chunks)
            yield plan


@pytest.mark.parametrize("arch", arch_files.ARCHS)
@pytest.mark.parametrize("matrix", SOME_TYPES, ids=lambda matrix: matrix.name)
def test_however_it_is_cut_and_read(
    engine: Installed, small: Callable[..., Path], arch: str, matrix: Type
) -> None:
    with Model.open(small(arch, matrix)) as model:
        # The kernels of each type divide rows among threads in their own way, which CI looks at for all. Many
        # threads take long on a busy machine: elsewhere one type has them, and the others one.
        threads = None if os.environ.get("CI") == "true" or matrix is Type.Q4_K else 1
        given: dict[str, Any] = {"device": "CPU", "ctx": 256, "outputs": 4, "threads": threads}
        whole = _bits(model.plan(**given), _TEXT)
        counts = set()
        for plan in _streamed(model, **given):
            counts.add(len(plan.chunks))
            assert _bits(plan, _TEXT) == whole, (len(plan.chunks), plan.io)
    assert max(counts) > 50


@pytest.mark.parametrize("arch", arch_files.ARCHS)
@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_behind_a_long_prompt(engine: Installed, small: Callable[..., Path], arch: str, kv: str) -> None:
    with Model.open(small(arch, Type.F16)) as model:
        given: dict[str, Any] = {"device": "CPU", "ctx": 600, "outputs": 4, "kv": kv}
        resident = model.plan(**given)
        assert resident.width < len(_LONG)
        whole = _bits(resident, _LONG)
        for wanted, io in ((3, "direct"), (MOST, "mmap")):
            plan = model.plan(chunk=chunk_size(model, wanted, **given), io=io, **given)
            assert _bits(plan, _LONG) == whole, (len(plan.chunks), io)


@pytest.mark.ci
@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_smollm_however_it_is_cut_and_read(engine: Installed, smollm: Path, kv: str) -> None:
    with Model.open(smollm) as model:
        prompt = model.tokenizer.encode("The planets of the solar system are Mercury, Venus, Earth,")
        given: dict[str, Any] = {"device": "CPU", "ctx": 256, "outputs": 4, "kv": kv}
        whole = _bits(model.plan(**given), prompt)
        for plan in _streamed(model, **given):
            assert _bits(plan, prompt) == whole, (len(plan.chunks), plan.io)
        # Under a bound on all memory, some chunks stay and the others stream.
        for memory in ("56M", "80M"):
            for io in ("mmap", "direct"):
                plan = model.plan(memory, io=io, **given)
                assert 0 < sum(chunk.pinned for chunk in plan.chunks) < len(plan.chunks)
                assert _bits(plan, prompt) == whole, (memory, io)
