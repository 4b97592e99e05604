"""The llama.cpp tree that is pinned: the part that the engine is made of, and what only tests need of it."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from sharing import kept_folder, locked
from tool_environment import ROOT, Environment, skip_or_fail

from floatllm_build.errors import FloatllmBuildError
from floatllm_build.ggml_source import download, read_pin
from floatllm_build.system import LiveSystem

# What writes one small model of each architecture, and the headers that it reads.
_ONLY_FOR_TESTS = ("common/common.h", "common/log.h", "tests/test-llama-archs.cpp")


def llama_source(request: pytest.FixtureRequest) -> Path:
    """The tree that the engine under test was made of."""
    named = os.environ.get("GGML_DIR")
    if named:
        return Path(named)
    tool: Environment = request.getfixturevalue("engine_env")
    return tool.source


def extras(config: pytest.Config) -> Path:
    """A folder of the files that only tests need, from the pinned archive, kept in pytest's cache."""
    pin = read_pin(ROOT)
    folder = kept_folder(config, f"llama-{pin.release}")
    with locked(folder), tempfile.TemporaryDirectory() as scratch:
        if all((folder / name).is_file() for name in _ONLY_FOR_TESTS):
            return folder
        try:
            archive = download(LiveSystem(), pin, Path(scratch) / "cache", Path(scratch))
        except FloatllmBuildError as error:
            skip_or_fail(str(error))
        with tarfile.open(archive) as tar:
            for member in tar:
                inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                name = inside.as_posix().removeprefix(f"{pin.subfolder}/")
                content = tar.extractfile(member) if name in _ONLY_FOR_TESTS else None
                if content:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    with (folder / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
    return folder
