"""Files that are wrong on purpose get a reason: no crash, no long wait, no memory to speak of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import hostile
import hostile_crowds
import hostile_splits
import pytest
from floatllm import Engine, Model, ModelError, UsageError
from installed import Installed

# Each file by the command line, whose exit code counts, with a peak of its own. A good file comes first, so
# that loading code is nobody's cost.
_MEASURE = """
import contextlib, io, json, sys, time
from floatllm import cli

def status(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name))

def judge(path):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before, began, said = status("VmRSS"), time.process_time(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(["plan", path, "--device", "CPU"])
    return [code, said.getvalue(), time.process_time() - began, status("VmHWM") - before]

good, *bad = sys.argv[1:]
judge(good)
print(json.dumps([judge(path) for path in bad]))
"""


def _placed(message: str) -> bool:
    return re.search(r"at byte \d+", message) is not None


@pytest.mark.parametrize("kind", hostile.OPEN)
def test_what_cannot_be_right_is_refused_when_opened(engine: Installed, tmp_path: Path, kind: str) -> None:
    make, reason = hostile.OPEN[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(make())
    with pytest.raises(ModelError) as refused:
        Model.open(path)
    said = str(refused.value)
    assert reason in said
    assert str(path) in said
    assert _placed(said)


@pytest.mark.parametrize("kind", hostile.RUN)
def test_what_cannot_be_run_is_refused_when_planned(engine: Installed, tmp_path: Path, kind: str) -> None:
    make, reason = hostile.RUN[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(make())
    with Model.open(path) as model:
        with pytest.raises(ModelError) as refused:
            model.plan(device="CPU")
        said = str(refused.value)
        assert reason in said
        # What is not there stands nowhere.
        assert _placed(said) or "missing" in said or "no architecture" in said
        # Whatever cannot be run can still be mapped.
        assert model.plan(device="CPU", mode="map").chunks


@pytest.mark.parametrize("arch", hostile.LAYER)
def test_the_makers_good_model_is_good(engine: Installed, tmp_path: Path, arch: str) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(hostile.model(arch=arch, matrix=hostile.TYPE_Q4_0))
    with Model.open(path) as model, Engine(model.plan(device="CPU")) as session:
        assert set(session.forward([1, 2])) == {0.0}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
def test_each_refusal_is_quick_and_small(engine: Installed, tmp_path: Path) -> None:
    good = tmp_path / "good.gguf"
    good.write_bytes(hostile.model())
    paths: dict[str, Path] = {}
    for kind, (make, _) in (hostile.OPEN | hostile.RUN).items():
        paths[kind] = tmp_path / f"{len(paths)}.gguf"
        paths[kind].write_bytes(make())
    for kind, wrong in hostile_splits.WRONG.items():
        folder = tmp_path / f"split-{len(paths)}"
        folder.mkdir()
        paths[kind] = hostile_splits.write(folder, wrong.files())
    for kind, write in hostile_crowds.CROWDS.items():
        paths[kind] = tmp_path / f"{len(paths)}.gguf"
        write(paths[kind])
    found = engine.script(_MEASURE, good, *paths.values())
    for kind, (code, said, seconds, kib) in zip(paths, found, strict=True):
        assert code == 7, (kind, said)
        assert said.startswith("floatllm: "), kind
        assert "\x1b" not in said, kind
        assert seconds < 1, kind
        assert kib < 64_000_000 // 1024, kind


def test_a_hundred_thousand_keys_open(engine: Installed, tmp_path: Path) -> None:
    path = tmp_path / "keys.gguf"
    path.write_bytes(hostile_crowds.many_keys(100_000))
    with Model.open(path) as model:
        assert len(model.metadata) == 100_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has none of these")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "no file"),
        (Path.mkdir, "folder"),
    ],
)
def test_what_is_no_file_is_refused_without_waiting(
    engine: Installed, tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    path = tmp_path / "thing.gguf"
    make(path)
    with pytest.raises(ModelError, match=reason):
        Model.open(path)
    # Nor as a part of a model.
    folder = tmp_path / "split"
    folder.mkdir()
    first = hostile_splits.write(folder, hostile_splits.good())
    second = hostile_splits.name(folder, 2)
    second.unlink()
    make(second)
    with pytest.raises(ModelError, match=reason):
        Model.open(first)


def test_scales_that_are_not_numbers_are_told(engine: Installed, tmp_path: Path) -> None:
    path = tmp_path / "nan.gguf"
    # The scale of a block of Q8_0 stands first, in half precision.
    path.write_bytes(hostile.model(matrix=hostile.TYPE_Q8_0, fill=b"\x00\x7e"))
    with Model.open(path) as model:
        for mode in ("run", "map"):
            with (
                Engine(model.plan(device="CPU", mode=mode)) as session,
                pytest.raises(ModelError, match="not numbers") as refused,
            ):
                session.map() if mode == "map" else session.forward([1])
            assert _placed(str(refused.value))


def test_tokens_beyond_the_vocabulary_reach_no_weight(engine: Installed, tmp_path: Path) -> None:
    tokens = b"".join(hostile.text(word) for word in "abcdefgh")
    pairs = (
        hostile.pair("tokenizer.ggml.model", hostile.STRING, "gpt2"),
        hostile.pair("tokenizer.ggml.pre", hostile.STRING, "gpt-2"),
        hostile.array("tokenizer.ggml.tokens", hostile.STRING, 8, tokens),
        hostile.array("tokenizer.ggml.merges", hostile.STRING, 1, hostile.text("a b")),
        hostile.pair("tokenizer.ggml.add_bos_token", hostile.BOOL, value=True),
        hostile.pair("tokenizer.ggml.bos_token_id", hostile.U32, 2**31),
        hostile.pair("tokenizer.ggml.eos_token_id", hostile.U32, 8),
    )
    path = tmp_path / "beyond.gguf"
    path.write_bytes(hostile.model(pairs=pairs))
    done = engine.run("run", path, "-p", "abc", "-n", "2")
    assert done.returncode in (0, 7), done.stderr
    assert "Traceback" not in done.stderr
    with Model.open(path) as model, Engine(model.plan(device="CPU")) as session:
        for token in (8, 2**31 - 1, 2**31, -1):
            with pytest.raises(UsageError, match="vocabulary"):
                session.forward([token])
