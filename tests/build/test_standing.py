"""What stands in an environment is known without the wheel it came from: the same is not made again."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC, VENV
from plans import PLAN
from small_wheels import small_wheel
from tool_environment import ROOT

from floatllm_build import flow
from floatllm_build.editable import as_editable
from floatllm_build.errors import BuildFailedError
from floatllm_build.events import Event, Hint
from floatllm_build.flow import upkeep
from floatllm_build.install import holds
from floatllm_build.render.screens import detect_screen
from floatllm_build.standing import installed_key, is_whole
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem
from floatllm_build.values import Engine, Proof, Request, Target, Wheel
from floatllm_build.wheel import find_cached, keep
from floatllm_build.wheel_file import record_hash

KEY, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
INFO = "floatllm-0.1.0.dist-info"
LIBRARY = "floatllm/libfloatllm.so"
PROGRAM = "../../../bin/floatllm"
MADE = replace(PLAN, preset="cpu", backend="cpu", device="CPU")


def modules() -> dict[str, str]:
    """Of the engine that the tool here would build."""
    paths = (ROOT / "native" / "floatllm").glob("*.py")
    return {f"floatllm/{path.name}": record_hash(path.read_bytes()) for path in paths}


def listed(site: Path, paths: list[str]) -> str:
    """A RECORD as pip leaves it."""
    lines = [f"{path},{record_hash((site / path).read_bytes())},1" for path in paths]
    return "".join(f"{line}\n" for line in [*lines, "floatllm/__pycache__/x.pyc,,", f"{INFO}/RECORD,,"])


def put(site: Path, key: str = KEY) -> Target:
    """An engine of this tool's sources, as pip puts it there from this tool's cache."""
    shutil.copytree(
        ROOT / "native" / "floatllm", site / "floatllm", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    manifest = {
        "preset": "cpu",
        "proof": "device",
        "backends": ["cpu", "rpc"],
        "ggml": {"version": json.loads((ROOT / "ggml" / "pin.json").read_text())["version"]},
        "files": [LIBRARY, "floatllm/manifest.json"],
    }
    (site / "floatllm" / "manifest.json").write_text(json.dumps(manifest))
    (site / LIBRARY).write_bytes(b"compiled")
    program = site / PROGRAM
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    (site / INFO).mkdir()
    url = f"file:///home/ada/.cache/floatllm/wheels/{key}/floatllm-0.1.0-py3-none-linux_x86_64.whl"
    (site / INFO / "direct_url.json").write_text(json.dumps({"archive_info": {}, "url": url}))
    paths = [*modules(), LIBRARY, "floatllm/manifest.json", f"{INFO}/direct_url.json", PROGRAM]
    (site / INFO / "RECORD").write_text(listed(site, paths))
    return replace(
        VENV,
        executable=sys.executable,
        prefix=str(site.parents[2]),
        installed=str(site / INFO),
        platform=PC.python.platform,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "venv" / "lib" / "python3.11" / "site-packages"


# ---- whole or not -------------------------------------------------------------------------------


def test_an_engine_is_whole_by_its_own_lists(site: Path) -> None:
    put(site)
    assert is_whole(site / INFO, modules())
    # Not those that Python compiles, and deletes, when it likes.
    assert not (site / "floatllm" / "__pycache__").exists()


def edit(site: Path, native: Path, cache: Path) -> tuple[Target, Wheel]:
    """The same engine as `pip install -e` puts it there, and the wheel that it was made of."""
    target = put(site)
    for path in [*modules(), LIBRARY, "floatllm/manifest.json", f"{INFO}/direct_url.json", f"{INFO}/RECORD"]:
        (native / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(site / path, native / path)
    small = native.parent / "floatllm-0.1.0-py3-none-any.whl"
    paths = [*modules(), LIBRARY, "floatllm/manifest.json"]
    with zipfile.ZipFile(small, "w") as archive:
        for path in paths:
            archive.write(site / path, path)
        archive.writestr(f"{INFO}/RECORD", listed(site, paths))
    shutil.rmtree(site)
    made = keep(
        cache,
        Wheel(path=str(small), key=KEY, reused=False),
        Proof(device="CPU", lines=(), report={}),
        whole=True,
    )
    with zipfile.ZipFile(as_editable(made, native, native.parent / "out")) as archive:
        archive.extractall(site)
    (site / INFO / "direct_url.json").write_text(
        json.dumps({"dir_info": {"editable": True}, "url": native.as_uri()})
    )
    return target, made


def cut_record(site: Path) -> None:
    record = site / INFO / "RECORD"
    record.write_text("".join(line for line in record.read_text().splitlines(True) if LIBRARY not in line))


@pytest.mark.parametrize(
    "damage",
    [
        lambda site: (site / LIBRARY).write_bytes(b"damaged"),
        lambda site: (site / LIBRARY).unlink(),
        lambda site: (site / "floatllm" / "engine.py").write_text("x = 1\n"),
        lambda site: (site / PROGRAM).unlink(),
        lambda site: (site / INFO / "RECORD").unlink(),
        lambda site: (site / "floatllm" / "manifest.json").write_text("{}"),
        cut_record,
    ],
)
def test_a_damaged_one_is_not(site: Path, damage: Callable[[Path], Any]) -> None:
    put(site)
    damage(site)
    assert not is_whole(site / INFO, modules())


def test_one_of_other_modules_is_another(site: Path) -> None:
    put(site)
    assert not is_whole(site / INFO, modules() | {"floatllm/new.py": "sha256=x"})


# ---- install does what detect says ----------------------------------------------------------------


def detected(monkeypatch: pytest.MonkeyPatch, target: Target, now: str) -> Engine:
    monkeypatch.setattr(upkeep, "key_now", lambda *_: now)
    found = upkeep.engine_of(LiveSystem(), replace(PC, target=target), MADE)
    assert found
    return found


def installed(monkeypatch: pytest.MonkeyPatch, target: Target, now: str) -> tuple[bool, list[Event]]:
    """Whether it ended with nothing to do, and what it told. A build ends it with BuildFailedError."""

    def build(*_: Any, **__: Any) -> Any:
        raise BuildFailedError("it compiles")

    monkeypatch.setattr(flow, "plan_all", lambda *_, **__: (PC, (MADE,)))
    monkeypatch.setattr(flow, "probe_target", lambda *_: target)
    monkeypatch.setattr(flow, "check_target", lambda _: None)
    monkeypatch.setattr(flow, "key_now", lambda *_: now)
    monkeypatch.setattr(flow, "make_all", build)
    told: list[Event] = []
    door = Door(LiveSystem(), Symbols.of_this_user())
    result = flow.install_engine(door, flow.Wish(request=Request(), python=target.executable), told.append)
    return result.unchanged, told


def test_after_clean_the_same_engine_is_not_compiled_again(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "cache"))
    target = put(site)
    found = detected(monkeypatch, target, KEY)
    assert (found.current, found.kept, found.changes) == (True, False, ())
    screen = detect_screen(replace(PC, target=target, engine=found), MADE, "", (), why=False)
    assert "compile it again" not in str(screen)
    unchanged, told = installed(monkeypatch, target, KEY)
    assert unchanged
    assert "holds this engine, built and proven before" in str(told)


@pytest.mark.parametrize("now", [OTHER, ""])
def test_another_engine_is_compiled(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: str
) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "cache"))
    target = put(site)
    assert detected(monkeypatch, target, now).current is (False if now else None)
    with pytest.raises(BuildFailedError):
        installed(monkeypatch, target, now)


def test_a_damaged_engine_is_compiled_and_detect_says_why(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "cache"))
    target = put(site)
    (site / LIBRARY).write_bytes(b"damaged")
    found = detected(monkeypatch, target, KEY)
    assert (found.current, found.changes) == (False, ("files of it that are missing or damaged",))
    with pytest.raises(BuildFailedError):
        installed(monkeypatch, target, KEY)


def test_an_engine_that_short_memory_made_smaller_is_not_taken_for_the_planned_one(
    site: Path, tmp_path: Path
) -> None:
    """There may be more memory the next time."""
    wheel = replace(small_wheel(tmp_path), key=KEY)
    kept = keep(tmp_path, wheel, Proof(device="CPU", lines=(), report={}), whole=False)
    assert find_cached(tmp_path, KEY) is None
    put(site)
    url = {"archive_info": {}, "url": f"file://{kept.path}"}
    (site / INFO / "direct_url.json").write_text(json.dumps(url))
    assert installed_key(site / INFO) == ""


# ---- editable -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_an_editable_engine_that_is_unchanged_has_nothing_to_do(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(cache))
    target, wheel = edit(site, tmp_path / "native", cache)
    assert not (site / "floatllm" / "engine.py").exists()
    assert holds(target, wheel)
    if not kept:
        shutil.rmtree(cache / "wheels")
    found = detected(monkeypatch, target, KEY)
    assert (found.current, found.kept, found.changes) == (True, kept, ())
    if not kept:
        assert installed(monkeypatch, target, KEY)[0]
    with (tmp_path / "native" / "floatllm" / "engine.py").open("a") as module:
        module.write("# edited\n")
    assert not (kept and holds(target, wheel))
    found = detected(monkeypatch, target, KEY)
    assert found.current is False
    assert found.changes[0] == "the engine's sources"
    assert "live" in found.changes[1]


def test_what_an_editable_engine_gives_way_to_is_told(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = tmp_path / "native"
    target, wheel = edit(site, native, tmp_path / "cache")
    monkeypatch.setattr(flow, "install", lambda *_: None)
    monkeypatch.setattr(flow, "probe_target", lambda *_: target)
    told: list[Event] = []
    flow._install(LiveSystem(), target, wheel, tmp_path, told.append)
    said = next(event.text for event in told if isinstance(event, Hint))
    assert str(native) in said
    assert f"pip install -e {native}" in said
