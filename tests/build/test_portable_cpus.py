"""One wheel on many processors: each gets the kernels that suit it, and all say the same.

Emulated by qemu-user, which has no AVX-512; this machine's own processor does the rest. A minute of running
for x86-64; for 64-bit Arm two minutes of cross-compiling on two CPUs come before it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from arm_engines import (
    FROM_PLAIN_PYTHON,
    LIGHT,
    SHAPE,
    TOKENS,
    Engine,
    compiled,
    cross_folder,
    done,
    emulated,
)
from floatllm import _reference, _testmodel
from tool_environment import Environment, skip_or_fail

pytestmark = [pytest.mark.ci, pytest.mark.build, pytest.mark.emulator]

PROMPT = "The capital of France is"
# What qemu is told -> the variant of ggml's that must be chosen. Its Skylake has no AVX-512.
X86 = {
    "qemu64": "x64",
    "Nehalem": "sse42",
    "SandyBridge": "sandybridge",
    "Haswell": "haswell",
    "Skylake-Server": "haswell",
}
ARM = {"cortex-a53": "armv8.0_1", "cortex-a76": "armv8.2_2", "neoverse-n1": "armv8.2_2", "max": "armv8.6_2"}


def x86(cpu: str | None, site: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`floatllm` of a folder, on an emulated processor or this one."""
    if platform.machine() != "x86_64":
        skip_or_fail("an x86-64 machine: qemu-user runs this machine's own Python")
    if cpu and not shutil.which("qemu-x86_64"):
        skip_or_fail("qemu-x86_64 is not on PATH (Debian: apt install qemu-user)")
    emulator = ("qemu-x86_64", "-cpu", cpu) if cpu else ()
    command = [*emulator, str(Path(sys.executable).resolve()), "-m", "floatllm", *map(str, arguments)]
    # Not the engine that other tests of this session use.
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLOATLLM_")}
    env |= {"PYTHONPATH": str(site), "PYTHONHOME": sys.base_prefix}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False, cwd="/")


def variant(site: Path, cpu: str | None) -> str:
    ran = x86(cpu, site, "devices", "--json")
    assert ran.returncode == 0, ran.stderr
    return str(json.loads(ran.stdout)["versions"]["cpu_variant"])


@pytest.fixture(scope="module")
def site(portable_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable engine, unpacked."""
    folder = tmp_path_factory.mktemp("portable")
    shutil.unpack_archive(portable_wheel, folder, "zip")
    return folder


@pytest.mark.parametrize("cpu", X86)
def test_each_processor_gets_its_kernels_and_says_the_same(site: Path, smollm: Path, cpu: str) -> None:
    assert variant(site, cpu) == X86[cpu]
    said = [x86(each, site, "run", smollm, "-p", PROMPT, "-n", 6, "--ctx", 64) for each in (cpu, None)]
    assert [ran.returncode for ran in said] == [0, 0], said[0].stderr
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.startswith(" Paris")


def test_a_processor_with_avx512_gets_kernels_that_use_it(site: Path) -> None:
    """Those that suit it best, by the flags that Linux tells of this processor."""
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    if "avx512bw" not in flags:
        # qemu-user cannot emulate it either, so this depends on the machine.
        pytest.skip("this processor has no AVX-512")
    with_it = {"skylakex", "cannonlake", "cascadelake", "icelake", "cooperlake", "zen4", "sapphirerapids"}
    assert variant(site, None) in with_it


@pytest.mark.parametrize("cpu", ["qemu64", "Nehalem"])
def test_an_engine_for_one_machine_tells_another(engine_env: Environment, cpu: str) -> None:
    """Instead of ending by a signal at the first instruction that is not there."""
    (native,) = engine_env.prefix.glob("lib/python*/site-packages")
    manifest = json.loads((native / "floatllm" / "manifest.json").read_text())
    if not {"avx", "avx2", "fma"} & set(manifest["cpu"]["needs"]):
        pytest.skip("this machine's own kernels need nothing that the emulated processors lack")
    ran = x86(cpu, native, "devices")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "This engine was compiled for another processor" in ran.stderr
    assert "lacks" in ran.stderr
    assert "floatllm-build install" in ran.stderr


# ---- 64-bit Arm ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def arm_engine(folder: Path, engine_env: Environment) -> Engine:
    """The portable engine, cross-compiled."""
    ggml = engine_env.source
    out = folder / "wheel-cpu"
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}"
    source = ("-S", folder / "native", "-B", out, f"-DGGML_DIR={ggml}")
    done("cmake", "--preset=wheel-cpu", *source, toolchain, *LIGHT)
    done("cmake", "--build", out, "-j", "2")
    program = compiled("aarch64-linux-gnu-gcc", folder / "program.c", out / "libfloatllm.so")
    return Engine(out / "libfloatllm.so", program, out / "manifest.json")


@pytest.fixture(scope="module")
def arm_logits(folder: Path, arm_engine: Engine) -> Callable[[str], tuple[str, list[float]]]:
    weights = _testmodel.make(SHAPE)
    model = folder / "portable.gguf"
    _testmodel.write(model, SHAPE, weights)
    expected = _reference.logits(SHAPE, weights, TOKENS)

    def run(cpu: str) -> tuple[str, list[float]]:
        """The chosen variant, and the logits, which plain Python confirms."""
        command = emulated(cpu, *arm_engine.command(model, 0))
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert ran.returncode == 0, ran.stderr
        logits = list(map(float, json.loads(ran.stdout)))
        assert _reference.nmse(logits, expected) <= FROM_PLAIN_PYTHON
        return ran.stderr.partition("kernels: ")[2].splitlines()[0], logits

    return run


@pytest.mark.parametrize("cpu", ARM)
def test_each_arm_processor_gets_its_kernels_and_the_same_token(
    arm_logits: Callable[[str], tuple[str, list[float]]], cpu: str
) -> None:
    chosen, logits = arm_logits(cpu)
    assert chosen == ARM[cpu]
    _, little = arm_logits("cortex-a53")
    assert logits.index(max(logits)) == little.index(max(little))


def test_the_arm_manifest_lists_the_variants(arm_engine: Engine) -> None:
    manifest = json.loads(arm_engine.manifest.read_text())
    assert manifest["portable"] is True
    assert set(ARM.values()) <= set(manifest["cpu"]["variants"])
    beside = {path.name for path in arm_engine.library.parent.glob("lib*.so")}
    listed = {Path(file).name for file in manifest["files"] if file.endswith(".so")}
    assert beside == listed
