"""The proof that CI makes of each wheel before it leaves, on the wheel that the tool made here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tool_environment import ROOT, Environment, skip_or_fail

SCRIPT = ROOT / ".github" / "prove_wheel.py"
TAG = sysconfig.get_platform().replace("-", "_").replace(".", "_")


@pytest.fixture(scope="module")
def wheels(engine_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The engine's, and the tool's own."""
    if not SCRIPT.is_file():
        skip_or_fail(f"no {SCRIPT}: it is part of a checkout alone")
    folder = tmp_path_factory.mktemp("wheels")
    engine = shutil.copy2(next(engine_env.cache.glob("wheels/*/floatllm-*.whl")), folder)
    command = [engine_env.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT]
    subprocess.run(command, env=engine_env.env, check=True, capture_output=True)
    return [Path(engine), next(folder.glob("floatllm_build-*.whl"))]


def prove(env: Environment, tag: str, *wheels: Path, proof: str = "cpu") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--proof", proof, "--tag", tag, *wheels]
    return subprocess.run(command, env=env.env, capture_output=True, text=True, check=False)


@pytest.mark.ci
@pytest.mark.build
def test_a_good_wheel_is_proven_and_verified_without_any_compiler(
    engine_env: Environment, wheels: list[Path]
) -> None:
    done = prove(engine_env, TAG, *wheels)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.partition("python ")[2] for line in done.stdout.splitlines() if line.startswith("$")]
    assert [words.split()[-1] for words in ran[1:3]] == ["devices", "CPU"]
    assert "the installed engine computed on CPU" in done.stdout


@pytest.mark.build
def test_a_wheel_of_another_platform_is_refused(engine_env: Environment, wheels: list[Path]) -> None:
    done = prove(engine_env, "manylinux_2_28_riscv64", wheels[0])
    assert done.returncode == 1
    assert "py3-none-manylinux_2_28_riscv64" in done.stderr


@pytest.mark.build
def test_a_wheel_that_lacks_its_library_is_not_proven(
    engine_env: Environment, wheels: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / wheels[0].name
    with zipfile.ZipFile(wheels[0]) as old, zipfile.ZipFile(broken, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(("/libfloatllm.so", "/libfloatllm.dylib")):
                new.writestr(entry, old.read(entry))
    done = prove(engine_env, TAG, broken)
    assert done.returncode != 0
    assert "libfloatllm" in done.stderr


@pytest.mark.build
def test_a_compiler_in_reach_ends_the_proof(
    engine_env: Environment, wheels: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import prove_wheel
    finally:
        sys.path.remove(str(SCRIPT.parent))
    monkeypatch.setattr(prove_wheel, "COMPILERS", ("python",))
    assert prove_wheel.prove(tmp_path, [wheels[0]], device="CPU") == 1
