"""What a batch that goes on keeps of how it was begun, and when it refuses."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arch_files
import pytest
from floatllm import Engine, Model, UsageError, batch
from floatllm.journal import recorded, sidecar
from floatllm.prompts import Prompts
from installed import Installed

ROWS = [{"tokens": [1 + row, 2, 3], "max_tokens": 4 + row} for row in range(12)]


class HaltError(Exception):
    """Stops a batch in its middle."""


class _Halting(Engine):
    def likeliest(self, additions: Any) -> list[list[int]]:
        """Computes until a row is finished."""
        if self.length_of(0) > 5:
            raise HaltError
        return super().likeliest(additions)


def _arguments(folder: Path, **given: Any) -> argparse.Namespace:
    options = dict.fromkeys(("memory", "ctx", "kv", "chunk", "tokens", "sequences"))
    options |= dict.fromkeys(("device_memory", "cpu_share"))
    fixed = {"device": "CPU", "io": "auto", "threads": 1}
    files = {"input": str(folder / "in"), "output": str(folder / "out")}
    return argparse.Namespace(**{**options, **fixed, **files, **given})


def _begin(model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    """Begins a batch, halts it when a row is finished, and returns what was kept of its beginning."""
    (folder / "in").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with monkeypatch.context() as patched, Model.open(model) as opened:
        patched.setattr(batch, "Engine", _Halting)
        with pytest.raises(HaltError):
            batch.run(opened, _arguments(folder, **given), lambda _: None)
    begun = recorded(str(folder / "out"))
    assert begun is not None
    assert sidecar(str(folder / "out")).read_bytes().count(b"\n") > 1
    return begun


def _go_on(model: Path, folder: Path, **given: Any) -> list[dict[str, Any]]:
    with Model.open(model) as opened:
        batch.run(opened, _arguments(folder, **given), lambda _: None)
    return [json.loads(line) for line in (folder / "out").read_text().splitlines()]


def _whole(model: Path, folder: Path, **given: Any) -> list[dict[str, Any]]:
    folder.mkdir()
    (folder / "in").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return _go_on(model, folder, **given)


def test_threads_are_kept(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _whole(made(), tmp_path / "whole", ctx=64)
    begun = _begin(made(), tmp_path, monkeypatch, ctx=64, sequences=2)
    assert (begun["threads"], begun["ctx"]) == (1, 64)
    # On this device the width changes no number, and neither does the memory.
    assert "width" not in begun
    with pytest.raises(UsageError, match=r"another threads \(1, now 2\)"):
        _go_on(made(), tmp_path, threads=2)
    used: list[int] = []
    monkeypatch.setattr(batch, "Engine", lambda plan: used.append(plan.threads) or Engine(plan))
    assert _go_on(made(), tmp_path, sequences=3, memory="64M", threads=None) == expected
    # Not as many as there are CPUs.
    assert used == [1]


def test_widths_are_kept_where_they_decide(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "by_width", lambda _plan: True)
    expected = _whole(made(), tmp_path / "whole", sequences=5)
    begun = _begin(made(), tmp_path, monkeypatch, sequences=5)
    assert begun["outputs"] >= 5
    assert begun["width"] >= begun["outputs"] + 64
    plans: list[Any] = []
    monkeypatch.setattr(batch, "Engine", lambda plan: plans.append(plan) or Engine(plan))
    assert _go_on(made(), tmp_path, sequences=500) == expected
    (plan,) = plans
    assert (plan.width, plan.outputs) == (begun["width"], begun["outputs"])
    assert plan.sequences <= begun["outputs"]


def test_what_was_begun_where_widths_do_not_matter_is_not_continued_where_they_do(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _begin(made(), tmp_path, monkeypatch)
    monkeypatch.setattr(batch, "by_width", lambda _plan: True)
    with pytest.raises(UsageError, match=r"another width \(not kept, now \d+\)"):
        _go_on(made(), tmp_path)


def test_the_outputs_are_those_asked_for_and_not_what_the_memory_holds(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").write_text('{"tokens": [1]}\n' * 40)
    monkeypatch.setattr(batch, "by_width", lambda _plan: True)
    found = set()
    with Model.open(made()) as model, Prompts(str(tmp_path / "in"), list, 256, 9) as prompts:
        for memory in ("10M", "200M"):
            plan = batch.make_plan(model, prompts, _arguments(tmp_path, memory=memory, ctx=2048), {})
            found.add((plan.sequences, plan.width, plan.outputs))
    assert len({sequences for sequences, _, _ in found}) == 2
    assert len({(width, outputs) for _, width, outputs in found}) == 1


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_part_of_a_model_is_looked_at(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    first = arch_files.split(tmp_path, made(), 10)
    files = sorted(tmp_path.glob("*.gguf"))
    with Model.open(first) as model:
        assert [Path(each) for each in model.files] == files
    with Model.open(made()) as model:
        assert model.files == (str(made()),)
    assert len(files) > 2
    _begin(first, tmp_path, monkeypatch)
    changed = files[part]
    with Model.open(first) as model:
        before = batch.fingerprint(model.files)
    # The last bytes are among those looked at in small files.
    with changed.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with Model.open(first) as model:
        assert batch.fingerprint(model.files) != before
    with pytest.raises(UsageError, match="another model"):
        _go_on(first, tmp_path)
    with changed.open("r+b") as file:
        file.seek(-1, 2)
        file.write(last)
    assert len(_go_on(first, tmp_path)) == len(ROWS)


def test_prompts_that_change_meanwhile_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text('{"tokens": [1]}\n{"tokens": [2]}\n')
    with Prompts(str(path), list, 256, 9) as prompts:
        assert prompts[1].tokens == (2,)
        path.write_text('{"tokens": [1]}\n{"tokens": [3]}\n')
        assert prompts[0].tokens == (1,)
        with pytest.raises(UsageError, match=r"line 2: the row changed while the batch ran"):
            prompts[1]


@pytest.mark.parametrize("value", ["7", 0, -3, None, 1.5, [1]])
def test_a_sidecar_with_settings_that_are_none_is_refused(
    engine: Installed,
    made: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: object,
) -> None:
    _begin(made(), tmp_path, monkeypatch, ctx=64)
    path = sidecar(str(tmp_path / "out"))
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(header), "ctx": value}) + "\n" + rest)
    kept = shutil.copyfile(path, tmp_path / "kept")
    why = "another ctx" if isinstance(value, int) else "not the progress of a batch by this version"
    with pytest.raises(UsageError, match=why):
        _go_on(made(), tmp_path)
    assert path.read_bytes() == kept.read_bytes()
