"""Whose the files are that the tool writes: what was asked for is as any other file, the rest is private."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from machines import PC
from plans import PLAN
from small_wheels import small_wheel
from tool_environment import ROOT, skip_or_fail
from typer.testing import CliRunner

from floatllm_build import flow, variants
from floatllm_build.build import run
from floatllm_build.build.governed import Outcome
from floatllm_build.build.staging import read_sources
from floatllm_build.cli import app
from floatllm_build.errors import MissingError
from floatllm_build.files import write_whole
from floatllm_build.sdist import pack_sdist
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem
from floatllm_build.values import Request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """That of a new file by the umask."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def modes(paths: Iterable[Path]) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


def test_a_file_is_private_if_nobody_asked_for_it(tmp_path: Path, mode: int) -> None:
    write_whole(tmp_path / "private", b"")
    write_whole(tmp_path / "shared", b"", shared=True)
    assert modes([tmp_path / "private"]) == {0o600}
    assert modes([tmp_path / "shared"]) == {mode}
    (tmp_path / "plain").touch()
    assert modes([tmp_path / "plain"]) == {mode}, "the umask was changed"


def save(folder: Path, _: pytest.MonkeyPatch) -> list[Path]:
    record = ROOT / "tests" / "hosts" / "ubuntu-rtx-3060.json"
    done = CliRunner().invoke(app, ["detect", "--from", str(record), "--save", str(folder / "host.json")])
    assert done.exit_code == 0, done.output
    return [folder / "host.json"]


def sdist(folder: Path, _: pytest.MonkeyPatch) -> list[Path]:
    return [pack_sdist({**read_sources(ROOT), "ggml/source/LICENSE": b""}, folder)]


def wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    (folder / "made").mkdir()
    made = [(PLAN, small_wheel(folder / "made"))]
    monkeypatch.setattr(flow, "plan_all", lambda *_, **__: (PC, (PLAN,)))
    monkeypatch.setattr(flow, "make_all", lambda *_, **__: made)
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(folder / "cache"))
    door = Door(LiveSystem(), Symbols.of_this_user())
    wheels = flow.make_wheels(door, flow.Wish(request=Request()), folder / "out", lambda _: None)
    return [Path(one.path) for one in wheels]


def variant(folder: Path, _: pytest.MonkeyPatch) -> list[Path]:
    try:
        return [*variants.write_variants(Path(small_wheel(folder).path), {"vulkan": "floatllm-vulkan"})]
    except MissingError as error:
        skip_or_fail(str(error))
    return []


def timeline(folder: Path, _: pytest.MonkeyPatch) -> list[Path]:
    run._write_trace(folder / "trace.json", Outcome(), lambda _: None)
    return [folder / "trace.json"]


@pytest.mark.parametrize("make", [save, sdist, wheel, variant, timeline])
def test_what_the_user_asked_for_is_as_any_other_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    make: Callable[[Path, pytest.MonkeyPatch], list[Path]],
) -> None:
    made = make(tmp_path, monkeypatch)
    assert made
    assert modes(made) == {mode}
