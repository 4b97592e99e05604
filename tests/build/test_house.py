"""The plan of the house: which module may import which, and that every error has an exit code of its own."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from floatllm_build import errors
from floatllm_build.errors import FloatllmBuildError

HOUSE = Path(errors.__file__).resolve().parent
STEPS = {
    *("host", "select", "preflight", "tools", "ggml_source", "cuda_toolkit"),
    *("build", "wheel", "repair", "variants", "verify", "cuda_runtime", "install", "editable", "sdist"),
    *("report", "standing", "uninstall"),
}
TOP = {"__main__", "cli", "flow", "render"}
# Rooms of the ground floor know nobody, but for the errors that they raise.
GROUND = {"errors", "values", "events", "tables", "limits"}


@cache
def rooms() -> dict[str, set[str]]:
    """Room (a module, or a whole package) -> rooms that it imports, wherever in the file it does."""
    found: dict[str, set[str]] = {}
    for path in HOUSE.rglob("*.py"):
        inside = path.relative_to(HOUSE)
        if inside.parts[0] != "data":
            room = inside.parts[0].removesuffix(".py")
            found.setdefault(room, set()).update(imports(path))
    return {room: used - {room} for room, used in found.items()}


def imports(path: Path) -> set[str]:
    used: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            used |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            module = node.module or ""
            # `from floatllm_build import flow` names a room, `from floatllm_build import __version__` none.
            used |= {f"{module}.{name.name}" for name in node.names} if module == HOUSE.name else {module}
    inside = {name.split(".")[1] for name in used if name.startswith(f"{HOUSE.name}.")}
    return {name for name in inside if (HOUSE / name).is_dir() or (HOUSE / f"{name}.py").is_file()}


def test_every_room_that_the_plan_names_is_there() -> None:
    assert set(rooms()) >= STEPS | TOP | GROUND


def test_no_step_imports_a_step_and_none_looks_up() -> None:
    assert {step: rooms()[step] & (STEPS | TOP) for step in STEPS} == {step: set() for step in STEPS}


def test_only_the_flow_imports_steps() -> None:
    assert {room for room, used in rooms().items() if used & STEPS} == {"flow"}


def test_only_its_faces_import_the_flow_and_the_command_line_alone_what_knows_a_terminal() -> None:
    assert {room for room, used in rooms().items() if "flow" in used} == {"cli", "variant_provider"}
    assert {room for room, used in rooms().items() if "render" in used} == {"cli"}
    assert {room for room, used in rooms().items() if "cli" in used} == {"__main__"}


def test_the_ground_floor_carries_and_leans_on_nothing() -> None:
    assert {room: rooms()[room] for room in GROUND} == {room: set() for room in GROUND}
    assert rooms()["presets"] <= GROUND


def test_no_circle() -> None:
    left = rooms()
    while left:
        free = {room for room, used in left.items() if not used & set(left)}
        assert free, f"these import each other in a circle: {sorted(left)}"
        left = {room: used for room, used in left.items() if room not in free}


# What starts a child, or looks for a program as Windows does.
STARTERS = {
    *("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe", "fork", "forkpty"),
    *(
        "popen",
        "posix_spawn",
        "posix_spawnp",
        "spawnl",
        "spawnle",
        "spawnlp",
        "spawnlpe",
        "spawnv",
        "spawnve",
    ),
    *("spawnvp", "spawnvpe", "startfile", "system", "spawn", "find_library", "which"),
    *("create_subprocess_exec", "create_subprocess_shell", "check_call", "check_output", "getoutput"),
    *("getstatusoutput", "Popen", "ProcessPoolExecutor"),
}
MODULES = {"subprocess", "_posixsubprocess", "multiprocessing", "pexpect"}
# Whose `which` goes through the door; and platform.system() only tells a name.
HARMLESS = {"system", "self", "inner", "platform"}


def past_the_door(text: str) -> list[int]:
    """Lines that start a child, or could, under whatever name the module or the function is imported."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            bad = any(name.name.partition(".")[0] in MODULES for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module, names = (node.module or "").partition(".")[0], {name.name for name in node.names}
            bad = module in MODULES or (module != HOUSE.name and bool(names & (STARTERS | {"*"})))
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            bad = node.attr in STARTERS and owner not in HARMLESS
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            words = {word.value for word in node.args if isinstance(word, ast.Constant)}
            bad = called in {"getattr", "import_module", "__import__"} and bool(words & (STARTERS | MODULES))
        else:
            bad = False
        if bad:
            found.append(node.lineno)
    return found


def test_no_child_starts_past_the_door() -> None:
    files = [*HOUSE.rglob("*.py"), HOUSE.parent / "native" / "_backend.py"]
    places = {
        f"{path.relative_to(HOUSE.parent)}:{line}"
        for path in files
        if "data" not in path.relative_to(HOUSE.parent).parts and path != HOUSE / "start.py"
        for line in past_the_door(path.read_text(encoding="utf-8"))
    }
    assert places == set()
    assert past_the_door((HOUSE / "start.py").read_text(encoding="utf-8")), "the door itself starts children"


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess",
        "import subprocess as s",
        "from subprocess import run",
        "import os; os.system('cc')",
        "import os as o; o.execv('cc', ['cc'])",
        "from os import posix_spawn as p",
        "import pty; pty.spawn('sh')",
        "import asyncio; asyncio.create_subprocess_exec('cc')",
        "import shutil; shutil.which('cc')",
        "from shutil import which",
        "import multiprocessing.pool",
        "from concurrent.futures import ProcessPoolExecutor",
        "import concurrent.futures; concurrent.futures.ProcessPoolExecutor()",
        "import importlib; importlib.import_module('subprocess')",
        "import os; getattr(os, 'execv')",
        "import ctypes.util; ctypes.util.find_library('cuda')",
    ],
)
def test_a_child_past_the_door_is_found(line: str) -> None:
    assert 1 in past_the_door(line)


def kinds(above: type[FloatllmBuildError]) -> list[type[FloatllmBuildError]]:
    below = above.__subclasses__()
    return below + [deeper for kind in below for deeper in kinds(kind)]


@pytest.mark.parametrize("kind", kinds(FloatllmBuildError))
def test_every_error_has_an_exit_code_that_is_documented(kind: type[FloatllmBuildError]) -> None:
    assert kind.exit_code in {2, 3, 4, 5, 6}


def test_nobody_raises_an_error_without_an_exit_code() -> None:
    assert not hasattr(FloatllmBuildError, "exit_code")
    calls = [
        node.func.id
        for path in HOUSE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert "MissingError" in calls
    assert "FloatllmBuildError" not in calls
