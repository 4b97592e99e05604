"""The streaming device under libllama: to the bit the numbers of the resident model, and errors are told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from llama_tree import extras, llama_source
from memory_group import Group
from streaming import MIB, Programs, Ring, compare_all
from tool_environment import ROOT, skip_or_fail

pytestmark = [pytest.mark.ci, pytest.mark.build]


def _cmake(*arguments: object) -> None:
    done = subprocess.run(
        ["cmake", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Programs:
    """Those of native/tests; for a quick round, from the build folder that FLOATLLM_TEST_BUILD names."""
    if os.environ.get("FLOATLLM_TEST_BUILD"):
        return Programs(Path(os.environ["FLOATLLM_TEST_BUILD"]))
    for name in ("cmake", "ninja", "c++"):
        if not shutil.which(name):
            skip_or_fail(f"{name} is not on PATH (Debian: apt install g++ cmake ninja-build)")
    out = tmp_path_factory.mktemp("streaming") / "out"
    # libllama's own code takes longer to optimise than these small models to run.
    light = ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS_RELEASE=-O1", "-DCMAKE_CXX_FLAGS_RELEASE=-O1")
    _cmake(
        *("--preset", "cpu", "-S", ROOT / "native", "-B", out, f"-DGGML_DIR={llama_source(request)}"),
        *("-DFLOATLLM_TESTS=ON", f"-DFLOATLLM_LLAMA_TESTS={extras(request.config)}", *light),
    )
    _cmake("--build", out, "-j", "2", "--target", "stream_run", "made_models", "quantize_model", "engine_run")
    return Programs(out)


@pytest.fixture(scope="module")
def models(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    models = programs.write_models(tmp_path_factory.mktemp("architectures"))
    assert len(models) >= 130
    return models


# Experts lie whole in a slot: 12 MiB of them in the model of deepseek2.
@pytest.mark.parametrize("io", ["direct", "windows"])
def test_every_architecture_gives_the_same_bytes(programs: Programs, models: list[Path], io: str) -> None:
    compared = list(compare_all(programs, models, Ring(slot=13 * MIB, io=io)))
    assert [one for one in compared if one.verdict != "same"] == []


# Of dense models, mixtures of experts (deepseek2's has 64), hybrids and recurrent ones.
_SOME = ("llama-dense", "qwen3-dense", "qwen3moe-moe", "gpt-oss-moe", "gemma3-dense", "deepseek2-moe")
_SOME += ("qwen35moe-moe", "lfm2moe-moe", "mamba2-dense")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_K", "Q6_K", "MXFP4"])
def test_quantized_models_give_the_same_bytes(
    programs: Programs, models: list[Path], tmp_path: Path, kind: str
) -> None:
    some = [programs.quantize(model, tmp_path, kind) for model in models if model.stem in _SOME]
    assert len(some) == len(_SOME)
    compared = list(compare_all(programs, some, Ring(slot=13 * MIB)))
    assert [one for one in compared if one.verdict != "same"] == []


# A slot of 150,000 bytes has every matrix pass through it some rows at a time.
@pytest.mark.parametrize(
    "ring", [Ring(), Ring(slot=3 * MIB, slots=2, kept=20 * MIB, io="windows"), Ring(slot=150_000)]
)
def test_real_models_through_a_small_ring(
    programs: Programs, smollm: Path, gemma: Path, tmp_path: Path, ring: Ring
) -> None:
    plain, streamed = tmp_path / "plain", tmp_path / "streamed"
    for model in (smollm, gemma):
        assert programs.run(model, plain, None, prompt=100).returncode == 0
        done = programs.run(model, streamed, ring, prompt=100)
        assert done.returncode == 0, done.stderr
        assert plain.read_bytes() == streamed.read_bytes(), (model, done.stdout)
        splits = int(re.search(r"(\d+) splits", done.stdout)[1])
        # Of the vocabulary alone, or of each matrix.
        assert (splits > 1000) == (ring.slot < MIB), done.stdout


def test_the_numbers_do_not_depend_on_the_number_of_threads(
    programs: Programs, smollm: Path, tmp_path: Path
) -> None:
    """ggml/patches/attention-in-fixed-parts.cmake, past 512 positions. Here nothing takes threads away."""
    made = []
    for threads in (1, 2, 5):
        out = tmp_path / str(threads)
        command = programs.command(smollm, out, None, prompt=600, tokens=4, threads=threads)
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        made.append(out.read_bytes())
    assert made == [made[0]] * 3


def test_rows_larger_than_a_slot_end_the_pass_with_a_sentence(
    programs: Programs, smollm: Path, tmp_path: Path
) -> None:
    done = programs.run(smollm, tmp_path / "out", Ring(slot=20_000))
    assert done.returncode == 4
    assert "64 rows of a matrix take" in done.stderr
    assert "a slot holds 19.5 KiB. Give a larger --memory." in done.stderr


@pytest.mark.parametrize("kept", [0, 90 * MIB])
def test_weights_that_are_no_numbers_are_found_when_they_are_read(
    programs: Programs, smollm: Path, tmp_path: Path, kept: int
) -> None:
    from gguf import GGUFReader

    tensor = next(one for one in GGUFReader(smollm).tensors if one.name == "blk.17.ffn_down.weight")
    damaged = tmp_path / "damaged.gguf"
    shutil.copyfile(smollm, damaged)
    with damaged.open("r+b") as file:
        # Half of a block's scale in the last row: NaN as float16.
        file.seek(int(tensor.data_offset) + int(tensor.n_bytes) - 20)
        file.write(b"\xff\x7f")
    done = programs.run(damaged, tmp_path / "out", Ring(kept=kept))
    assert done.returncode == 4
    assert "weights of blk.17.ffn_down.weight (q4_1) are not numbers but NaN or infinite" in done.stderr


def _wait_for_logits(out: Path) -> None:
    deadline = time.monotonic() + 60
    while (not out.exists() or out.stat().st_size == 0) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("io", ["direct", "windows"])
def test_a_file_that_is_cut_while_it_runs_ends_the_pass_with_a_sentence(
    programs: Programs, smollm: Path, tmp_path: Path, io: str
) -> None:
    model = tmp_path / "model.gguf"
    shutil.copyfile(smollm, model)
    with programs.start(model, tmp_path / "out", Ring(io=io), tokens=1000) as child:
        _wait_for_logits(tmp_path / "out")
        with model.open("r+b") as file:
            file.truncate(30 * MIB)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 4, (child.returncode, errors)
    assert "became shorter" in errors, errors


def test_a_file_that_changes_while_it_runs_ends_the_pass_with_a_sentence(
    programs: Programs, smollm: Path, tmp_path: Path
) -> None:
    model, out = tmp_path / "model.gguf", tmp_path / "out"
    shutil.copyfile(smollm, model)
    with programs.start(model, out, Ring(kept=90 * MIB), tokens=1000) as child:
        _wait_for_logits(out)
        with model.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"x")
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 4, (child.returncode, errors)
    assert "was changed while the model ran" in errors


# The model runs beside a neighbour that takes 60 MiB of the group's memory and ends.
_BESIDE = """
import subprocess, sys
command, out = sys.argv[2:], sys.argv[1]
run = subprocess.Popen(command)
while run.poll() is None:
    try:
        if open(out, "rb").read(1):
            break
    except OSError:
        pass
grow = "import time; held = []"
grow += "\\nfor _ in range(60): held.append(bytearray(b'x') * (1 << 20)); time.sleep(0.03)\\ntime.sleep(0.5)"
neighbour = subprocess.run([sys.executable, "-c", grow])
sys.exit(run.wait() or abs(neighbour.returncode))
"""


def test_memory_that_others_take_is_given_back(
    programs: Programs, group: Group, smollm: Path, tmp_path: Path
) -> None:
    plain, streamed = tmp_path / "plain", tmp_path / "streamed"
    assert programs.run(smollm, plain, None, tokens=400).returncode == 0
    group.limit(190 * MIB)
    command = programs.command(smollm, streamed, Ring(kept=96 * MIB), tokens=400)
    done = group.run([sys.executable, "-c", _BESIDE, str(streamed), *command], dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "[FloatLLM] Memory is short" in done.stderr
    assert streamed.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("budget", [48 * MIB, 96 * MIB])
def test_a_budget_holds_under_a_hard_limit(
    programs: Programs, group: Group, smollm: Path, tmp_path: Path, budget: int
) -> None:
    """92 MiB of weights, libllama's own memory and all, in a budget of 48: the same bytes."""
    plain = tmp_path / "plain"
    assert programs.run(smollm, plain, None, prompt=100).returncode == 0
    group.limit(budget + 64 * MIB)
    command = [programs.build / "tests" / "engine_run", smollm, tmp_path / "out", budget, 512, 100, 3]
    done = group.run(list(map(str, command)), dict(os.environ))
    assert done.returncode == 0, done.stderr
    shares = json.loads(done.stdout)
    assert 0 < shares["kept"] < 80 * MIB
    assert shares["read"] > 0
    # In narrower passes the prompt is of several, and kernels look at the width.
    assert shares["width"] >= 100
    assert (tmp_path / "out").read_bytes() == plain.read_bytes()


def test_a_budget_that_is_too_small_is_refused_with_the_smallest_that_works(
    programs: Programs, smollm: Path, tmp_path: Path
) -> None:
    command = [programs.build / "tests" / "engine_run", smollm, tmp_path / "out"]
    done = subprocess.run([*command, str(20 * MIB), "512"], capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    least = int(re.search(r"Give --memory (\d+)K or more", done.stderr)[1])
    # What libllama takes for itself is measured, and not the same to the page each time.
    enough = str((least << 10) + MIB)
    subprocess.run([*command, enough, "512"], capture_output=True, check=True)


def test_a_branch_that_is_not_taken_reads_nothing(programs: Programs, gemma: Path, tmp_path: Path) -> None:
    """Gemma's graph picks rows by ids that only a prompt with pictures would have."""
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert programs.run(gemma, plain, None, prompt=100).returncode == 0
    command = [programs.build / "tests" / "engine_run", gemma, out, 100 * MIB, 512, 100, 3]
    subprocess.run(list(map(str, command)), capture_output=True, check=True)
    assert out.read_bytes() == plain.read_bytes()


def test_more_threads_than_cpus_end_in_time(programs: Programs, smollm: Path, tmp_path: Path) -> None:
    """ggml/patches/bounded-waiting.cmake: without it a token takes three seconds and more."""
    threads = len(os.sched_getaffinity(0)) + 1
    command = programs.command(smollm, tmp_path / "out", None, tokens=40, threads=threads)
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_the_file_is_not_read_ahead(programs: Programs, smollm: Path, tmp_path: Path) -> None:
    """ggml/patches/no-prefetch.cmake: libllama has the system read all of a file that it maps."""
    if not shutil.which("fincore"):
        skip_or_fail("fincore is not on PATH (Debian: apt install util-linux)")
    model = tmp_path / "model.gguf"
    shutil.copyfile(smollm, model)

    def cached() -> int:
        command = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(model)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def drop() -> None:
        file = os.open(model, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)

    drop()
    if cached() > MIB:
        skip_or_fail("this file system keeps files in memory")
    assert programs.run(model, tmp_path / "out", Ring(), tokens=0).returncode == 0
    assert cached() < 8 * MIB
    drop()
    assert programs.run(model, tmp_path / "out", None, tokens=0).returncode == 0
    assert cached() > 60 * MIB, "plain llama.cpp no longer reads ahead: the patch can go"
