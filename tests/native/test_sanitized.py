"""The engine under AddressSanitizer, LeakSanitizer and UBSan: C programs that use it, and that it refuses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hostile
import pytest
from gguf import GGMLQuantizationType as Type
from llama_tree import llama_source
from tool_environment import ROOT, skip_or_fail

pytestmark = [
    pytest.mark.ci,
    pytest.mark.build,
    pytest.mark.skipif(sys.platform != "linux", reason="GCC's sanitizers find leaks on Linux"),
]

_NATIVE = ROOT / "native"
_HERE = Path(__file__).parent
_SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

# Opens a model, closes it where told, and so shows that what is not given back is seen.
_TRIAL = """
#include <floatllm.h>
#include <string.h>
int main(int argc, char **argv) {
    floatllm_model *model = NULL;
    if (floatllm_model_open(argv[1], strlen(argv[1]), &model, NULL) != FLOATLLM_OK) {
        return 7;
    }
    if (argc > 2) {
        floatllm_model_close(model);
    }
    model = NULL;
    return 0;
}
"""


def _do(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of example, example_run and trial, linked with an engine that watches itself."""
    folder = tmp_path_factory.mktemp("sanitized")
    for name in ("cmake", "ninja", "gcc", "g++"):
        if not shutil.which(name):
            skip_or_fail(f"{name} is not on PATH (Debian: apt install g++ cmake ninja-build)")
    source = llama_source(request)
    # Nothing here takes long to compute, but much to optimise.
    light = ("-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_C_FLAGS_DEBUG=-O1", "-DCMAKE_CXX_FLAGS_DEBUG=-O1")
    compilers = ("-DCMAKE_C_COMPILER=gcc", "-DCMAKE_CXX_COMPILER=g++")
    out = folder / "out"
    _do(
        *("cmake", "--preset", "cpu", "-S", _NATIVE, "-B", out, f"-DGGML_DIR={source}"),
        *("-DFLOATLLM_SANITIZE=ON", *light, *compilers),
    )
    _do("cmake", "--build", out, "--target", "floatllm", "-j", "2")
    (folder / "trial.c").write_text(_TRIAL)
    for source in (_HERE / "example.c", _HERE / "example_run.c", folder / "trial.c"):
        _do(
            *("gcc", "-std=c99", *_SANITIZERS, f"-I{_NATIVE / 'include'}", source),
            *(out / "libfloatllm.so", f"-Wl,-rpath,{out}", "-o", folder / source.stem),
        )
    return folder


def _run(program: Path, *arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, errors="replace", check=False
    )
    return done.returncode, done.stderr


def test_a_leak_would_be_seen(programs: Path, tiny: Path) -> None:
    assert _run(programs / "trial", tiny, "close") == (0, "")
    code, said = _run(programs / "trial", tiny)
    assert code != 0
    assert "LeakSanitizer" in said
    assert "floatllm_model_open" in said


@pytest.mark.parametrize("chunk", [0, 65536, 131072])
def test_models_are_mapped_and_run_cleanly(
    programs: Path, made: Callable[..., Path], tiny: Path, image_like: Path, chunk: int
) -> None:
    assert _run(programs / "example", image_like, max(chunk, 131072)) == (0, "")
    for path in (tiny, made(matrix=Type.Q4_0, embd=Type.Q8_0, tied=True, rope_freqs=True)):
        assert _run(programs / "example", path, chunk) == (0, "")
        assert _run(programs / "example_run", path, chunk, 12, *range(1, 40)) == (0, "")


def test_refusals_are_clean(programs: Path, tiny: Path, tmp_path: Path) -> None:
    run = programs / "example_run"
    for arguments, expected, why in (
        (("/nowhere.gguf", 0, 1, 1), 7, "no file"),
        ((tiny, 1, 1, 1), 2, "chunk of 1 B"),
        ((tiny, 0, 3, 1, 256), 2, "vocabulary"),
        ((tiny, 0, 300, *range(10)), 2, "context"),
    ):
        code, said = _run(run, *arguments)
        assert (code, why in said) == (expected, True), said
    bad = tmp_path / "bad.gguf"
    # Weights that are no numbers stop a pass half-way, with chunks on their way.
    bad.write_bytes(hostile.model(matrix=hostile.TYPE_Q8_0, fill=b"\x00\x7e"))
    code, said = _run(run, bad, 0, 2, 1)
    assert (code, "not numbers" in said) == (7, True), said


@pytest.mark.parametrize("kind", [*hostile.OPEN, *hostile.RUN])
def test_what_is_refused_leaves_nothing_behind(programs: Path, tmp_path: Path, kind: str) -> None:
    make, reason = (hostile.OPEN | hostile.RUN)[kind]
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(make())
    code, said = _run(programs / "example_run", bad, 0, 1, 1)
    assert (code, reason in said) == (7, True), said
