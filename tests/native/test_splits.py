"""A model in several files is one model: the same numbers, and no file that belongs to another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import arch_files
import hostile_splits
import pytest
from floatllm import Engine, Model, ModelError
from installed import Installed

_TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]


def _logits(path: Path, tokens: list[int] = _TOKENS, **wanted: object) -> list[bytes]:
    with Model.open(path) as model, Engine(model.plan(device="CPU", ctx=256, threads=1, **wanted)) as session:
        return [bytes(session.forward(tokens).cast("B")), bytes(session.forward([7]).cast("B"))]


def _sums(path: Path, **wanted: object) -> dict[str, float]:
    with Model.open(path) as model:
        names = [tensor.name for tensor in model.tensors]
        with Engine(model.plan(device="CPU", mode="map", threads=1, **wanted)) as session:
            return dict(zip(names, session.map(), strict=True))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return lambda arch: arch_files.write(folder / f"{arch}.gguf", arch_files.Small(arch))


@pytest.mark.parametrize("io", ["mmap", "direct"])
@pytest.mark.parametrize("bare", [False, True], ids=["tensors in each", "metadata alone first"])
@pytest.mark.parametrize("arch", ["llama", "gemma3"])
def test_parts_give_the_numbers_of_the_whole(
    engine: Installed, small: Callable[[str], Path], tmp_path: Path, arch: str, bare: bool, io: str
) -> None:
    whole = small(arch)
    first = arch_files.split(tmp_path, whole, 5, bare_first=bare)
    files = len(list(tmp_path.glob("*.gguf")))
    assert files > 3
    for bound in ({}, {"chunk": "600K"}, {"memory": "8M", "width": 16}):
        assert _logits(first, io=io, **bound) == _logits(whole, io=io, **bound)
    assert _sums(first, io=io) == _sums(whole, io=io)
    assert _sums(first, io=io, chunk="300K") == _sums(whole, io=io, chunk="300K")
    done = engine.run("inspect", first)
    assert done.returncode == 0
    assert "blk.2.ffn_down.weight" in done.stdout


def test_a_real_model_in_parts(engine: Installed, smollm: Path, tmp_path: Path) -> None:
    first = arch_files.split(tmp_path, smollm, 70)
    for wanted in ({"io": "mmap"}, {"io": "direct", "memory": "64M"}):
        assert _logits(first, **wanted) == _logits(smollm, **wanted)
    with Model.open(first) as parts, Model.open(smollm) as whole:
        assert parts.tokenizer.encode("one model") == whole.tokenizer.encode("one model")
        assert set(parts.metadata) >= set(whole.metadata)


@pytest.mark.parametrize("kind", hostile_splits.WRONG)
def test_files_that_do_not_belong_together(engine: Installed, tmp_path: Path, kind: str) -> None:
    wrong = hostile_splits.WRONG[kind]
    first = hostile_splits.write(tmp_path, wrong.files())
    with pytest.raises(ModelError) as refused:
        Model.open(first)
    said = str(refused.value)
    assert wrong.reason in said
    assert hostile_splits.name(tmp_path, wrong.part).name in said
    assert ("at byte " in said) == wrong.placed


@pytest.mark.parametrize("make", [hostile_splits.good, hostile_splits.bare_first])
def test_the_makers_good_parts_are_good(
    engine: Installed, tmp_path: Path, make: Callable[[], dict[int, bytes]]
) -> None:
    with Model.open(hostile_splits.write(tmp_path, make())) as model:
        expected = ["t1", "t2", "t3"] if make is hostile_splits.good else ["t2", "t3"]
        assert [tensor.name for tensor in model.tensors] == expected


def test_a_part_opened_alone_names_the_first(engine: Installed, tmp_path: Path) -> None:
    hostile_splits.write(tmp_path, hostile_splits.good())
    done = engine.run("inspect", hostile_splits.name(tmp_path, 2))
    assert done.returncode == 7
    assert "-00001-of-00003.gguf" in done.stderr


def test_a_first_part_under_another_name_says_what_it_needs(engine: Installed, tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(hostile_splits.part(1))
    done = engine.run("inspect", path)
    assert done.returncode == 7
    assert "-00001-of-00003.gguf" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits on open files are set differently there")
def test_more_parts_than_files_may_be_open(engine: Installed, tmp_path: Path) -> None:
    count = 40
    for number in range(1, count + 1):
        part = hostile_splits.part(number, hostile_splits.keys(number - 1, count, count))
        hostile_splits.name(tmp_path, number, count).write_bytes(part)
    said = engine.script(
        """
import json, resource, sys
from floatllm import EngineError, Model
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
try:
    Model.open(sys.argv[1])
    print("null")
except EngineError as error:
    print(json.dumps(str(error)))
""",
        hostile_splits.name(tmp_path, 1, count),
    )
    assert "ulimit -n" in said
    with Model.open(hostile_splits.name(tmp_path, 1, count)) as model:
        assert len(model.tensors) == count
