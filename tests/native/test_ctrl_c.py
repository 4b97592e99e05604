"""Ctrl-C at its worst moments: while a command is loaded, and while C calls back into Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from installed import Installed

NATIVE = Path(__file__).resolve().parents[2] / "native"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

# Python imports it as it starts. The interrupt comes as a module is looked for.
_SITE = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
"""


def loading(folder: Path, module: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(_SITE)
    path = os.pathsep.join((str(folder), str(NATIVE)))
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path, "INTERRUPTED_AT": module},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@POSIX
@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("floatllm", "floatllm.engine"),
        ("floatllm", "floatllm.cli"),
        ("floatllm.selftest", "floatllm._lib"),
        ("floatllm.selftest", "floatllm._reference"),
    ],
)
def test_an_interrupt_while_a_command_is_loaded_ends_it_without_a_word(
    tmp_path: Path, command: str, module: str
) -> None:
    done = loading(tmp_path, module, ["-m", command])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@POSIX
def test_the_console_script_ends_so_too(tmp_path: Path) -> None:
    script = tmp_path / "floatllm"
    script.write_text("import sys\nfrom floatllm.cli import main\nsys.exit(main())\n")
    done = loading(tmp_path, "floatllm.cli", [str(script)])
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@POSIX
def test_whoever_imports_the_package_gets_the_interrupt(tmp_path: Path) -> None:
    code = "try:\n    import floatllm\nexcept KeyboardInterrupt:\n    print('caught')\n"
    done = loading(tmp_path, "floatllm.engine", ["-c", code])
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_self_test_that_is_interrupted_ends_as_commands_do_and_removes_its_model(
    engine: Installed, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    # The signal comes while ggml proves the operations, after the first of them.
    program = (
        "import os, sys\n"
        "from floatllm import proof, selftest, streams\n"
        "plain = proof.Check\n"
        "def check(**facts):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    return plain(**facts)\n"
        "proof.Check = check\n"
        "sys.exit(streams.guarded(lambda: selftest.main([])))\n"
    )
    done = subprocess.run(
        [engine.python, "-c", program],
        env={**engine.env, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    assert list(tmp_path.iterdir()) == []
