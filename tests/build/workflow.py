"""What .github/workflows/wheels.yml says, with the words of a row of the matrix filled in; and those rows."""

from __future__ import annotations

import os
import re
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plans import PRESETS
from tool_environment import ROOT, Environment, skip_or_fail

from floatllm_build.matrix import WheelRow, make_matrix
from floatllm_build.presets import load_platforms

FOLDER = ROOT / ".github" / "workflows"
PLATFORMS = load_platforms(ROOT)
ROWS = make_matrix(PRESETS, PLATFORMS)
BY_ID = {row.id: row for row in ROWS}
_WORD = re.compile(r"\$\{\{ *matrix\.(\w+) *\}\}")


@dataclass(frozen=True)
class Step:
    job: str
    name: str
    run: str
    uses: str
    shell: str
    env: Mapping[str, str]
    condition: str

    def env_for(self, row: WheelRow) -> dict[str, str]:
        """Its variables in the job of this row."""
        return {name: _filled(value, row) for name, value in self.env.items()}

    def runs_for(self, row: WheelRow) -> bool:
        """Whether its `if` holds for the row; only comparisons of the row's own words are understood."""
        return all(_holds(part, row) for part in self.condition.split("&&")) if self.condition else True


def load(name: str) -> dict[str, Any]:
    """The workflow's content; its `on` is read as YAML's word for true."""
    try:
        import yaml
    except ImportError:
        skip_or_fail("no yaml; `pip install '.[test]'` brings it")
    path = FOLDER / name
    if not path.is_file():
        skip_or_fail(f"no {path}: it is part of a checkout alone")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def steps(name: str) -> Iterator[Step]:
    for job, content in load(name)["jobs"].items():
        for step in content.get("steps", ()):
            yield Step(
                job=job,
                name=step.get("name") or step.get("id") or step.get("uses") or step["run"].splitlines()[0],
                run=step.get("run", ""),
                uses=step.get("uses", ""),
                shell=step.get("shell", ""),
                env={key: str(value) for key, value in step.get("env", {}).items()},
                condition=str(step.get("if", "")),
            )


def find(name: str) -> Step:
    """The one step of wheels.yml with this name."""
    (found,) = (step for step in steps("wheels.yml") if step.name == name)
    return found


def commands(text: str, program: str) -> list[list[str]]:
    """The words after `program` wherever a shell script calls it, without their quotes."""
    calls = re.findall(rf"\b{program}((?: [^\s;|&)]+)+)", text.replace("\\\n", " "))
    return [[word.strip("'\"") for word in call.split()] for call in calls]


def inner_script(step: Step) -> str:
    """What a container's shell is given by `sh -ec '...'`."""
    (script,) = re.findall(r"sh -ec '\n(.*?)\n *'\n", step.run, re.DOTALL)
    return textwrap.dedent(script)


def bash(script: str, folder: Path, env: Environment, **variables: str) -> subprocess.CompletedProcess[str]:
    """As GitHub runs a step, with the installed tool on PATH."""
    path = os.pathsep.join((str(env.python.parent), env.env["PATH"]))
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env={**env.env, "PATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def _filled(text: str, row: WheelRow) -> str:
    filled = _WORD.sub(lambda match: str(row.row()[match[1]]), text)
    assert "${{" not in filled, f"{text} holds more than words of the matrix"
    return filled


def _holds(part: str, row: WheelRow) -> bool:
    left, sign, right = part.split()
    values = [_value(word, row) for word in (left, right)]
    return (values[0] == values[1]) is {"==": True, "!=": False}[sign]


def _value(word: str, row: WheelRow) -> str:
    return str(row.row()[word.removeprefix("matrix.")]) if word.startswith("matrix.") else word.strip("'")
