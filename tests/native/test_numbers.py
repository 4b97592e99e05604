"""Weights that are no numbers: who computes with them is told file, tensor and byte. And what overflows."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import arch_files
import numpy as np
import pytest
from floatllm import Engine, EngineError, Model, ModelError, _lib
from gguf import GGMLQuantizationType as Type
from installed import Installed

# What makes a block of each type no number, and where in the block: the scale, or the value itself.
_BAD: dict[Type, tuple[bytes, int]] = {
    Type.F32: (b"\x00\x00\xc0\x7f", 0),
    Type.F16: (b"\x00\x7e", 0),
    Type.BF16: (b"\xc0\xff", 0),
    Type.Q4_0: (b"\x00\x7c", 0),
    Type.Q8_0: (b"\x00\x7e", 0),
    Type.Q5_1: (b"\x00\xfe", 2),
}
_BLOCK = {Type.F32: 4, Type.F16: 2, Type.BF16: 2, Type.Q4_0: 18, Type.Q8_0: 34, Type.Q5_1: 24}


def _spoil(path: Path, tensor: str, block: int, kind: Type) -> int:
    """Makes a block of a tensor no number, from the end where negative; returns its place in the file."""
    with Model.open(path) as model:
        found = next(each for each in model.tensors if each.name == tensor)
    size = _BLOCK[kind]
    offset = found.offset + (block * size if block >= 0 else found.size + block * size)
    bad, within = _BAD[kind]
    _write(path, offset + within, bad)
    return offset


def _write(path: Path, offset: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(what)


@contextmanager
def _damage(path: Path, tensor: str, block: int, kind: Type) -> Iterator[int]:
    """As _spoil(), and heals it afterwards."""
    whole = path.read_bytes()
    offset = _spoil(path, tensor, block, kind)
    try:
        yield offset
    finally:
        _write(path, offset, whole[offset : offset + _BLOCK[kind]])


@pytest.mark.parametrize("kind", _BAD, ids=lambda kind: kind.name)
@pytest.mark.parametrize("how", [{"io": "mmap"}, {"io": "direct", "chunk": "64K"}, {"io": "direct"}], ids=str)
def test_a_damaged_weight_is_named_wherever_it_is(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, kind: Type, how: dict[str, str]
) -> None:
    path = Path(shutil.copyfile(made(matrix=kind, embd=kind, layers=1), tmp_path / "model.gguf"))
    with Model.open(path) as model:
        tensors = model.tensors
    for tensor in tensors:
        own = Type.F32 if tensor.type == "f32" else kind
        for block in (0, -1):
            with _damage(path, tensor.name, block, own) as offset, Model.open(path) as model:
                said = rf"model\.gguf: at byte {offset}, weights of {tensor.name} \({tensor.type}\)"
                for mode in ("run", "map"):
                    if mode == "run" and tensor.name == "token_embd.weight":
                        continue
                    with Engine(model.plan(device="CPU", mode=mode, threads=1, **how)) as session:
                        for _ in range(2):
                            with pytest.raises(ModelError, match=said):
                                session.map() if mode == "map" else session.forward([1, 2])
                        assert mode == "map" or session.length == 0


def test_a_block_that_two_readings_share_is_looked_at(
    engine: Installed, made: Callable[..., Path], tmp_path: Path
) -> None:
    # One chunk of more than 4 MiB, which is what one reading takes, and blocks of 34 bytes.
    path = made(matrix=Type.Q8_0, embed=512, feed=2048, vocab=1024)
    path = Path(shutil.copyfile(path, tmp_path / "model.gguf"))
    with Model.open(path) as model:
        plan = model.plan(device="CPU")
        assert len(plan.chunks) == 1
        weights = [tensor for tensor in model.tensors if tensor.name != "token_embd.weight"]
        first = min(tensor.offset for tensor in weights) // 4096 * 4096
        for seam in range(first + (4 << 20), weights[-1].offset + weights[-1].size, 4 << 20):
            tensor = next(each for each in weights if each.offset <= seam < each.offset + each.size)
            size = _BLOCK[Type.Q8_0]
            for block in range((seam - tensor.offset) // size - 1, (seam - tensor.offset) // size + 2):
                with _damage(path, tensor.name, block, Type.Q8_0) as offset, Engine(plan) as session:
                    searched = _watching(session, lambda: 0)
                    with pytest.raises(ModelError, match=f"at byte {offset}, weights of {tensor.name}"):
                        session.forward([1])
                    assert searched == []


@pytest.mark.parametrize("kind", _BAD, ids=lambda kind: kind.name)
def test_a_row_of_embeddings_spoils_only_what_asks_for_it(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, kind: Type
) -> None:
    path = Path(shutil.copyfile(made(matrix=kind, embd=kind), tmp_path / "model.gguf"))
    with Model.open(path) as model:
        rows = next(each for each in model.tensors if each.name == "token_embd.weight")
        block = 9 * rows.size // rows.shape[1] // _BLOCK[kind]
    with (
        _damage(path, rows.name, block, kind) as offset,
        Model.open(path) as model,
        Engine(model.plan(device="CPU")) as session,
    ):
        session.forward([8, 10])
        with pytest.raises(ModelError, match=rf"at byte {offset}, weights of token_embd\.weight"):
            session.append([(0, [8, 9, 8], 0)])
        assert session.length == 2
        session.forward([8])


@pytest.mark.parametrize("io", ["mmap", "direct"])
def test_damage_done_while_the_model_is_in_use_is_found_by_a_search(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, io: str
) -> None:
    path = Path(shutil.copyfile(made(), tmp_path / "model.gguf"))
    with (
        Model.open(path) as model,
        Engine(model.plan(device="CPU", io=io, chunk="64K", threads=1)) as session,
        Engine(model.plan(device="CPU", io=io, chunk="64K", mode="map", threads=1)) as mapped,
    ):
        session.forward([1, 2, 3])
        good = session.forward([4]).tobytes()
        session.truncate(3)
        sums = mapped.map()
        with _damage(path, "output.weight", -1, Type.F32) as offset:
            said = rf"model\.gguf: at byte {offset}, weights of output.weight "
            with pytest.raises(ModelError, match=said):
                session.forward([4])
            with pytest.raises(ModelError, match=said):
                session.likeliest([(0, [4], 1)])
            with pytest.raises(ModelError, match=said):
                mapped.map()
        # What was computed before stays, and where the file is whole again, it goes on.
        assert session.length == 3
        assert session.forward([4]).tobytes() == good
        assert mapped.map() == sums


def test_the_part_that_is_damaged_is_named(
    engine: Installed, made: Callable[..., Path], tmp_path: Path
) -> None:
    first = arch_files.split(tmp_path, made(), 12)
    second = sorted(tmp_path.glob("*.gguf"))[1]
    with Model.open(second.with_name(first.name)) as model:
        names = [tensor.name for tensor in model.tensors]
    tensor = next(name for name in names[12:] if name.endswith("ffn_up.weight"))
    with Model.open(first) as model:
        place = next(each for each in model.tensors if each.name == tensor)
        with second.open("r+b") as file:
            file.seek(place.offset)
            file.write(_BAD[Type.F32][0])
        with Engine(model.plan(device="CPU")) as session, pytest.raises(ModelError) as refused:
            session.forward([1])
    assert f"{second}: at byte {place.offset}, weights of {tensor}" in str(refused.value)


@pytest.mark.parametrize("command", ["run", "map", "batch"])
def test_the_command_line_ends_with_7(engine: Installed, tiny: Path, tmp_path: Path, command: str) -> None:
    path = Path(shutil.copyfile(tiny, tmp_path / "model.gguf"))
    offset = _spoil(path, "blk.1.ffn_up.weight", 3, Type.Q8_0)
    prompts = tmp_path / "in.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    more = {"run": ("-p", "a", "-n", "3"), "map": ("-v",), "batch": (prompts, tmp_path / "out")}[command]
    done = engine.run(command, path, *more, "--device", "CPU")
    assert done.returncode == 7, done.stderr
    assert f"at byte {offset}, weights of blk.1.ffn_up.weight (q8_0) are not numbers" in done.stderr
    assert "successfully" not in done.stdout
    assert done.stderr.splitlines()[-1].startswith("floatllm: ")


@pytest.mark.parametrize("mode", ["run", "map"])
def test_numbers_that_grow_too_large_are_told_apart(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, mode: str
) -> None:
    path = Path(shutil.copyfile(made(), tmp_path / "model.gguf"))
    with Model.open(path) as model:
        offset = next(each.offset for each in model.tensors if each.name == "output.weight")
    _write(path, offset, np.full(64 * 4, 3e38, np.float32).tobytes())
    with Model.open(path) as model, Engine(model.plan(device="CPU", mode=mode)) as session:
        for _ in range(2):
            with pytest.raises(EngineError, match="overflowed") as failed:
                session.map() if mode == "map" else session.forward([1])
            assert str(path) in str(failed.value)
        assert mode == "map" or session.length == 0


def _watching(session: Engine, do: Callable[[], int]) -> list[int]:
    """Indices of the tensors that are searched, each told to `do`; keep what is returned alive."""
    seen: list[int] = []

    def call(pointer: Any, user: Any) -> int:
        if pointer.contents.kind != _lib.EVENT_CHECK:
            return session._hook._call(pointer, user)
        seen.append(pointer.contents.tensor)
        return do() or session._hook._call(pointer, user)

    session._watch = _lib.EventFunction(call)  # type: ignore[attr-defined]
    _lib.library().floatllm_session_on_event(session._handle, session._watch, None)  # type: ignore[attr-defined]
    return seen


def test_a_search_can_be_stopped(engine: Installed, made: Callable[..., Path], tmp_path: Path) -> None:
    path = Path(shutil.copyfile(made(), tmp_path / "model.gguf"))
    with Model.open(path) as model, Engine(model.plan(device="CPU", io="mmap", chunk="64K")) as session:
        session.forward([1])
        _spoil(path, "output.weight", -1, Type.F32)
        seen = _watching(session, lambda: 1)
        with pytest.raises(EngineError, match="Stopped"):
            session.forward([2])
        assert len(seen) == 1
        seen = _watching(session, lambda: 0)
        with pytest.raises(ModelError):
            session.forward([2])
        # Each once, in the file's order, up to the damaged one, which is the file's last.
        assert len(seen) == len(model.tensors)
        assert seen == sorted(seen, key=lambda index: model.tensors[index].offset)
        # A listener in Python hears of work on chunks alone.
        heard: list[str] = []
        session.on_event(lambda event: heard.append(event.kind))
        with pytest.raises(ModelError):
            session.forward([2])
        assert heard[-1] == "chunk"
        assert heard.count("chunk") == len(session.plan.chunks)
        assert session.length == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_stops_a_search(engine: Installed, made: Callable[..., Path], tmp_path: Path) -> None:
    path = Path(shutil.copyfile(made(), tmp_path / "model.gguf"))
    with (
        Model.open(path) as model,
        Engine(model.plan(device="CPU", mode="map", io="mmap", chunk="64K")) as session,
    ):
        session.map()
        _spoil(path, "output.weight", -1, Type.F32)

        def interrupt() -> int:
            signal.raise_signal(signal.SIGINT)
            return 0

        seen = _watching(session, interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.map()
        assert len(seen) == 1


_MEASURE = """
import json, sys
from floatllm import Engine, Model, ModelError

def status(name):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(name))

with Model.open(sys.argv[1]) as model:
    model.tensors
    plan = model.plan(device="CPU", io=sys.argv[2], chunk="1M")
    with Engine(plan) as engine:
        engine.forward([1])  # what a pass takes is taken
        place = model.tensors[-1]
        with open(sys.argv[1], "r+b") as file:
            file.seek(place.offset + place.size - 4)
            file.write(bytes.fromhex("0000c07f"))
        before = status("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        try:
            engine.forward([2])
            said = ""
        except ModelError as error:
            said = str(error)
print(json.dumps([said, status("VmHWM") - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("io", ["mmap", "direct"])
def test_a_search_takes_no_memory_to_speak_of(
    engine: Installed, made: Callable[..., Path], tmp_path: Path, io: str
) -> None:
    path = Path(shutil.copyfile(made(layers=4, embed=512, feed=1536), tmp_path / "model.gguf"))
    said, grown = engine.script(_MEASURE, path, io)
    with Model.open(path) as model:
        place = model.tensors[-1]
    assert f"at byte {place.offset + place.size - 4}, weights of {place.name}" in said
    # It went through all of the file; beside it the same pass runs as before.
    assert path.stat().st_size > 40 * 2**20
    assert grown < 8 * 2**20
