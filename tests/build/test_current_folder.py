"""The tool is started in a folder that somebody else fills: nothing there is run, and nothing is obeyed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_wheels import small_wheel, uv_or_skip
from tool_environment import ROOT, Environment, make_venv

from floatllm_build import start
from floatllm_build.answer import hear
from floatllm_build.host.python import probe_target
from floatllm_build.install import holds, install
from floatllm_build.pip import fetch_with_pip, own_pip
from floatllm_build.process import run_child, run_to_its_end
from floatllm_build.start import clean_environment, empty_folder, which
from floatllm_build.system import LiveSystem
from floatllm_build.verify import seen_devices

# Says who loaded it, and goes on as a module that has nothing.
PAYLOAD = """
import os, sys
with open({marks!r}, "a") as file:
    file.write("{name} loaded by " + " ".join(map(str, getattr(sys, "orig_argv", sys.argv))) + "\\n")
"""
MODULES = (
    *("pip", "floatllm", "floatllm_build", "skbuild", "scikit_build_core", "packaging", "platformdirs"),
    *("sitecustomize", "usercustomize", "collections", "json", "platform", "cmake", "ninja", "jinja2"),
)
PROGRAMS = ("cmake", "ninja", "cc", "c++", "gcc", "nvcc", "nvidia-smi", "uv", "pip", "python3", "git", "sh")


class Hostile:
    """A folder with modules, programs and settings; whatever of it is run leaves a mark outside."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.marks = folder / "hostile", folder / "marks"
        self.folder.mkdir()
        for name in MODULES:
            text = PAYLOAD.format(marks=str(self.marks), name=name)
            (self.folder / name).mkdir()
            for file in ("__init__.py", "__main__.py"):
                (self.folder / name / file).write_text(text)
        (self.folder / "bin").mkdir()
        for name in PROGRAMS:
            for path in (self.folder / name, self.folder / "bin" / name):
                if not path.exists():
                    path.write_text(f"#!/bin/sh\necho {name} run >> {self.marks}\n")
                    path.chmod(0o755)
        elsewhere = self.folder / "elsewhere"
        uv = f'no-index = true\nfind-links = ["{self.folder}"]\n[pip]\ntarget = "{elsewhere}"\n'
        (self.folder / "uv.toml").write_text(uv)
        (self.folder / "pyproject.toml").write_text(f'[tool.uv.pip]\nprefix = "{elsewhere}"\n')
        for name in ("pip.conf", "pip.ini", "setup.cfg"):
            (self.folder / name).write_text(f"[global]\nno-index = true\n[install]\ntarget = {elsewhere}\n")

    def seen(self) -> str:
        return self.marks.read_text() if self.marks.exists() else ""

    def untouched(self) -> bool:
        return not self.seen() and not (self.folder / "elsewhere").exists()


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    made = Hostile(tmp_path)
    monkeypatch.chdir(made.folder)
    return made


def test_the_folder_is_as_dangerous_as_it_looks(hostile: Hostile) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    subprocess.run(["sh", "-c", "./cc"], check=False)
    assert " loaded by " in hostile.seen()
    assert "cc run" in hostile.seen()


# ---- the door ----------------------------------------------------------------------------------

WHERE = "import os; print(os.getcwd(), oct(os.stat('.').st_mode & 0o777), os.listdir('.'))"


def test_a_child_starts_in_an_empty_folder_of_our_own(hostile: Hostile) -> None:
    python, env = (sys.executable, "-I", "-c", WHERE), dict(os.environ)
    said: list[str] = []
    run_child(python, cwd=None, env=env, on_text=said.append)
    expected = f"{empty_folder()} 0o700 []"
    assert "".join(said).strip() == expected
    assert hear(python, 30, env, 10_000)[1].strip() == expected
    assert run_to_its_end(python, env)[1].strip() == expected
    assert not empty_folder().is_relative_to(hostile.folder)


def test_the_folder_goes_with_the_process_and_a_deleted_one_comes_again(tmp_path: Path) -> None:
    code = (
        "from floatllm_build.start import empty_folder; import os; first = empty_folder(); os.rmdir(first);"
        "again = empty_folder(); print(first != again, again.is_dir(), again)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new, there, folder = done.stdout.split()
    assert (new, there) == ("True", "True")
    assert not Path(folder).exists()


def test_where_nothing_can_be_written_it_is_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: str) -> str:
        raise OSError("no folder for temporary files")

    monkeypatch.setattr(start.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(start, "_empty", [])
    assert empty_folder() == Path("/")


def test_no_python_of_ours_looks_into_its_folder(hostile: Hostile) -> None:
    """Whichever folder that is: the one of a build, say."""
    code = "import sys; print('' in sys.path, sys.path[0])"
    said: list[str] = []
    run_child((sys.executable, "-c", code), cwd=hostile.folder, env=dict(os.environ), on_text=said.append)
    if sys.version_info >= (3, 11):
        assert "".join(said).split()[0] == "False"
    assert hostile.untouched()


def test_programs_come_from_whole_folders_on_the_path(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ["PATH"]
    system = LiveSystem()
    there = system.which("sh")
    for path in (
        f":{before}",
        f".:{before}",
        f"bin:{before}",
        f"{before}:",
        f"{before}:./bin",
        f"::{before}",
    ):
        monkeypatch.setenv("PATH", path)
        assert system.which("sh") == there
        assert system.which("nvcc-of-nobody") is None
        for name in ("cc", "nvidia-smi", "git"):
            system.run((name, "--version"))
        assert system.run(("sh", "-c", "echo $PATH")).out.strip() == before.strip(":")
    assert hostile.untouched()
    monkeypatch.setenv("PATH", ".")
    assert system.which("cc") is None or not system.which("cc").startswith(str(hostile.folder))
    assert hear(("nvcc", "--version"), 10, {"PATH": ".:bin"}, 100)[0] == 127
    assert hostile.untouched()


def test_windows_does_not_look_here_first(hostile: Hostile, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for path in (programs / "nvcc.exe", hostile.folder / "nvcc.exe", hostile.folder / "cl.exe"):
        path.touch(mode=0o755)
    env = {"PATH": f"{os.pathsep}.{os.pathsep}{programs}", "PATHEXT": ".COM;.EXE"}
    assert which("nvcc", env, windows=True) == str(programs / "nvcc.exe")
    assert which("nvcc.exe", env, windows=True) == str(programs / "nvcc.exe")
    assert which(str(programs / "nvcc"), env, windows=True) == str(programs / "nvcc.exe")
    assert which("cl", env, windows=True) is None
    with pytest.raises(FileNotFoundError):
        start._program("cl", env, windows=True)
    assert start._program("nvcc", env, windows=True) == str(programs / "nvcc.exe")
    clean = clean_environment(env, "nvcc.exe", windows=True)
    assert clean["NoDefaultCurrentDirectoryInExePath"] == "1"


def test_a_path_that_the_user_gives_still_counts_from_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_venv(tmp_path / "venv")
    monkeypatch.chdir(tmp_path)
    for given in ("venv/bin/python", "./venv/bin/python"):
        assert probe_target(LiveSystem(), given).prefix == str(tmp_path / "venv")


def test_what_an_outer_pip_says_to_its_backend_ends_there() -> None:
    """Its names in pip 23 (PEP517_), 26 (_PYPROJECT_HOOKS_) and of both."""
    outer = {
        "PEP517_BACKEND_PATH": "x",
        "_PYPROJECT_HOOKS_BACKEND_PATH_JSON": "x",
        "PIP_BUILD_TRACKER": "x",
        "PIP_REQ_TRACKER": "x",
        "_PIP_RUNNING_IN_SUBPROCESS": "1",
    }
    kept = {"PIP_CERT": "x", "PATH": "/bin", "_PIP_USE_IMPORTLIB_METADATA": "1"}
    assert clean_environment({**outer, **kept}, "cc", windows=False) == kept


# ---- the commands ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("detect", "--json"), ("plan", "--backend", "cpu"), ("presets",), ("fetch",)]
)
@pytest.mark.parametrize("path", ["", ".:bin:"])
def test_commands(tool_env: Environment, hostile: Hostile, command: tuple[str, ...], path: str) -> None:
    done = in_folder(tool_env, hostile.folder, *command, PATH=f"{path}{tool_env.env['PATH']}")
    assert hostile.untouched(), hostile.seen()
    assert done.returncode == 0, done.stderr


def in_folder(
    env: Environment, folder: Path, *command: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [env.python.parent / "floatllm-build", *map(str, command)],
        cwd=folder,
        env={**env.env, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.build
def test_install_verify_and_clean(engine_env: Environment, hostile: Hostile, tmp_path: Path) -> None:
    """With the wheel that the session has built, into a new environment."""
    target = make_venv(tmp_path / "venv")
    relative = os.path.relpath(target, hostile.folder)
    done = in_folder(engine_env, hostile.folder, "install", "--python", relative)
    assert done.returncode == 0, done.stderr
    done = in_folder(engine_env, hostile.folder, "verify", "--python", relative)
    assert done.returncode == 0, done.stderr
    done = in_folder(engine_env, hostile.folder, "wheel", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert [path.suffix for path in (hostile.folder / "out").iterdir()] == [".whl"]
    cache = {"FLOATLLM_CACHE_DIR": str(tmp_path / "empty")}
    assert in_folder(engine_env, hostile.folder, "clean", **cache).returncode == 0
    assert hostile.untouched(), hostile.seen()


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_a_wheel_goes_where_it_should(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    if installer == "uv":
        monkeypatch.setenv("PATH", f"{Path(uv_or_skip()).parent}{os.pathsep}{os.environ['PATH']}")
    python = make_venv(tmp_path / "venv")
    if installer == "uv":
        subprocess.run([python, "-m", "pip", "uninstall", "-qy", "pip"], cwd=tmp_path, check=True)
    wheel, system = small_wheel(tmp_path), LiveSystem()
    target = probe_target(system, str(python))
    assert target.has_pip == (installer == "pip")
    install(system, target, wheel, tmp_path / "cache")
    assert holds(probe_target(system, str(python)), wheel)
    assert hostile.untouched(), hostile.seen()


class NoPip(LiveSystem):
    """A tool's environment as `uv tool install` makes it, of a Python without ensurepip."""

    def run(self, argv: tuple[str, ...], **options: object) -> object:  # type: ignore[override]
        if argv[-3:] == ("-m", "pip", "--version"):
            return super().run(("false",))
        return super().run(argv, **options)  # type: ignore[arg-type]

    def glob(self, pattern: str) -> tuple[str, ...]:
        return () if "ensurepip" in pattern else super().glob(pattern)


def test_the_pip_that_uv_brings_is_from_where_the_user_says(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ensurepip

    bundled = Path(ensurepip.__file__).parent / "_bundled"
    if not list(bundled.glob("pip-*.whl")):
        pytest.skip("this Python has no wheel of pip")
    settings = tmp_path / "config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    # The user's own file says where pip comes from, and where things go; the second is not heeded.
    target = tmp_path / "elsewhere"
    settings.write_text(
        f'offline = true\nfind-links = ["{bundled}"]\n[pip]\ntarget = "{target}"\nrequire-hashes = true\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "none.txt"))
    # A cache of the machine's may hold another pip.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PATH", f"{Path(uv_or_skip()).parent}{os.pathsep}{os.environ['PATH']}")
    command = own_pip(NoPip(), tmp_path / "cache")
    assert command == (sys.executable, str(tmp_path / "cache" / "tools" / "pip" / "pip"))
    said = LiveSystem().run((*command, "--version"), timeout=60).out
    assert said.startswith(f"pip {ensurepip.version()} ")
    assert not target.exists()
    assert hostile.untouched(), hostile.seen()


def test_gpus_are_asked_of_the_engine_and_not_of_the_folder(hostile: Hostile, tmp_path: Path) -> None:
    assert seen_devices(str(make_venv(tmp_path / "venv"))) == {}
    assert hostile.untouched(), hostile.seen()


@pytest.mark.parametrize(
    ("module", "wanted"),
    [("floatllm_build", "platformdirs"), ("floatllm_build", "__future__"), ("floatllm", "argparse")],
)
def test_python_m_takes_no_further_module_from_the_folder(tmp_path: Path, module: str, wanted: str) -> None:
    """The first ones Python itself finds where it looks first; the rest is ours to say."""
    marks, folder = tmp_path / "marks", tmp_path / "folder"
    folder.mkdir()
    (folder / f"{wanted}.py").write_text(PAYLOAD.format(marks=str(marks), name=wanted))
    packages = [path for path in sys.path if path] + [str(ROOT / "native")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(packages)}
    words = [sys.executable, "-m", module, "--help"]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not marks.exists()


@pytest.mark.parametrize("file", ["floatllm_build/__main__.py", "native/floatllm/__main__.py"])
def test_nothing_is_imported_before_the_folder_is_off_the_path(file: str) -> None:
    """What Python itself has loaded by then differs: contextlib is not there in 3.12.1 and 3.13.0."""
    text = (ROOT / file).read_text(encoding="utf-8")
    parts = ast.parse(text).body
    (guard,) = [part for part in parts if isinstance(part, ast.If) and "del sys.path[0]" in ast.unparse(part)]
    before = [*parts[: parts.index(guard)], *guard.body[:1]]
    imported = [
        ast.unparse(node)
        for part in before
        if not isinstance(part, ast.FunctionDef)
        for node in ast.walk(part)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert imported == ["import os", "import sys"]


# ---- a folder that is gone ---------------------------------------------------------------------


def test_a_deleted_folder_is_no_hindrance_for_what_does_not_need_it(
    tool_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    python = make_venv_elsewhere(tmp_path)
    system, wheel = LiveSystem(), small_wheel(tmp_path)
    install(system, probe_target(system, str(python)), wheel, tmp_path / "cache")
    assert holds(probe_target(system, str(python)), wheel)
    assert fetch_with_pip(system, tmp_path / "cache", "list", asks=False).done.rc == 0
    shell = f"mkdir again; cd again; rmdir ../again; exec {tool_env.python.parent}/floatllm-build"
    for words, status in (("detect", 0), ("wheel --backend cpu --out here", 3)):
        done = subprocess.run(
            ["sh", "-c", f"{shell} {words}"],
            cwd=tmp_path,
            env=dict(tool_env.env),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        if status:
            assert "has been deleted" in done.stderr


def make_venv_elsewhere(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], cwd=folder, check=True)
    return folder / "venv" / "bin" / "python"
