"""Many prompts at once: who runs when, that company changes nothing, and that a kill costs nothing."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arch_files
import pytest
from floatllm import Engine, Model, UsageError, batch
from floatllm.journal import sidecar
from floatllm.prompts import Prompt
from floatllm.schedule import PIECE, Schedule
from gguf import GGMLQuantizationType as Type
from installed import Installed
from near_ties import assert_as_recorded

ROWS = [
    {"prompt": "The capital of France is", "max_tokens": 12},
    {"prompt": "x" * 150, "id": "long"},
    {"tokens": [1, 2, 3], "max_tokens": 1, "id": -4},
    {"prompt": "Ünïcode \u2028 \ud83d\ude00", "max_tokens": 20},
    {"prompt": "y" * 64, "max_tokens": 7},
    {"prompt": "no room", "max_tokens": 5000},
    {"prompt": "z" * 65, "max_tokens": 3},
    *({"prompt": f"{i} {'w' * i}", "max_tokens": 5 + i} for i in range(12)),
]


@pytest.mark.parametrize("seed", range(30))
def test_a_schedule_fits_its_passes_and_reads_each_prompt_in_the_same_pieces(seed: int) -> None:
    rng = random.Random(seed)
    places, piece = rng.randrange(1, 9), rng.choice([1, 4, 64])
    width = places + piece + rng.randrange(100)
    schedule = Schedule(places, width, piece)
    prompts = [tuple(range(1000 * row, 1000 * row + rng.randrange(1, 200))) for row in range(25)]
    limits = [rng.randrange(1, 20) for _ in prompts]
    waiting = list(range(len(prompts)))
    at: dict[int, int] = {}
    read: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    finished: dict[int, tuple[tuple[int, ...], bool]] = {}
    while len(finished) < len(prompts):
        while schedule.free and waiting:
            row = waiting.pop(0)
            place = schedule.admit(row, prompts[row], limits[row])
            assert place not in at
            at[place] = row
        assert len(at) == min(places, len(prompts) - len(finished))
        pieces = schedule.next_pass()
        assert 0 < sum(len(p.tokens) for p in pieces) <= width
        assert len({p.place for p in pieces}) == len(pieces)
        assert sum(p.wanted for p in pieces) <= places
        for each in pieces:
            schedule.computed(each)
            row = at[each.place]
            read[row].append(each.tokens)
            if each.wanted:
                ends = rng.random() < 0.05
                done = schedule.take(each.place, 7 + len(read[row]), ends=ends)
                if done is not None:
                    assert done.row == at.pop(each.place)
                    finished[done.row] = (done.tokens, done.stopped)
    assert schedule.next_pass() == []
    for row, prompt in enumerate(prompts):
        cuts = [prompt[i : i + piece] for i in range(0, len(prompt), piece)]
        tokens, stopped = finished[row]
        first = 7 + len(cuts)
        assert tokens == tuple(range(first, first + len(tokens)))
        assert len(tokens) == limits[row] or stopped
        # The last token is never fed: nothing follows it. Before one that ends, all others were.
        assert read[row] == [*cuts, *((token,) for token in (tokens if stopped else tokens[:-1]))]


def test_a_schedule_needs_room_for_a_token_of_each_and_a_piece() -> None:
    Schedule(8, 8 + PIECE)
    for places, width in ((8, 7 + PIECE), (0, 100)):
        with pytest.raises(ValueError, match="do not fit"):
            Schedule(places, width)


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0, Type.Q4_0, Type.Q4_1])
def test_company_changes_no_bit(
    engine: Installed, made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, kind: Type
) -> None:
    monkeypatch.setattr(Engine, "likeliest", _by_every_bit(512))
    path = made(matrix=kind, embd=kind, embed=128, feed=384, vocab=512)
    _same_in_any_company(path, 600, (1, 5, 64, 65, 127, 300, 530, 2, 90))


@pytest.mark.parametrize("arch", arch_files.ARCHS)
def test_company_changes_no_bit_in_any_architecture(
    engine: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    monkeypatch.setattr(Engine, "likeliest", _by_every_bit(arch_files.VOCAB))
    path = arch_files.write(tmp_path / "model.gguf", arch_files.Small(arch, Type.F32))
    _same_in_any_company(path, 200, (70, 1, 128, 9, 30))


def _by_every_bit(vocab: int) -> Callable[[Engine, Any], list[list[int]]]:
    """A choice in which any bit that differs makes another token, and another token another text."""
    return lambda engine, additions: [
        [zlib.crc32(row) % vocab for row in rows] for rows in engine.append(additions)
    ]


def _same_in_any_company(path: Path, ctx: int, lengths: tuple[int, ...]) -> None:
    rng = random.Random(3)
    prompts = [Prompt(i, tuple(rng.randrange(300) for _ in range(n)), 9) for i, n in enumerate(lengths)]
    texts = []
    with Model.open(path) as model:
        for plan in ({"sequences": 1}, {"sequences": 3, "chunk": "200K"}, {"sequences": 9}):
            planned = model.plan(device="CPU", ctx=ctx, uniform=True, threads=1, **plan)
            assert planned.uniform
            with Engine(planned) as session:
                passes: list[int] = []
                done = batch.generate(session, iter(enumerate(prompts)), frozenset(), passes.append)
                texts.append({each.row: each.tokens for each in done})
            assert sum(passes) == 9 * len(prompts)
    assert [len(texts[0][row]) for row in range(len(prompts))] == [9] * len(prompts)
    assert texts[1] == texts[0]
    assert texts[2] == texts[0]


def _write(folder: Path, rows: list[Any]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def _batch(engine: Installed, model: Path, prompts: Path, out: Path, *options: object) -> str:
    done = engine.run("batch", model, prompts, out, "--threads", 1, "--device", "CPU", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not sidecar(str(out)).exists()
    return done.stderr


def test_rows_come_out_in_order_whatever_the_company(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    prompts = _write(tmp_path, ROWS)
    found = set()
    for name, options in (
        ("a", ("--sequences", 1)),
        ("b", ()),
        ("c", ("--sequences", 5, "--memory", "16M", "--chunk", "40K")),
    ):
        said = _batch(engine, tiny, prompts, tmp_path / name, "-n", 10, "--ctx", 400, *options)
        assert "19/19 done" in said
        assert "tokens/s" in said
        assert "1 did not fit" in said
        found.add((tmp_path / name).read_bytes())
    assert len(found) == 1
    rows = [json.loads(line) for line in found.pop().decode().splitlines()]
    assert [row["id"] for row in rows] == [1, "long", -4, *range(4, 20)]
    with Model.open(tiny) as model:
        for row, asked in zip(rows, ROWS, strict=True):
            most = asked.get("max_tokens", 10)
            if most == 5000:
                assert (row["finish"], row["text"], row["tokens"]) == ("error", "", [])
                assert "--ctx" in row["error"]
                continue
            assert row["finish"] in ("length", "stop")
            assert len(row["tokens"]) == most or row["finish"] == "stop"
            assert row["text"] == model.tokenizer.decode(row["tokens"])
            assert "error" not in row
    again = engine.run("batch", tiny, prompts, tmp_path / "a", "--threads", 1)
    assert again.returncode == 2
    assert "there already" in again.stderr


def test_smollm_says_in_company_what_llama_cpp_says(
    engine: Installed, smollm: Path, greedy: list[dict[str, Any]], tmp_path: Path
) -> None:
    # "stop": a token that ends generation, which this prompt calls for.
    ending = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    with Model.open(smollm) as model:
        ending_tokens = model.tokenizer.encode(ending, parse_special=True)
    rows = [{"prompt": each["prompt"], "max_tokens": len(each["tokens"])} for each in greedy[:4]]
    prompts = _write(tmp_path, [*rows, {"tokens": ending_tokens, "max_tokens": 60}])
    _batch(engine, smollm, prompts, tmp_path / "out", "--memory", "96M")
    found = [json.loads(line) for line in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    assert_as_recorded([row["tokens"] for row in found[:4]], [each["tokens"] for each in greedy[:4]])
    assert found[4]["finish"] == "stop"
    assert 0 < len(found[4]["tokens"]) < 60


def test_a_model_without_tokenizer_takes_token_ids(
    engine: Installed, made: Callable[..., Path], tmp_path: Path
) -> None:
    prompts = _write(tmp_path, [{"tokens": [5, 6], "max_tokens": 4}])
    _batch(engine, made(), prompts, tmp_path / "out")
    (row,) = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert (len(row["tokens"]), row["finish"], "text" in row) == (4, "length", False)
    prompts = _write(tmp_path, [{"prompt": "text"}])
    assert engine.run("batch", made(), prompts, tmp_path / "none").returncode == 7
    _batch(engine, made(), _write(tmp_path, []), tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "one of prompt and tokens"),
        (b'{"prompt": "a", "tokens": [1]}', "one of prompt and tokens"),
        (b'{"prompt": 5}', "not text"),
        (b'{"tokens": [1, 256]}', "ids from 0 to 255"),
        (b'{"tokens": [true]}', "ids from 0"),
        (b'{"tokens": "abc"}', "ids from 0"),
        (b'{"prompt": "a", "max_tokens": 0}', "max_tokens"),
        (b'{"prompt": "a", "max_tokens": 1.5}', "max_tokens"),
        (b'{"prompt": "a", "id": [1]}', "id"),
        (b'{"prompt": "a", "temperature": 1}', "temperature"),
        (b'{"prompt": "a", "prompt": "b", "max_tokens": 1}', "'prompt' twice"),
        (b'{"prompt": "a", "id": {"b": 1, "b": 2}}', "'b' twice"),
        (b'{"tokens": [1], "id": NaN}', "not JSON"),
        (b'{"tokens": [1], "max_tokens": ' + b"1" * 5000 + b"}", "not JSON|max_tokens"),
    ],
)
def test_a_row_that_is_not_right_is_refused_before_anything_runs(
    engine: Installed, tiny: Path, tmp_path: Path, line: bytes, why: str
) -> None:
    prompts = tmp_path / "in.jsonl"
    prompts.write_bytes(b'{"prompt": "fine"}\n\n' + line + b"\n")
    with Model.open(tiny) as model, pytest.raises(UsageError, match=rf"line 3: .*{why}"):
        batch.run(model, _arguments(prompts, tmp_path / "out"), pytest.fail)
    assert list(tmp_path.iterdir()) == [prompts]


def _arguments(prompts: Path, out: Path, **given: Any) -> argparse.Namespace:
    options = dict.fromkeys(("memory", "ctx", "kv", "chunk", "tokens", "sequences"))
    options |= dict.fromkeys(("device_memory", "cpu_share"))
    fixed = {"device": "CPU", "threads": 1, "io": "auto", "input": str(prompts), "output": str(out)}
    return argparse.Namespace(**{**options, **fixed, **given})


def test_the_command_line_refuses_with_2(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    for prompts, options, why in (
        (bad, (), "line 1"),
        (tmp_path / "nowhere", (), "nowhere does not exist"),
        (tmp_path, (), "not a file"),
        (_write(tmp_path, ROWS[:1]), ("--sequences", 0), "sequences"),
        (_write(tmp_path, ROWS[:1]), ("-n", 0), "at least 1"),
    ):
        done = engine.run("batch", tiny, prompts, tmp_path / "out", *options)
        assert done.returncode == 2, done.stderr
        assert why in done.stderr
        assert not list(tmp_path.glob("out*"))


def test_a_place_that_takes_no_results_is_told_before_anything_runs(
    engine: Installed, tiny: Path, tmp_path: Path
) -> None:
    rows = _write(tmp_path, ROWS[:1])
    before = sorted(tmp_path.rglob("*"))
    for out, why in (
        (tmp_path / "none" / "out", f"there is no folder {tmp_path / 'none'}"),
        (rows / "out", f"there is no folder {rows}"),
        (tmp_path, "is a folder"),
    ):
        done = engine.run("batch", tiny, rows, out)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
    if Path("/proc/self").exists():
        # Where root cannot write either.
        done = engine.run("batch", tiny, rows, "/proc/out")
        assert (done.returncode, done.stdout) == (8, ""), done.stderr
        assert "/proc/out" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_as_many_run_at_once_as_the_cache_holds(engine: Installed, tiny: Path, tmp_path: Path) -> None:
    prompts = _write(tmp_path, [{"prompt": "a", "max_tokens": 200}] * 100)
    with (
        Model.open(tiny) as model,
        batch.Prompts(str(prompts), model.tokenizer.encode, 256, 5) as rows,
    ):
        counts = []
        for ctx, given in (
            (None, {}),
            (None, {"sequences": 9}),
            (2048, {"memory": "16M"}),
            (None, {"sequences": 300}),
        ):
            arguments = _arguments(prompts, tmp_path / "out", ctx=ctx, **given)
            plan = batch.make_plan(model, rows, arguments, {})
            counts.append(plan.sequences)
            assert plan.ctx == (ctx or 201)
            assert plan.memory.total <= plan.memory.limit
            assert plan.width == 512
        assert counts[0] == batch.SEQUENCES
        assert counts[1] == 9
        assert 4 <= counts[2] < 16
        assert counts[3] == 100


# A pass sleeps a little, so that there is time to be killed at any of them.
_HALTING = """
import pathlib, sys, time
import floatllm.batch
from floatllm.cli import main
progress, rows = pathlib.Path(sys.argv[1]), int(sys.argv[2])
class Halting(floatllm.batch.Engine):
    # Computes until so many rows are kept, and then no more.
    def likeliest(self, additions):
        while progress.exists() and progress.read_bytes().count(b"\\n") > rows:
            time.sleep(0.01)
        return super().likeliest(additions)
floatllm.batch.Engine = Halting
sys.exit(main(sys.argv[3:]))
"""


def _halting(engine: Installed, model: Path, prompts: Path, out: Path, rows: int) -> subprocess.Popen[bytes]:
    arguments = ["batch", model, prompts, out, "--sequences", "3", "-n", "10", "--ctx", "400"]
    arguments += ["--threads", "1", "--device", "CPU"]
    command = [engine.python, "-c", _HALTING, *map(str, (sidecar(str(out)), rows, *arguments))]
    return subprocess.Popen(command, env=engine.env, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def _wait_for(child: subprocess.Popen[bytes], progress: Path, rows: int) -> None:
    """Returns when so many rows are kept, or the child has ended."""
    for _ in range(6000):
        kept = progress.read_bytes().count(b"\n") - 1 if progress.exists() else 0
        if kept >= rows or child.poll() is not None:
            return
        time.sleep(0.01)
    pytest.fail("the batch does not get on")


@pytest.fixture(scope="module")
def uninterrupted(engine: Installed, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What ROWS give when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("whole")
    _batch(engine, tiny, _write(folder, ROWS), folder / "out", "-n", 10, "--ctx", 400)
    return (folder / "out").read_bytes()


def test_a_kill_costs_nothing_that_was_finished(
    engine: Installed, tiny: Path, tmp_path: Path, uninterrupted: bytes
) -> None:
    prompts, out = _write(tmp_path, ROWS), tmp_path / "out"
    progress = sidecar(str(out))
    kept = b""
    for rows in (0, 2, 7, 12):
        with _halting(engine, tiny, prompts, out, rows) as child:
            _wait_for(child, progress, rows)
            assert child.poll() is None
            child.kill()
        assert not out.exists()
        left = progress.read_bytes() if progress.exists() else b""
        assert left.startswith(kept)
        # Only the last line may be torn, as a power cut leaves it.
        kept = left[: left.rfind(b"\n") + 1]
        progress.write_bytes(kept + b'{"row": 18, "result": {"id"'[: 9 * rows])
    _batch(engine, tiny, prompts, out, "-n", 10, "--ctx", 400)
    assert out.read_bytes() == uninterrupted
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_what_the_same_command_goes_on_from(
    engine: Installed, tiny: Path, tmp_path: Path, uninterrupted: bytes
) -> None:
    prompts, out = _write(tmp_path, ROWS), tmp_path / "out"
    with _halting(engine, tiny, prompts, out, 3) as child:
        _wait_for(child, sidecar(str(out)), 3)
        assert child.poll() is None
        # Another process keeps off meanwhile.
        second = engine.run("batch", tiny, prompts, out, "-n", 10, "--ctx", 400, "--device", "CPU")
        assert (second.returncode, "Another process" in second.stderr) == (2, True), second.stderr
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=120) == 130
        assert child.stderr is not None
        said = child.stderr.read().decode()
    assert "Traceback" not in said
    assert "the same command goes on" in said
    changed = engine.run("batch", tiny, prompts, out, "-n", 11, "--ctx", 400, "--device", "CPU")
    assert (changed.returncode, "another tokens (10, now 11)" in changed.stderr) == (2, True), changed.stderr
    # The context need not be said again: it decides which rows fit.
    _batch(engine, tiny, prompts, out, "-n", 10)
    assert out.read_bytes() == uninterrupted
