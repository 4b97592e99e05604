"""The fuzzer of what judges a model file: built with clang, its corpus clean, and seconds of new inputs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import corpus
import pytest
from llama_tree import llama_source
from tool_environment import ROOT, skip_or_fail

pytestmark = [pytest.mark.ci, pytest.mark.build]

_NATIVE = ROOT / "native"


def _cmake(*arguments: object) -> None:
    command = ["cmake", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("cmake", "ninja", "clang++"):
        if not shutil.which(name):
            skip_or_fail(
                f"{name} is not on PATH (Debian: apt install clang libclang-rt-dev cmake ninja-build)"
            )
    # Packages of clang do not all bring what it links into a program that checks itself.
    trial = folder / "trial.cpp"
    trial.write_text(
        '#include <cstddef>\nextern "C" int LLVMFuzzerTestOneInput(const char *, size_t) { return 0; }\n'
    )
    command = ["clang++", "-fsanitize=fuzzer,address,undefined", trial, "-o", folder / "trial"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(f"clang has no sanitizers (Debian: apt install libclang-rt-dev): {done.stderr[-500:]}")
    source = llama_source(request)
    _cmake(
        *(
            "--preset",
            "cpu",
            "-S",
            _NATIVE,
            "-B",
            folder / "out",
            f"-DGGML_DIR={source}",
            "-DFLOATLLM_FUZZ=ON",
        ),
        *("-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++"),
    )
    _cmake("--build", folder / "out", "--target", "gguf_fuzz", "-j", "2")
    return folder / "out" / "fuzz" / "gguf_fuzz"


def _fuzz(fuzzer: Path, folder: Path, *arguments: object) -> str:
    made = folder / "corpus"
    corpus.write(made)
    # New inputs go to the first folder, so the corpus stays what it is.
    new, found = folder / "new", folder / "found"
    new.mkdir()
    found.mkdir()
    options = ("-timeout=25", "-rss_limit_mb=1024", "-malloc_limit_mb=64", f"-artifact_prefix={found}/")
    done = subprocess.run(
        [fuzzer, *options, *map(str, arguments), new, made],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=600,
        check=False,
    )
    inputs = {path.name: path.read_bytes().hex()[:4000] for path in found.iterdir()}
    assert done.returncode == 0, f"{done.stderr[-6000:]}\n{inputs}"
    assert not inputs
    return done.stderr


def test_the_corpus_reaches_the_plan_and_is_clean(fuzzer: Path, tmp_path: Path) -> None:
    said = _fuzz(fuzzer, tmp_path, "-runs=0")
    reached = int(re.findall(r"cov: (\d+)", said)[-1])
    # What is read before a header is refused at its first word.
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (nothing / "text").write_bytes(b"no model")
    alone = subprocess.run([fuzzer, "-runs=0", nothing], capture_output=True, text=True, check=True)
    assert reached > 10 * int(re.findall(r"cov: (\d+)", alone.stderr)[-1])


def test_new_inputs_are_clean(fuzzer: Path, tmp_path: Path) -> None:
    """For 20 seconds; native/fuzz/CMakeLists.txt has the command that goes on until it is stopped."""
    words = _NATIVE / "fuzz" / "gguf.dict"
    said = _fuzz(
        fuzzer, tmp_path, "-max_total_time=20", "-max_len=65536", f"-dict={words}", "-print_final_stats=1"
    )
    assert int(re.findall(r"number_of_executed_units: *(\d+)", said)[-1]) > 1000
