"""The engine for 64-bit Arm: cross-compiled, and run on emulated processors with and without extensions.

A program in C does on them what the self-test does, so that no Python for Arm is needed; where one can be
had, the self-test itself runs too. A minute and a half of compiling on two CPUs, seconds of running.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from arm_engines import (
    FROM_PLAIN_PYTHON,
    LIGHT,
    SHAPE,
    TOKENS,
    TRIPLE,
    WHAT_CPU,
    Engine,
    compiled,
    cross_folder,
    done,
    emulated,
)
from tool_environment import ROOT, Environment, skip_or_fail
from toolchains import keep

from floatllm_build.host.arm import arm_features
from floatllm_build.rules.cpu import arm_arch

pytestmark = [pytest.mark.ci, pytest.mark.build, pytest.mark.emulator]

sys.path.insert(0, str(ROOT / "native"))
from floatllm import _reference, _testmodel  # noqa: E402  the checkout's, of which only plain Python is used

LITTLE, DOTPROD, I8MM = "armv8-a", "armv8.2-a+dotprod+fp16", "armv8.2-a+dotprod+fp16+i8mm"
# Emulated processor -> the architecture that the tool must choose for it: SVE, which `max` has, is left out.
CPUS = {"cortex-a53": LITTLE, "cortex-a76": DOTPROD, "max,sve=off": I8MM, "max": I8MM}
PRESETS = {LITTLE: "android-low-mem", DOTPROD: "cpu", I8MM: "cpu"}
# Both round in the same places, but add in another order, and with fp16 in half precision.
FROM_X86 = 1e-4
RUNS = [
    *((LITTLE, cpu) for cpu in CPUS),
    *((DOTPROD, cpu) for cpu in ("cortex-a76", "max,sve=off", "max")),
    *((I8MM, cpu) for cpu in ("max,sve=off", "max")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def engine_for(folder: Path, engine_env: Environment) -> Callable[[str], Engine]:
    """Cross-compiles the engine for an architecture, once."""
    ggml = engine_env.source

    @cache
    def build(arch: str) -> Engine:
        # One build folder for each preset: for another architecture only the CPU backend is compiled again.
        out = folder / PRESETS[arch]
        options = (f"-DGGML_DIR={ggml}", "-DGGML_NATIVE=OFF", f"-DGGML_CPU_ARM_ARCH={arch}", *LIGHT)
        toolchain = f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}"
        done("cmake", f"--preset={PRESETS[arch]}", "-S", folder / "native", "-B", out, toolchain, *options)
        done("cmake", "--build", out, "-j", "2")
        kept = folder / arch
        kept.mkdir()
        for name in ("libfloatllm.so", "manifest.json"):
            shutil.copy2(out / name, kept / name)
        program = compiled(f"{TRIPLE}-gcc", folder / "program.c", kept / "libfloatllm.so")
        return Engine(kept / "libfloatllm.so", program, kept / "manifest.json")

    return build


@pytest.fixture(scope="module")
def weights() -> list[_testmodel.Weight]:
    return _testmodel.make(SHAPE)


@pytest.fixture(scope="module")
def model(folder: Path, weights: list[_testmodel.Weight]) -> Path:
    path = folder / "model.gguf"
    _testmodel.write(path, SHAPE, weights)
    return path


@pytest.fixture(scope="module")
def expected(weights: list[_testmodel.Weight]) -> list[float]:
    """The logits by a transformer in plain Python."""
    return _reference.logits(SHAPE, weights, TOKENS)


@pytest.fixture(scope="module")
def native(folder: Path, model: Path, engine_env: Environment) -> list[float]:
    """The logits by the engine that the tool built for this machine."""
    installed = next(engine_env.prefix.glob("lib/python*/site-packages/floatllm/libfloatllm.so"))
    library = folder / "native-engine" / installed.name
    library.parent.mkdir()
    shutil.copy2(installed, library)
    program = compiled("cc", folder / "program.c", library)
    return list(map(float, json.loads(done(*Engine(library, program, library).command(model, 0)))))


@pytest.mark.parametrize("cpu", CPUS)
def test_the_tool_chooses_what_the_processor_can_do(folder: Path, cpu: str) -> None:
    source, program = folder / "what-cpu.c", folder / "what-cpu"
    if not program.exists():
        source.write_text(WHAT_CPU)
        done(f"{TRIPLE}-gcc", source, "-o", program)
    hwcap, hwcap2 = json.loads(done(*emulated(cpu, program)))
    features = arm_features(hwcap, hwcap2)
    assert ("sve" in features) == (cpu == "max")
    assert arm_arch(features) == CPUS[cpu]


@pytest.mark.parametrize(("arch", "cpu"), RUNS)
def test_an_engine_computes_on_every_processor_that_has_its_extensions(
    engine_for: Callable[[str], Engine],
    model: Path,
    expected: list[float],
    native: list[float],
    arch: str,
    cpu: str,
) -> None:
    engine = engine_for(arch)
    whole, streamed = (
        json.loads(done(*emulated(cpu, *engine.command(model, chunk)))) for chunk in (0, 640 << 10)
    )
    assert whole == streamed
    assert _reference.nmse(whole, expected) <= FROM_PLAIN_PYTHON
    assert _reference.nmse(whole, native) <= FROM_X86


@pytest.mark.parametrize(("arch", "cpu"), [(DOTPROD, "cortex-a53"), (I8MM, "cortex-a53")])
def test_a_processor_without_the_extensions_is_told(
    engine_for: Callable[[str], Engine], model: Path, arch: str, cpu: str
) -> None:
    """Why the tool takes what *every* core of a phone can do: little cores are such ones."""
    command = emulated(cpu, *engine_for(arch).command(model, 0))
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (3, "")
    lacking = re.search(r"this processor lacks ([\w, ]+)\. Build one here", ran.stderr)
    assert lacking
    assert set(re.split(r", | and ", lacking[1])) >= {"dotprod", "fp16"}


@pytest.mark.parametrize("arch", PRESETS)
def test_the_manifest_says_for_what(engine_for: Callable[[str], Engine], arch: str) -> None:
    manifest = json.loads(engine_for(arch).manifest.read_text())
    assert (manifest["processor"], manifest["preset"]) == ("aarch64", PRESETS[arch])
    assert manifest["options"]["GGML_CPU_ARM_ARCH"] == arch
    assert manifest["portable"] is False
    assert "GGML_NATIVE" not in manifest["options"]


# ---- the self-test itself ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arm_python() -> tuple[Path, dict[str, str]]:
    """A Python for Arm, and the environment it needs."""
    if platform.machine() == "aarch64":
        return Path(sys.executable).resolve(), {}
    release = Path("/etc/os-release")
    words = release.read_text().split() if release.is_file() else []
    if "ID=ubuntu" in words:
        # CI has an Arm machine with Ubuntu, where this runs with that machine's own Python.
        pytest.skip(
            "a Python for Arm: Ubuntu keeps its packages for Arm at another address than this machine's"
        )
    if not shutil.which("apt-get") or "ID=debian" not in words:
        skip_or_fail(
            "a Python for Arm: only Debian's apt-get is known to bring one; run this on Debian or Arm"
        )
    root = keep(f"python-{TRIPLE}", _download_python)
    libraries = ":".join(str(root / place / TRIPLE) for place in ("usr/lib", "lib"))
    return next((root / "usr" / "bin").glob("python3.*")), {
        "PYTHONHOME": str(root / "usr"),
        "LD_LIBRARY_PATH": libraries,
    }


def _download_python(folder: Path) -> None:
    """Unpacks Debian's Python for Arm, from where apt gets this machine's packages. Needs no root."""
    with tempfile.TemporaryDirectory() as scratch:
        lists = Path(scratch, "lists")
        (lists / "partial").mkdir(parents=True)
        config = Path(scratch, "apt.conf")
        config.write_text(
            'APT::Architecture "arm64"; APT::Architectures { "arm64"; }; APT::Sandbox::User "";\n'
            f'Dir::State::Lists "{lists}"; Dir::State::Status "/dev/null"; Dir::Cache "{scratch}";\n'
        )

        def apt(*command: str) -> str:
            env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}
            ran = subprocess.run(
                command, cwd=scratch, env=env, capture_output=True, text=True, timeout=600, check=False
            )
            if ran.returncode != 0:
                skip_or_fail(f"{command[:2]} failed, perhaps without a network: {ran.stderr.strip()[-300:]}")
            return ran.stdout

        apt("apt-get", "update")
        depends = apt("apt-cache", "depends", "python3-minimal")
        minimal = next(word for word in depends.split() if word.startswith("python3.") and "minimal" in word)
        own = minimal.removesuffix("-minimal")
        libraries = (f"lib{own}-minimal", f"lib{own}-stdlib", "libexpat1", "libffi8", "zlib1g")
        apt("apt-get", "download", minimal, *libraries)
        for package in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)


@pytest.mark.parametrize(("arch", "cpu"), [(LITTLE, "cortex-a53"), (I8MM, "max")])
def test_the_self_test_passes(
    engine_for: Callable[[str], Engine],
    arm_python: tuple[Path, dict[str, str]],
    tmp_path: Path,
    arch: str,
    cpu: str,
) -> None:
    python, variables = arm_python
    report = tmp_path / "report.json"
    variables = {
        **variables,
        "PYTHONPATH": str(ROOT / "native"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLOATLLM_LIBRARY": str(engine_for(arch).library),
    }
    words = (python, "-m", "floatllm.selftest", "--device", "CPU", "--report", report)
    assert "Engine successfully mapped" in done(*emulated(cpu, *words, **variables))
    found = json.loads(report.read_text())
    assert (found["ok"], found["device"], found["bit_identical"]) == (True, "CPU", True)
