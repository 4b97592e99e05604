"""The whole flow, with a real compiler: what it builds, what it reuses, and what a failure leaves alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tool_environment import Environment, make_venv

pytestmark = pytest.mark.build


def wheels(env: Environment) -> list[Path]:
    return sorted((env.cache / "wheels").glob("*/*.whl"), key=lambda path: path.stat().st_mtime_ns)


def build_log(env: Environment) -> Path:
    return next((env.cache / "build").glob("*/build.log"))


def loads(python: Path) -> bool:
    """Whether the engine of that environment loads and sees the CPU."""
    command = [python, "-m", "floatllm", "devices"]
    done = subprocess.run(command, cwd=python.parent, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "CPU" in done.stdout


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """A source inside the installed tool, with another text for a while."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture(scope="module")
def other(engine_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a second environment, with the engine from the cache in it."""
    python = make_venv(tmp_path_factory.mktemp("other") / "venv")
    done = engine_env.tool("install", "--python", python)
    assert done.returncode == 0, done.stderr
    assert "reusing" in done.stderr
    return python


def test_the_engine_is_installed_and_proven(engine_env: Environment) -> None:
    assert loads(engine_env.python)
    proof = json.loads((wheels(engine_env)[0].parent / "proof.json").read_text())
    assert proof["device"] == "CPU"
    assert proof["report"]["ok"] is True
    assert proof["lines"][-1] == "[FloatLLM] Engine successfully mapped."


def test_the_wheel_serves_every_python_of_the_platform(engine_env: Environment) -> None:
    wheel = wheels(engine_env)[0]
    assert "-py3-none-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        licence = next(name for name in names if name.endswith(".dist-info/licenses/ggml/LICENSE"))
        assert "ggml authors" in archive.read(licence).decode()
    # No header, no static library, no cmake file: only the component of the engine.
    libraries = [name for name in names if not name.endswith((".py", "LICENSE")) and "dist-info" not in name]
    assert set(libraries) == {"floatllm/libfloatllm.so", "floatllm/manifest.json", "floatllm/py.typed"}


def test_the_manifest_says_what_decided_and_nothing_of_this_machine(engine_env: Environment) -> None:
    with zipfile.ZipFile(wheels(engine_env)[0]) as archive:
        text = archive.read("floatllm/manifest.json").decode()
        library = archive.read("floatllm/libfloatllm.so")
    manifest = json.loads(text)
    pin = json.loads((engine_env.data / "ggml" / "pin.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["abi_version"] == 5
    assert manifest["engine_version"] == "0.1.0"
    assert (manifest["preset"], manifest["build_type"]) == ("cpu", "Release")
    assert manifest["backends"] == ["cpu", "rpc"]
    pinned = {key: pin[key] for key in ("version", "release", "tree_sha256")}
    assert manifest["ggml"] == {**pinned, "pinned": True}
    assert manifest["portable"] is False
    assert manifest["options"]["GGML_LLAMAFILE"] is True
    assert manifest["compilers"]["CXX"]
    assert "-O3" in manifest["flags"]["CXX"]
    home = engine_env.env["HOME"]
    assert home not in text
    # ggml's assertions carry __FILE__.
    assert home.encode() not in library
    assert b"ggml/src/ggml.c" in library


def test_packaging_found_nothing_left_to_compile(engine_env: Environment) -> None:
    packing = build_log(engine_env).read_text().split("floatllm_build.build.skbuild")[1]
    assert "ninja: no work to do" in packing


def test_a_second_install_reuses_the_wheel_and_runs_no_compiler(engine_env: Environment) -> None:
    logs = (engine_env.cache / "build").glob("*/out/.ninja_log")
    watched = [build_log(engine_env), *logs, *wheels(engine_env)]
    before = [(path, path.stat().st_mtime_ns) for path in watched]
    done = engine_env.tool("install")
    assert done.returncode == 0, done.stderr
    assert "nothing changed; reusing" in done.stderr
    assert "nothing to do" in done.stderr
    assert [(path, path.stat().st_mtime_ns) for path in watched] == before


def test_a_damaged_installation_is_repaired(engine_env: Environment, other: Path) -> None:
    library = next(other.parent.parent.glob("lib/python*/site-packages/floatllm/libfloatllm.so"))
    library.write_bytes(b"damaged")
    done = engine_env.tool("install", "--python", other)
    assert done.returncode == 0, done.stderr
    assert "is installed and proven" in done.stderr
    assert loads(other)


def test_a_changed_source_compiles_that_unit_alone(engine_env: Environment, other: Path) -> None:
    source = engine_env.data / "native/src/arch.cpp"
    with changed(source, source.read_text() + "\n// changed\n"):
        done = engine_env.tool("install", "--python", other)
    assert done.returncode == 0, done.stderr
    built = [line for line in build_log(engine_env).read_text().splitlines() if line.startswith("[")]
    assert len(built) == 2
    assert "arch.cpp" in built[0]
    assert "Linking" in built[1]


def test_a_build_that_fails_leaves_the_former_engine_working(engine_env: Environment, other: Path) -> None:
    kept = wheels(engine_env)
    source = engine_env.data / "native/src/arch.cpp"
    with changed(source, source.read_text() + "\nnonsense;\n"):
        done = engine_env.tool("install", "--python", other)
    assert done.returncode == 4
    assert "arch.cpp" in done.stderr
    assert "nonsense" in done.stderr
    *_, log, report = done.stderr.strip().splitlines()
    assert "nonsense" in Path(log.split(" is in ")[-1]).read_text()
    assert "floatllm-build report" in report
    assert "Traceback" not in done.stderr
    assert loads(other)
    assert wheels(engine_env) == kept


def test_a_wrong_device_is_not_proven_and_not_installed(engine_env: Environment, other: Path) -> None:
    kept = wheels(engine_env)
    lie = 'import json, sys\nopen(sys.argv[4], "w").write(json.dumps({"ok": True, "device": "CUDA0"}))\n'
    with changed(engine_env.data / "native/floatllm/selftest.py", lie):
        done = engine_env.tool("install", "--python", other)
    assert done.returncode == 5
    assert "it ran on CUDA0, not on CPU" in done.stderr
    *_, log, report = done.stderr.strip().splitlines()
    assert Path(log.split(" is in ")[-1]).is_file()
    assert "floatllm-build report" in report
    assert loads(other)
    assert wheels(engine_env) == kept


def test_a_gpu_that_vanishes_between_plan_and_proof_is_exit_5(engine_env: Environment, other: Path) -> None:
    """All is real but the machine that the plan was made for: one with a GPU."""
    kept = wheels(engine_env)
    program = (
        "import dataclasses, sys\n"
        "from floatllm_build import cli\n"
        "from floatllm_build.flow import wheels\n"
        "made = wheels.make_plans\n"
        "wheels.make_plans = lambda *known: (dataclasses.replace(made(*known)[0], device='CUDA0'),)\n"
        "cli.main()\n"
    )
    device = engine_env.data / "native/floatllm/devices.py"
    with changed(device, device.read_text() + "# Another wheel.\n"):
        done = subprocess.run(
            [engine_env.python, "-c", program, "install", "--python", other],
            cwd=engine_env.prefix,
            env=engine_env.env,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 5, done.stderr
    assert "There is no device CUDA0 here" in done.stderr
    assert "what was installed before is untouched" in done.stderr
    assert loads(other)
    assert wheels(engine_env) == kept


def test_a_self_test_that_crashes_is_not_proven(engine_env: Environment, other: Path) -> None:
    with changed(engine_env.data / "native/floatllm/selftest.py", "import os\nos.abort()\n"):
        done = engine_env.tool("install", "--python", other)
    assert done.returncode == 5
    assert "signal 6" in done.stderr
    assert loads(other)


def test_verify_proves_what_is_installed(engine_env: Environment) -> None:
    done = engine_env.tool("verify")
    assert done.returncode == 0, done.stderr
    assert "operations agree" in done.stdout
    assert "Mapped" not in done.stderr
    told = engine_env.tool("verify", "-v").stderr
    assert "[FloatLLM] Mapped token_embd.weight" in told
    assert "Engine successfully mapped." in told


def detected(env: Environment, **variables: str) -> dict[str, object]:
    done = env.tool("detect", "--json", **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)["engine"]
    return found


def test_detect_says_what_is_there_and_what_an_upgrade_would_change(
    engine_env: Environment, tmp_path: Path
) -> None:
    found = detected(engine_env)
    assert (found["preset"], found["device"]) == ("cpu", "CPU")
    assert (found["current"], found["changes"], found["kept"]) == (True, [], True)
    assert "nothing to do" in engine_env.tool("detect").stdout
    wheels = engine_env.cache / "wheels"
    away = wheels.rename(wheels.with_name("away"))
    try:
        found = detected(engine_env)
        told = engine_env.tool("detect").stdout
        done = engine_env.tool("install")
        made = wheels.exists()
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
        away.rename(wheels)
    assert (found["current"], found["kept"]) == (True, False)
    # As with another cache, which says nothing against the engine.
    elsewhere = detected(engine_env, FLOATLLM_CACHE_DIR=str(tmp_path))
    assert (elsewhere["current"], elsewhere["kept"]) in {(True, False), (None, False)}
    assert "nothing to do" in told
    assert done.returncode == 0, done.stderr
    assert "is there already; nothing to do" in done.stderr
    assert "holds this engine, built and proven before" in done.stderr
    assert not made
    for name, comment, said in (
        ("native/floatllm/devices.py", "# changed, says detect", "the engine's sources"),
        ("native/src/arch.cpp", "// changed, says detect", "compiled sources"),
    ):
        source = engine_env.data / name
        with changed(source, f"{source.read_text()}\n{comment}\n"):
            found = detected(engine_env)
            told = engine_env.tool("detect").stdout
        assert found["current"] is False
        assert said in str(found["changes"])
        assert said in told
        assert "floatllm-build install" in told
    # With another preset it would be another engine.
    done = engine_env.tool("detect", "--low-mem", "--json")
    assert json.loads(done.stdout)["engine"]["changes"] == ["preset cpu to cpu-low-mem"]


def test_a_wheel_can_be_had_without_installing(engine_env: Environment, tmp_path: Path) -> None:
    done = engine_env.tool("wheel", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [done.stdout.strip()] == [str(path) for path in tmp_path.glob("*.whl")]


def test_what_was_fetched_needs_no_network_again(engine_env: Environment) -> None:
    done = engine_env.tool("fetch", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip(), "include", "llama.h").is_file()


def test_without_cache_and_network_it_is_exit_6_and_nothing_stays(
    engine_env: Environment, tmp_path: Path
) -> None:
    cache = str(tmp_path / "c")
    done = engine_env.tool("fetch", PIP_NO_INDEX="1", PIP_FIND_LINKS="", FLOATLLM_CACHE_DIR=cache)
    assert done.returncode == 6
    assert "git clone" in done.stderr
    assert list((tmp_path / "c" / "ggml").iterdir()) == []


def test_a_cache_that_cannot_be_written_fails_the_build_with_a_number(
    engine_env: Environment, tmp_path: Path
) -> None:
    cache = tmp_path / "c"
    cache.mkdir()
    for name in ("ggml", "tools"):
        if (engine_env.cache / name).is_dir():
            (cache / name).symlink_to(engine_env.cache / name)
    (cache / "build").write_text("a file where the build folders should be")
    done = engine_env.tool("wheel", "--out", tmp_path, FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 4
    assert f"Building in {cache}/build/" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_was_deleted_comes_back(engine_env: Environment, other: Path) -> None:
    (other.parent / "floatllm").unlink()
    done = engine_env.tool("install", "--python", other)
    assert done.returncode == 0, done.stderr
    assert "is installed and proven" in done.stderr
    assert (other.parent / "floatllm").is_file()
