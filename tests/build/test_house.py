"""The plan of the house: which module may import which, and that every error has an exit code of its own."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from tool_environment import ROOT

from floatllm_build import errors
from floatllm_build.errors import FloatllmBuildError
from floatllm_build.streams import READER_LEFT

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
# Whose `which` goes through the door; platform.system() only tells a name, and arguments.system is an option.
HARMLESS = {"system", "self", "inner", "platform", "arguments"}
# The engine's package cannot use the tool's door. One file of it starts a child, as `careless` wants it.
NATIVE = ROOT / "native"
RENDERS_TEMPLATES = NATIVE / "floatllm" / "chat.py"


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
    doors = {HOUSE / "start.py", RENDERS_TEMPLATES}
    ours = [path for path in HOUSE.rglob("*.py") if "data" not in path.relative_to(HOUSE).parts]
    files = {*ours, *NATIVE.rglob("*.py")}
    assert files > {*doors, NATIVE / "_backend.py", NATIVE / "floatllm" / "cli.py"}
    places = {
        f"{path}:{line}" for path in files - doors for line in past_the_door(path.read_text(encoding="utf-8"))
    }
    assert places == set()
    for door in doors:
        assert past_the_door(door.read_text(encoding="utf-8")), f"{door} starts children"


def careless(text: str) -> list[int]:
    """Lines that start a child otherwise than by subprocess.run, with a folder, and as an isolated Python."""
    tree = ast.parse(text)
    started: list[ast.Call] = []
    found: list[int] = []
    lists = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.run":
            started.append(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "subprocess":
            found += [node.lineno] if node.attr not in {"run", "PIPE", "DEVNULL", "TimeoutExpired"} else []
    for call in started:
        given = {word.arg: word.value for word in call.keywords}
        command = call.args[0] if call.args else ast.Constant(None)
        command = lists.get(command.id, command) if isinstance(command, ast.Name) else command
        isolated = ast.unparse(command).startswith("[sys.executable, '-I', ")
        if not isolated or "shell" in given or isinstance(given.get("cwd", ast.Constant(None)), ast.Constant):
            found.append(call.lineno)
    # By another name it would not be seen here.
    others = [line for line in past_the_door(text) if text.splitlines()[line - 1] != "import subprocess"]
    return found + others


def test_the_child_that_renders_templates_has_a_folder_and_is_isolated() -> None:
    text = RENDERS_TEMPLATES.read_text(encoding="utf-8")
    assert careless(text) == []
    assert careless(text.replace("cwd=here.parent,", ""))
    assert careless(text.replace('"-I", ', ""))


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess; subprocess.run([sys.executable, '-I', x])",
        "import subprocess; subprocess.run([sys.executable, '-I', x], cwd=None)",
        "import subprocess; subprocess.run([sys.executable, x], cwd=here)",
        "import subprocess; subprocess.run(['cc', '-I', x], cwd=here)",
        "import subprocess; subprocess.run(command, cwd=here)",
        "import subprocess; subprocess.run([sys.executable, '-I', x], cwd=here, shell=True)",
        "import subprocess; subprocess.Popen([sys.executable, '-I', x], cwd=here)",
        "import subprocess as s; s.run([sys.executable, '-I', x], cwd=here)",
        "from subprocess import run",
    ],
)
def test_a_careless_child_is_found(line: str) -> None:
    assert careless(line.replace("; ", "\n"))
    assert careless("import subprocess\nsubprocess.run([sys.executable, '-I', x], cwd=here)") == []


def borrowed(text: str) -> set[str]:
    """Test modules that the text imports: at its top, in a function, or in the code of a child."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set(re.findall(r"^\s*(?:from|import) +([\w.]+)", node.value, re.MULTILINE))
    return {part for name in names for part in name.split(".") if part.startswith("test_")}


def test_no_test_module_is_imported_by_another() -> None:
    """What several share lives in a module that is no test."""
    name = "test_select"
    for way in ("import {} as t", "from {} import PRESETS", "from build import {}", "from . import {}"):
        line = way.format(name)
        assert borrowed(line) == borrowed(f"def f():\n    {line}") == {name}, line
    assert borrowed(repr(f"import sys\nimport {name}")) == {name}
    assert borrowed("from machines import PC\nimport testing") == set()
    files = [*(ROOT / "tests").rglob("*.py")]
    assert Path(__file__).resolve() in files
    found = {path.name: borrowed(path.read_text(encoding="utf-8")) for path in files}
    assert {file: names for file, names in found.items() if names} == {}


# Files that are longer than a room may be, and how long they may be at most: they only shrink.
MOST_LINES = 400
LONGER: dict[str, int] = {}


def test_no_file_grows_beyond_what_one_reads_at_once() -> None:
    sizes = {
        path.relative_to(HOUSE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in HOUSE.rglob("*.py")
        if "data" not in path.relative_to(HOUSE).parts
    }
    too_long = {name: size for name, size in sizes.items() if size > LONGER.get(name, MOST_LINES)}
    assert too_long == {}
    assert [name for name in LONGER if sizes[name] <= MOST_LINES] == [], "these need no exception any more"


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


def test_every_exit_code_is_in_the_page_for_failures() -> None:
    rows = (ROOT / "docs" / "help.md").read_text(encoding="utf-8").splitlines()
    told = {int(row.split("|")[1]) for row in rows if row.startswith("| ") and row.split()[1].isdigit()}
    assert told == {
        0,
        errors.FAULT,
        *(kind.exit_code for kind in kinds(FloatllmBuildError)),
        7,
        8,
        130,
        READER_LEFT,
    }


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
