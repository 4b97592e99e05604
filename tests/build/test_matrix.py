"""The wheels that CI makes: one table in the presets, and nothing beside it that says otherwise."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.resources
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import workflow
from machines import GOOD_VULKAN, pc
from plans import PRESETS
from tool_environment import ROOT, Environment, skip_or_fail
from workflow import BY_ID, PLATFORMS, ROWS, bash

from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.matrix import BASE, WheelRow, choose, excluded, make_matrix, plugins
from floatllm_build.presets import Preset, load_platforms
from floatllm_build.select import make_plan
from floatllm_build.tables.packages import MANAGERS, Need
from floatllm_build.values import Request

ENGINES = [row for row in ROWS if row.id == row.base]
LINUX = [row for row in ROWS if "linux" in row.platform]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def cibuildwheel(*words: str, **variables: str) -> str:
    """What it answers, of the version that makes the wheels."""
    if sys.version_info < (3, 11):
        pytest.skip("cibuildwheel needs Python 3.11")
    try:
        importlib.metadata.version("cibuildwheel")
    except importlib.metadata.PackageNotFoundError:
        skip_or_fail("no cibuildwheel; `pip install '.[test]'` brings it")
    env = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    done = subprocess.run(
        [sys.executable, *words],
        env={**env, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, one in PRESETS.items() if one.portable])
def test_each_portable_preset_has_wheels_or_a_reason_for_having_none(name: str) -> None:
    made = any(row.preset == name for row in ROWS)
    assert made is (name not in excluded(PRESETS))


def test_no_other_preset_has_wheels() -> None:
    assert {row.preset for row in ROWS} <= {name for name, one in PRESETS.items() if one.portable}
    assert all(one.wheels == {} for name, one in PRESETS.items() if not one.portable)


def test_every_platform_has_one_engine_for_its_plugins() -> None:
    assert sorted(row.platform for row in ENGINES) == sorted(PLATFORMS)
    for row in ROWS:
        base = BY_ID[row.base]
        assert (base.distribution, base.platform, base.base) == (BASE, row.platform, base.id)
        assert (row.distribution == BASE) is (row is base)


def test_what_users_ask_for_is_there() -> None:
    assert {row.platform for row in ENGINES} == {
        *("manylinux-x86_64", "manylinux-aarch64", "musllinux-x86_64", "musllinux-aarch64"),
        *("macos-arm64", "macos-x86_64", "windows-x64", "windows-arm64", "android-arm64"),
    }
    assert {row.backend for row in ROWS} == {"cpu", "cuda", "vulkan", "metal"}
    assert plugins(ROWS) == {"cuda": "floatllm-cuda13", "vulkan": "floatllm-vulkan"}


def test_ids_are_short_and_each_is_used_once() -> None:
    assert len(BY_ID) == len(ROWS)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,30}", name) for name in BY_ID)


@each_row
def test_a_row_does_not_contradict_itself(row: WheelRow) -> None:
    variables = dict(pair.split("=", 1) for pair in row.environment.split(" "))
    assert variables["FLOATLLM_PRESET"] == row.preset
    assert bool(row.image) is (row in LINUX)
    if row.image:
        name, digest = row.image.split("@")
        assert name.rpartition("/")[2] == row.tag
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    if row.platform.startswith("macos"):
        version, arch = (
            variables["MACOSX_DEPLOYMENT_TARGET"].replace(".", "_"),
            row.platform.partition("-")[2],
        )
        assert row.tag == f"macosx_{version}_{arch}"
    if row.platform.startswith("android"):
        level = PRESETS[row.preset].variables["ANDROID_PLATFORM"].removeprefix("android-")
        assert row.tag == f"android_{level}_arm64_v8a"
        assert variables["ANDROID_API_LEVEL"] == level
        assert (row.proof, row.experimental) == ("none", True)


@pytest.mark.parametrize("row", LINUX, ids=lambda row: row.id)
def test_it_can_be_built_where_there_is_no_gpu(row: WheelRow) -> None:
    variables = dict(pair.split("=", 1) for pair in row.environment.split(" "))
    request = Request(preset=variables["FLOATLLM_PRESET"], portable=variables.get("FLOATLLM_PORTABLE") == "1")
    runner = pc(vulkan=replace(GOOD_VULKAN, devices=()))
    assert make_plan(runner, request, PRESETS).preset == row.preset


@pytest.mark.parametrize("row", [row for row in ROWS if row.prepare], ids=lambda row: row.id)
def test_what_an_image_lacks_is_what_the_tool_would_ask_for(row: WheelRow) -> None:
    manager = row.prepare.split()[0]
    needs: tuple[Need, ...] = ("glslc", "vulkan-headers", "spirv-headers")
    wanted = {name for need in needs for name in MANAGERS[manager].names[need].split()}
    assert wanted <= set(row.prepare.split())


def test_vulkan_is_prepared_for_wherever_it_is_built() -> None:
    assert all(row.prepare for row in ROWS if row.backend == "vulkan")


def test_an_unknown_id_is_answered_with_the_one_that_was_meant() -> None:
    assert choose(ROWS, ()) == ROWS
    assert [row.id for row in choose(ROWS, ("metal-macos-arm64",))] == ["metal-macos-arm64"]
    with pytest.raises(UsageFaultError, match="Did you mean `metal-macos-arm64`"):
        choose(ROWS, ("metal-macos-arm",))


def with_wheels(name: str, **wheels: Any) -> dict[str, Preset]:
    return {**PRESETS, name: replace(PRESETS[name], wheels={**PRESETS[name].wheels, **wheels})}


@pytest.mark.parametrize(
    ("presets", "said"),
    [
        (with_wheels("wheel-cpu", platforms={"amiga": "untried"}), "amiga"),
        (with_wheels("wheel-vulkan", platforms={"amiga": "untried"}), "amiga"),
        (with_wheels("wheel-metal", platforms={}) | with_wheels("wheel-cpu", platforms={}), "cuda13"),
        (with_wheels("wheel-cpu", prepare=3), "int"),
    ],
    ids=["no such platform", "nor for a plugin", "a plugin of nothing", "damaged"],
)
def test_a_table_that_contradicts_itself_is_refused(presets: dict[str, Preset], said: str) -> None:
    with pytest.raises(MissingError, match=said):
        make_matrix(presets, PLATFORMS)


@pytest.mark.parametrize("text", ["{}", '{"vendor": {"floatllm/wheels": []}}', "[", "3"])
def test_damaged_platforms_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "base.json").write_text(text)
    with pytest.raises(MissingError, match="install it again"):
        load_platforms(tmp_path)


def tool(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "floatllm_build", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_command_prints_the_table_for_people_and_for_the_workflow() -> None:
    lines = tool("matrix").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(BY_ID)
    assert all(row.tag in line and row.state in line for row, line in zip(ROWS, lines, strict=True))
    printed = json.loads(tool("matrix", "--json").stdout)
    assert printed == {"schema_version": 1, "include": [row.row() for row in ROWS]}
    some = tool("matrix", "--json", FLOATLLM_ONLY="cpu-android-arm64, cpu-windows-x64").stdout
    assert [row["id"] for row in json.loads(some)["include"]] == ["cpu-windows-x64", "cpu-android-arm64"]
    wrong = tool("matrix", "--only", "cpu-windows-x46")
    assert wrong.returncode == 2
    assert "Did you mean `cpu-windows-x64`?" in wrong.stderr


# ---- cibuildwheel ------------------------------------------------------------------------------


def test_its_version_is_the_one_that_makes_the_wheels() -> None:
    cibuildwheel("-c", "")
    (wanted,) = re.findall(r'"cibuildwheel==([\d.]+);', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert importlib.metadata.version("cibuildwheel") == wanted


@pytest.mark.slow
@pytest.mark.parametrize("system", ["linux", "macos", "windows", "android"])
def test_it_knows_the_identifiers(system: str) -> None:
    known = cibuildwheel(
        *(
            "-m",
            "cibuildwheel",
            "--platform",
            system,
            "--archs",
            "all",
            "--print-build-identifiers",
            "native",
        ),
        CIBW_BUILD="*",
    ).split()
    names = {"linux": ("manylinux", "musllinux")}.get(system, (system,))
    wanted = {row.identifier for row in ROWS if row.platform.startswith(names)}
    assert wanted
    assert wanted <= set(known)


@pytest.mark.parametrize("row", LINUX, ids=lambda row: row.id)
def test_the_images_are_those_that_it_pins(row: WheelRow) -> None:
    cibuildwheel("-c", "")
    pinned = configparser.ConfigParser(inline_comment_prefixes="#")
    resources = importlib.resources.files("cibuildwheel") / "resources"
    pinned.read_string((resources / "pinned_docker_images.cfg").read_text(encoding="utf-8"))
    assert (
        row.image
        == pinned[row.platform.partition("-")[2]][row.tag.removesuffix(f"_{row.platform.partition('-')[2]}")]
    )


_OPTIONS = """
import sys
from pathlib import Path
from cibuildwheel.__main__ import build_in_directory
import json, os
from cibuildwheel.options import CommandLineArguments, compute_options
args = CommandLineArguments.defaults()
args.only, args.package_dir = sys.argv[2], Path(sys.argv[3])
options = compute_options(sys.argv[1], args, os.environ)
built = options.build_options(sys.argv[2])
print(json.dumps({
    "identifiers": [args.only] if options.globals.build_selector(args.only) else [],
    "repair": built.repair_command,
    "images": {"manylinux": built.manylinux_images, "musllinux": built.musllinux_images},
    "environment": built.environment.as_dictionary({}),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("row", ENGINES, ids=lambda row: row.id)
def test_the_workflow_has_it_build_what_the_row_says(row: WheelRow) -> None:
    step = workflow.find("Engine")
    assert step.runs_for(row)
    env = step.env_for(row)
    (words,) = workflow.commands(step.run, "python -m cibuildwheel")
    assert words[:2] == ["--only", "$IDENTIFIER"]
    assert words[-1] == "native"
    identifier = env.pop("IDENTIFIER")
    asked = ("-m", "cibuildwheel", "--only", identifier, "--print-build-identifiers", words[-1])
    assert cibuildwheel(*asked, **env).split() == [row.identifier]
    family = row.platform.partition("-")[0]
    system = "linux" if row in LINUX else family
    found = json.loads(cibuildwheel("-c", _OPTIONS, system, identifier, words[-1], **env))
    assert found["identifiers"] == [row.identifier]
    # The build backend has done it, and a second time would change the names.
    assert found["repair"] == ""
    assert found["environment"]["FLOATLLM_PRESET"] == row.preset
    if row.image:
        # Its own are the same today; those of the row count.
        other = f"{row.image[:-4]}beef"
        env = step.env_for(replace(row, image=other))
        found = json.loads(cibuildwheel("-c", _OPTIONS, system, identifier, words[-1], **env))
        assert found["images"][family][row.platform.partition("-")[2]] == other


# ---- the workflow ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ci.yml", "wheels.yml"])
def test_every_action_is_pinned_to_a_commit_and_says_which_version_that_is(name: str) -> None:
    used = [step.uses for step in workflow.steps(name) if step.uses]
    assert used
    assert [uses for uses in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", uses)] == []
    lines = (workflow.FOLDER / name).read_text(encoding="utf-8").splitlines()
    assert all(re.search(r"# v\d+\.\d+\.\d+$", line) for line in lines if "uses:" in line)


def test_an_action_has_one_pin_in_all_workflows() -> None:
    pins: dict[str, set[str]] = {}
    for name in ("ci.yml", "wheels.yml"):
        for step in workflow.steps(name):
            action, _, commit = step.uses.partition("@")
            pins.setdefault(action, set()).add(commit)
    assert {action: commits for action, commits in pins.items() if len(commits) > 1} == {}


def test_only_what_attests_and_publishes_may_ask_for_a_token() -> None:
    content = workflow.load("wheels.yml")
    assert content["permissions"] == {}
    may = {name for name, job in content["jobs"].items() if "id-token" in job["permissions"]}
    assert may == {"attest", "publish"}
    assert content["jobs"]["publish"]["environment"]
    for name in may:
        assert content["jobs"][name]["if"] == "github.event_name == 'push' && github.ref_type == 'tag'"
        # A wheel reaches them by its proof alone.
        assert {"sources", "prove"} <= set(content["jobs"][name]["needs"])


def test_the_two_jobs_of_the_matrix_read_the_same_rows() -> None:
    jobs = workflow.load("wheels.yml")["jobs"]
    for name in ("build", "prove"):
        assert (
            jobs[name]["strategy"]["matrix"]["include"]
            == "${{ fromJSON(needs.matrix.outputs.matrix).include }}"
        )
    text = (workflow.FOLDER / "wheels.yml").read_text(encoding="utf-8")
    words = set(re.findall(r"[ {]matrix\.(\w+)", text))
    assert words <= set(ROWS[0].row()), "the workflow reads what no row says"


@each_row
def test_each_row_is_built_by_one_step_and_proven_unless_it_says_none(row: WheelRow) -> None:
    built = [
        step.name
        for step in workflow.steps("wheels.yml")
        if step.job == "build" and step.name in {"Engine", "Plugin"} and step.runs_for(row)
    ]
    assert built == ["Engine" if row.distribution == BASE else "Plugin"]
    assert workflow.find("Proof").runs_for(row) is (row.proof != "none")
    if row.distribution != BASE:
        # That step needs a container.
        assert row.image


@pytest.mark.slow
def test_every_call_of_the_tool_is_one_that_it_understands() -> None:
    calls = [
        call
        for step in workflow.steps("wheels.yml")
        for call in workflow.commands(step.run, "floatllm-build")
    ]
    assert ["matrix", "--json"] in calls
    assert ["wheel", "--out", "made"] in calls
    for call in calls:
        helped = tool(*(word for word in call[:1] if not word.startswith("-")), "--help", COLUMNS="200")
        assert helped.returncode == 0, helped.stderr
        for option in (word for word in call if word.startswith("--")):
            assert option in helped.stdout


@pytest.mark.parametrize("event", ["push", "pull_request"])
def test_the_step_that_makes_the_matrix_hands_it_on(
    tool_env: Environment, tmp_path: Path, event: str
) -> None:
    step = workflow.find("matrix")
    (cheap,) = re.findall(r"== 'pull_request' && '([^']*)' \|\| ''", step.env["FLOATLLM_ONLY"])
    only = cheap if event == "pull_request" else ""
    output = tmp_path / "output"
    done = bash(step.run, tmp_path, tool_env, FLOATLLM_ONLY=only, GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    # By GitHub's rule for values of several lines.
    first, *lines, last = output.read_text().splitlines()
    assert (first, last) == ("matrix<<END", "END")
    assert "END" not in lines
    rows = json.loads("\n".join(lines))["include"]
    assert [row["id"] for row in rows] == (cheap.split(",") if only else list(BY_ID))
    assert {row["base"] for row in rows} <= {row["id"] for row in rows}


def test_a_tag_that_is_not_the_version_stops_the_release(tool_env: Environment, tmp_path: Path) -> None:
    version = tool_env.tool("--version").stdout.split()[1]
    script = workflow.find("The tag is the version").run
    assert bash(script, tmp_path, tool_env, GITHUB_REF_NAME=f"v{version}").returncode == 0
    assert bash(script, tmp_path, tool_env, GITHUB_REF_NAME=f"v{version}9").returncode == 1


def test_shell_scripts_of_the_workflow_are_whole(tmp_path: Path) -> None:
    for step in workflow.steps("wheels.yml"):
        done = subprocess.run(["bash", "-n"], input=step.run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step.name}: {done.stderr}"
    script = workflow.inner_script(workflow.find("Plugin"))
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
