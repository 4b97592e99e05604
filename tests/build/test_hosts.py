"""Recorded hosts replay to the plans that they demand: tests/hosts/, whose README tells the keys."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from machines import GOOD_VULKAN, PC
from typer.testing import CliRunner

from floatllm_build import flow
from floatllm_build.cli import app
from floatllm_build.rules import FITTERS
from floatllm_build.rules.cuda_index import INDEX_KIT
from floatllm_build.rules.fit import Fit, Terms
from floatllm_build.symbols import Symbols
from floatllm_build.system import Completed, LiveSystem, Recorder, Replay
from floatllm_build.values import BACKENDS, Plan, Request, to_json
from floatllm_build.variant_provider import get_all_configs, runs_here

FOLDER = Path(__file__).resolve().parents[1] / "hosts"
HOSTS = sorted(FOLDER.glob("*.json"))
OF_A_PLAN = {"preset", "device", "jobs", "defines"}
OF_A_REQUEST = OF_A_PLAN | {
    *("absent_defines", "architectures", "downloads", "missing"),
    *("problem", "proof", "reasons", "rejected"),
}
OF_A_HOST = OF_A_REQUEST | {"cpu_features", "facts", "notes", "requests"}
# What a test process may have around it, and what a replay must not see.
NOT_THERE = {
    **dict.fromkeys(("HOME", "USERPROFILE", "VIRTUAL_ENV", "CONDA_PREFIX"), "/nowhere/else"),
    **dict.fromkeys(("CC", "CXX", "CUDACXX", "CUDA_PATH", "CMAKE_EXECUTABLE", "NINJA"), "/nowhere/tool"),
    **dict.fromkeys(("ROCM_PATH", "VULKAN_SDK", "ONEAPI_ROOT"), "/nowhere/sdk"),
    "PATH": "/nowhere/bin",
    "PREFIX": "/data/data/com.termux/files/usr",
    "TERMUX_VERSION": "0.1",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "WSL_DISTRO_NAME": "Nowhere",
    "container": "nowhere",
    "CUDA_VISIBLE_DEVICES": "7",
    "HSA_OVERRIDE_GFX_VERSION": "10.3.0",
    "CMAKE_ARGS": "-DNOWHERE=ON",
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
}

every_host = pytest.mark.parametrize("path", HOSTS, ids=[path.stem for path in HOSTS])


@cache
def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def expected(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = content(path).get("expected", {})
    return found


def request_of(path: Path, fields: Mapping[str, Any]) -> Request:
    """As the command line makes it: CMAKE_ARGS is the machine's."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    told = Replay.load(path).getenv("CMAKE_ARGS") or ""
    return Request(**{"cmake_args": tuple(shlex.split(told)), **given})


def detected(path: Path, fields: Mapping[str, Any] | None = None) -> flow.Detected:
    return flow.detect(Replay.load(path), request_of(path, fields or {}))


# ---- the folder ---------------------------------------------------------------------------------


def test_there_are_as_many_hosts_as_the_rules_need() -> None:
    assert len(HOSTS) >= 20
    assert [path.name for path in HOSTS if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.json", path.name)] == []


@every_host
def test_a_host_says_where_it_comes_from_and_what_it_demands(path: Path) -> None:
    about = content(path).get("about", "")
    assert about.startswith(("RECORDED ", "COMPOSED "))
    assert len(about) > 40
    demands = expected(path)
    assert set(demands) <= OF_A_HOST
    assert "problem" in demands or set(demands) >= OF_A_PLAN
    for other in demands.get("requests", ()):
        assert set(other) <= OF_A_REQUEST | {"request"}
        assert other.get("request")
        assert {"problem", "preset"} & set(other)


@every_host
def test_a_host_tells_nothing_about_its_owner(path: Path) -> None:
    answers = {kind: found for kind, found in content(path).items() if kind != "expected"}
    # What has been hidden already is no secret; only its brackets would be hidden once more.
    text = json.dumps(answers, indent=1, sort_keys=True).replace("{", "<").replace("}", ">")
    assert Symbols().hide(text) == text


# ---- the plan -----------------------------------------------------------------------------------


@every_host
def test_a_host_has_the_plan_that_it_demands(path: Path) -> None:
    check(detected(path), expected(path))


@pytest.mark.parametrize(
    ("path", "demand"),
    [
        pytest.param(path, demand, id=f"{path.stem}: {json.dumps(demand.get('request'))}")
        for path in HOSTS
        for demand in expected(path).get("requests", ())
    ],
)
def test_a_host_has_the_plan_for_another_request(path: Path, demand: dict[str, Any]) -> None:
    demands = {key: value for key, value in demand.items() if key != "request"}
    check(detected(path, demand.get("request")), demands)


def check(found: flow.Detected, demands: Mapping[str, Any]) -> None:
    if "problem" in demands:
        assert found.plan is None
        parts = demands["problem"]
        for part in [parts] if isinstance(parts, str) else parts:
            assert part in found.problem
    else:
        assert found.problem == ""
        assert found.plan is not None
    for key, value in demands.items():
        CHECKS[key](found, value)


def _plan(found: flow.Detected) -> Plan:
    assert found.plan is not None, found.problem
    return found.plan


def _check_rejected(found: flow.Detected, demanded: Mapping[str, list[str]]) -> None:
    rejections = {one.backend: one for one in _plan(found).rejections}
    for backend, parts in demanded.items():
        assert backend in rejections
        assert rejections[backend].fix
        for part in parts:
            assert part in f"{rejections[backend].reason}. To get it: {rejections[backend].fix}"


def _check_missing(found: flow.Detected, demanded: list[list[str]]) -> None:
    assert len(found.lacks) == len(demanded), found.lacks
    for lack, (what, fix) in zip(found.lacks, demanded, strict=True):
        assert _names(lack.what, what), f"{lack.what} is not called {what!r}"
        assert fix in lack.fix


def _names(lack: str, what: str) -> bool:
    """Its whole name, or at least the first two words of it: less than that would fit anything."""
    words = what.split(" ")
    return lack == what or (len(words) > 1 and all(words) and lack.split(" ")[: len(words)] == words)


@pytest.mark.parametrize(
    ("what", "fits"),
    [
        ("an environment to install into", True),
        ("an environment", True),
        ("", False),
        ("a", False),
        ("an", False),
        ("an ", False),
        ("an env", False),
        ("environment to", False),
    ],
)
def test_a_lack_is_demanded_by_whole_words_of_its_name(what: str, fits: bool) -> None:
    assert _names("an environment to install into", what) == fits
    assert _names("cmake", "cmake")


def _check_absent(found: flow.Detected, demanded: list[str]) -> None:
    assert [define for define in _plan(found).defines if define.startswith(tuple(demanded))] == []


def _check_facts(found: flow.Detected, demanded: Mapping[str, Any]) -> None:
    host = to_json(found.host)
    assert {fact: at(host, fact) for fact in demanded} == dict(demanded)


def at(value: Any, fact: str) -> Any:
    """What stands at `cuda.devices.0.mig`, as JSON."""
    for name in fact.split("."):
        value = value[int(name) if isinstance(value, (list, tuple)) else name]
    return list(value) if isinstance(value, tuple) else value


def _check_notes(found: flow.Detected, demanded: list[list[str]]) -> None:
    """Each demanded note is there, and there is no other."""
    notes = [(note.source, note.said) for note in found.host.notes]
    for source, said in demanded:
        match = next((note for note in notes if source in note[0] and said in note[1]), None)
        assert match, f"no note on {source}: {said}; left are {notes}"
        notes.remove(match)
    assert notes == []


CHECKS: Mapping[str, Callable[[flow.Detected, Any], None]] = {
    "preset": lambda found, value: _equal(_plan(found).preset, value),
    "device": lambda found, value: _equal(_plan(found).device, value),
    "jobs": lambda found, value: _equal(_plan(found).jobs, value),
    "defines": lambda found, value: _equal(sorted(_plan(found).defines), sorted(value)),
    "architectures": lambda found, value: _equal(list(_plan(found).architectures), value),
    "downloads": lambda found, value: _equal([one.what for one in _plan(found).downloads], value),
    "proof": lambda found, value: _equal(_plan(found).proof, value),
    "reasons": lambda found, value: _equal(set(value) - {one.rule for one in _plan(found).reasons}, set()),
    "cpu_features": lambda found, value: _equal(set(value) - set(found.host.cpu.features), set()),
    "absent_defines": _check_absent,
    "rejected": _check_rejected,
    "missing": _check_missing,
    "facts": _check_facts,
    "notes": _check_notes,
    "problem": lambda found, value: None,
    "requests": lambda found, value: None,
}


def _equal(found: object, demanded: object) -> None:
    assert found == demanded


def test_every_key_is_checked() -> None:
    assert set(CHECKS) == OF_A_HOST


# ---- variants ------------------------------------------------------------------------------------


@every_host
def test_the_variants_that_fit_are_what_the_plan_would_take(path: Path) -> None:
    """If the plan had all that it takes to compile them, as whoever made them had."""
    host = detected(path).host
    ready = dataclasses.replace(
        host,
        toolchain=PC.toolchain,
        cuda=dataclasses.replace(host.cuda, toolkits=(INDEX_KIT,)),
        vulkan=dataclasses.replace(GOOD_VULKAN, devices=host.vulkan.devices, closed=host.vulkan.closed),
    )
    for backend in BACKENDS:
        if backend in get_all_configs()[0].values:
            fits = isinstance(FITTERS[backend](ready, Terms()), Fit)
            assert runs_here(host, backend) is fits, backend


# ---- the replay ---------------------------------------------------------------------------------


def use_no_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Another home, path and folder; and whoever asks this machine fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a replay asks the machine that it runs on")

    for name in os.environ:
        # The tool's own variables are requests, and would change the plan as they should.
        if name.startswith("FLOATLLM_"):
            monkeypatch.delenv(name)
    for name, value in NOT_THERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for name in ("read", "run", "ask", "getenv", "which", "glob", "native"):
        monkeypatch.setattr(LiveSystem, name, refuse)


@every_host
def test_a_replay_says_the_same_wherever_it_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = detected(path)
    assert detected(path) == here
    use_no_machine(monkeypatch, tmp_path)
    assert detected(path) == here
    # What is saved from a replay is as good as the record.
    recorder = Recorder(Replay.load(path))
    recorder.getenv("CMAKE_ARGS")
    assert flow.detect(recorder, request_of(path, {})) == here
    again = tmp_path / "again.json"
    again.write_text(recorder.text(), encoding="utf-8")
    assert detected(again) == here


@every_host
def test_the_command_prints_the_plan_of_a_record_and_its_notes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = detected(path)
    use_no_machine(monkeypatch, tmp_path)
    result = CliRunner().invoke(app, ["detect", "--json", "--from", str(path)])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["plan"] == as_json(here.plan)
    assert printed["notes"] == [vars(note) for note in here.host.notes]
    assert printed["missing"] == [vars(lack) for lack in here.lacks]
    assert printed["problem"] == (here.problem or None)


def as_json(plan: Plan | None) -> Any:
    return json.loads(json.dumps(to_json(plan))) if plan else None


def test_two_processes_print_the_same_bytes(tmp_path: Path) -> None:
    path = FOLDER / "termux-a53-3gb.json"
    argv = [sys.executable, "-m", "floatllm_build", "plan", "--json", "--from", str(path)]
    small = {
        "PYTHONPATH": str(Path(flow.__file__).resolve().parents[2]),
        "SYSTEMROOT": os.environ.get("SYSTEMROOT", ""),
    }
    bare = {**small, "HOME": str(tmp_path), "PATH": "", "PYTHONHASHSEED": "1"}
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FLOATLLM_")}
    full = {**ours, **small, **NOT_THERE, "PYTHONHASHSEED": "2"}
    printed = [
        subprocess.run(argv, env=env, cwd=tmp_path, check=True, capture_output=True, timeout=60).stdout
        for env in (bare, full)
    ]
    assert printed[0] == printed[1]
    assert json.loads(printed[0])["preset"] == "android-low-mem"


# ---- what was refused -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Refusals(Replay):
    """Keeps who was asked and did not answer; a file that is not there is an answer."""

    told: list[str] = dataclasses.field(default_factory=list)

    def read(self, path: str, only: str = "") -> str:
        try:
            return super().read(path, only)
        except OSError as error:
            if error.errno != errno.ENOENT:
                self.told.append(path)
            raise

    def _completed(self, kind: str, key: str) -> Completed:
        done = super()._completed(kind, key)
        if done.rc < 0 or done.rc in {124, 127}:
            name = shlex.split(key)[-1 if kind == "asked" else 0]
            self.told.append(re.split(r"[/\\]", name)[-1])
        elif kind == "asked" and '"error"' in done.out:
            self.told.append(key.partition(" ")[2])
        return done


@every_host
def test_no_refusal_is_lost(path: Path) -> None:
    system = Refusals(content(path))
    notes = flow.detect(system, Request()).host.notes
    text = [f"{note.source}: {note.said}" for note in notes]
    assert [asked for asked in system.told if not any(asked in line for line in text)] == []


@every_host
def test_a_record_answers_every_program_that_is_asked(path: Path) -> None:
    notes = detected(path).host.notes
    assert [note for note in notes if "not in the record" in note.said] == []
