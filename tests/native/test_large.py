"""A 405B-shaped model: opened and planned in megabytes, and mapped whole in a gigabyte."""

from __future__ import annotations

from pathlib import Path

import large_files
import pytest
from installed import Installed
from tool_environment import skip_or_fail

_PEAK = """
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # what this process was forked from does not count
"""

_COMMAND = f"""
import json, sys, time
began = time.process_time()
{_PEAK}
import contextlib, io
from floatllm import cli
with contextlib.redirect_stdout(io.StringIO()) as said:
    code = cli.main(sys.argv[1:])
print(json.dumps([code, said.getvalue().count("\\n"), time.process_time() - began, peak()]))
"""

_MAP = f"""
import json, sys
{_PEAK}
from floatllm import Engine, Model
with Model.open(sys.argv[1]) as model:
    plan = model.plan("1GiB", "CPU", mode="map", io=sys.argv[2])
    with Engine(plan) as engine:
        sums = engine.map().tolist()
print(json.dumps([len(plan.chunks), sums, peak()]))
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc, which is not here"
)


def _made(folder: Path, layers: int) -> large_files.Large:
    try:
        return large_files.llama_405b(folder / "llama-405b.gguf", layers)
    except OSError as error:
        skip_or_fail(f"needs a file system with sparse files of 244 GB: {error}")
        raise


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> large_files.Large:
    return _made(tmp_path_factory.mktemp("large"), large_files.LAYERS)


def test_the_file_is_the_model_it_says(whole: large_files.Large) -> None:
    # 405.8 billion weights of about 4.8 bits, in a file that takes next to nothing.
    assert 243e9 < whole.size < 245e9
    assert len(whole.sums) == 9 * 126 + 4
    assert whole.path.stat().st_blocks * 512 < 100e6


@pytest.mark.parametrize(
    "command",
    [
        ("inspect",),
        ("inspect", "--json"),
        ("plan", "--memory", "8GiB"),
        ("plan", "--memory", "2GiB", "--json"),
        ("plan", "--memory", "1GiB", "--mode", "map"),
    ],
)
def test_looking_takes_two_seconds_of_a_cpu_and_200_mb(
    engine: Installed, whole: large_files.Large, command: tuple[str, ...]
) -> None:
    code, lines, seconds, peak = engine.script(_COMMAND, command[0], whole.path, *command[1:])
    assert code == 0
    assert lines >= 1
    assert seconds < 2
    assert peak < 200e6


def test_the_picture_of_it_stays_small(engine: Installed, whole: large_files.Large, tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    # Thousands of chunks, of which nearly every second one stays.
    options = ("--memory", "100GiB", "--device", "CPU", "--plot", picture)
    code, lines, seconds, peak = engine.script(_COMMAND, "plan", whole.path, *options)
    assert code == 0
    # The text names the first and the last of them.
    assert 10 < lines < 40
    assert seconds < 2
    assert peak < 200e6
    assert 10_000 < picture.stat().st_size < 1e6


@pytest.mark.ci
@pytest.mark.parametrize(
    ("io", "layers"),
    # Holes are read into the page cache at a tenth of the speed, which all of it is not worth.
    [("direct", large_files.LAYERS), ("mmap", 0)],
)
def test_all_of_it_is_mapped_in_a_gigabyte(engine: Installed, tmp_path: Path, io: str, layers: int) -> None:
    made = _made(tmp_path, layers)
    chunks, sums, peak = engine.script(_MAP, made.path, io)
    assert chunks >= made.size // 2**30
    # The marks at the end of every tensor were read, and nothing else.
    assert sums == pytest.approx(made.sums, rel=1e-2)
    assert peak < 1.1 * 2**30
