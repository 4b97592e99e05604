"""The proof is one of the engine's own library, whatever the environment says."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tool_environment import ROOT, Environment
from typer.testing import CliRunner

from floatllm_build.cli import app
from floatllm_build.errors import MissingError, NotProvenError
from floatllm_build.events import Event, Proving
from floatllm_build.verify import prove_installed, prove_wheel

LIBRARY = {"win32": "floatllm.dll", "darwin": "libfloatllm.dylib"}.get(sys.platform, "libfloatllm.so")


def garbage_wheel(folder: Path) -> Path:
    """The engine's own Python face beside a library that is none."""
    wheel = folder / "floatllm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (ROOT / "native" / "floatllm").rglob("*.py"):
            archive.write(path, path.relative_to(ROOT / "native").as_posix())
        archive.writestr(f"floatllm/{LIBRARY}", "garbage")
    return wheel


def test_a_library_named_in_the_environment_is_not_the_one_that_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.so"
    other.write_text("garbage too")
    monkeypatch.setenv("FLOATLLM_LIBRARY", str(other))
    with pytest.raises(NotProvenError, match="Nothing was installed") as caught:
        prove_wheel(garbage_wheel(tmp_path), sys.executable, "CPU", tmp_path / "c", lambda _: None)
    message = str(caught.value)
    assert f"floatllm/{LIBRARY}" in message
    assert str(other) not in message
    assert (tmp_path / "c" / "proofs" / "last.log").is_file()


def test_what_else_would_steer_the_engine_does_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A self-test of ours that says what it can see, in the place of the installed one."""
    seen = (
        "import os\nprint(*sorted(n for n in os.environ if n.startswith(('FLOAT', 'GGML', 'PYTHONPATH'))))\n"
    )
    (tmp_path / "floatllm").mkdir()
    (tmp_path / "floatllm" / "__init__.py").touch()
    (tmp_path / "floatllm" / "selftest.py").write_text(seen)
    wheel = tmp_path / "floatllm.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (tmp_path / "floatllm").iterdir():
            archive.write(path, f"floatllm/{path.name}")
    for name in ("FLOATLLM_LIBRARY", "FLOATLLM_ANYTHING", "GGML_BACKEND_PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    heard: list[Event] = []
    with pytest.raises(NotProvenError):
        prove_wheel(wheel, sys.executable, "CPU", tmp_path / "c", heard.append)
    assert heard == [Proving("PYTHONPATH")]


def reporting_wheel(folder: Path, selftest: str) -> Path:
    """A wheel whose self-test is these lines; `report` is the path that it has to write to."""
    wheel = folder / "floatllm.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("floatllm/__init__.py", "")
        archive.writestr("floatllm/selftest.py", f"import json, sys\nreport = sys.argv[4]\n{selftest}")
    return wheel


def test_what_the_device_said_is_passed_on_and_nothing_is_kept(tmp_path: Path) -> None:
    """As where another program has all of its memory."""
    reason = "The device CUDA0 has 12 MiB free, and 64 MiB are needed"
    said = {"ok": False, "device": "CUDA0", "reason": reason}
    wheel = reporting_wheel(tmp_path, f"json.dump({said!r}, open(report, 'w'))\nsys.exit(5)\n")
    with pytest.raises(NotProvenError, match=reason) as caught:
        prove_wheel(wheel, sys.executable, "CUDA0", tmp_path / "c", lambda _: None)
    assert caught.value.exit_code == 5
    assert "what was installed before is untouched" in str(caught.value)
    assert [path.name for path in (tmp_path / "c" / "proofs").iterdir()] == ["last.log"]


def test_what_a_killed_self_test_leaves_goes_with_its_scratch_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a Ctrl-C while the device computes: it does not end by itself in time."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wheel = reporting_wheel(
        tmp_path,
        "import os, signal, tempfile\n"
        "folder = tempfile.mkdtemp(prefix='floatllm-')\n"
        "open(f'{folder}/selftest.gguf', 'w').close()\n"
        "print(folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    heard: list[Event] = []
    with pytest.raises(NotProvenError, match="signal 9"):
        prove_wheel(wheel, sys.executable, "CPU", tmp_path / "c", heard.append)
    (folder,) = (Path(event.line) for event in heard if isinstance(event, Proving))
    assert folder.is_relative_to(tmp_path / "c" / "proofs")
    assert not folder.exists()


@pytest.mark.parametrize("reason", ["The device has no memory", "The device has no memory."])
def test_a_reason_ends_with_one_full_stop(tmp_path: Path, reason: str) -> None:
    said = {"ok": False, "device": "CPU", "reason": reason}
    wheel = reporting_wheel(tmp_path, f"json.dump({said!r}, open(report, 'w'))\nsys.exit(5)\n")
    with pytest.raises(NotProvenError, match=r"no memory\.\s") as caught:
        prove_wheel(wheel, sys.executable, "CPU", tmp_path / "c", lambda _: None)
    assert ".." not in str(caught.value).partition("\n")[0]


def test_the_proof_sees_the_gpu_that_this_shell_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
    body = "import os\nhidden = [n for n in os.environ if 'VISIBLE_DEVICES' in n]\n"
    body += "json.dump({'ok': not hidden, 'device': 'CUDA0', 'reason': str(hidden)}, open(report, 'w'))\n"
    wheel = reporting_wheel(tmp_path, body)
    assert prove_wheel(wheel, sys.executable, "CUDA0", tmp_path / "c", lambda _: None).device == "CUDA0"


def test_a_plugin_is_proven_beside_the_engine_that_it_is_for(tmp_path: Path) -> None:
    """Found as an installed one is: by its entry point."""
    body = (
        "from importlib.metadata import entry_points\n"
        "(plugin,) = entry_points(group='floatllm.backends', name='made-up')\n"
        "json.dump({'ok': plugin.load().here, 'device': 'CPU'}, open(report, 'w'))\n"
    )
    base = reporting_wheel(tmp_path, body)
    says_of_plugins(base, {"loaded": True, "reason": ""})
    plugin = tmp_path / "floatllm_made_up.whl"
    with zipfile.ZipFile(plugin, "w") as archive:
        archive.writestr("floatllm_made_up/__init__.py", "here = True\n")
        info = "floatllm_made_up-0.1.0.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: floatllm-made-up\nVersion: 0.1.0\n"
        )
        archive.writestr(f"{info}/entry_points.txt", "[floatllm.backends]\nmade-up = floatllm_made_up\n")
    cache = tmp_path / "c"
    assert prove_wheel(plugin, sys.executable, "CPU", cache, lambda _: None, base=base).device == "CPU"
    with pytest.raises(NotProvenError):
        prove_wheel(base, sys.executable, "CPU", cache, lambda _: None)


def says_of_plugins(base: Path, *plugins: dict[str, object]) -> None:
    """Gives an engine's wheel a `floatllm devices --json` that says this."""
    with zipfile.ZipFile(base, "a") as archive:
        archive.writestr("floatllm/__main__.py", f"print({json.dumps({'plugins': plugins})!r})\n")


@pytest.mark.parametrize(
    ("reason", "good"),
    [
        (
            "NVIDIA's driver is not installed (libcuda.so.1: cannot open shared object file: No such file)",
            True,
        ),
        ("ggml_vulkan: no device", True),
        ("libggml-cuda.so: undefined symbol: _ZTV1x", False),
        ("libcudart.so.13: cannot open shared object file: No such file or directory", False),
        ("its manifest is missing or damaged; install it again", False),
    ],
)
def test_a_plugin_may_lack_its_driver_and_nothing_else(tmp_path: Path, reason: str, good: bool) -> None:
    base = reporting_wheel(tmp_path, "json.dump({'ok': True, 'device': 'CPU'}, open(report, 'w'))\n")
    says_of_plugins(base, {"loaded": False, "reason": reason})
    plugin = tmp_path / "plugin.whl"
    zipfile.ZipFile(plugin, "w").close()
    if good:
        prove_wheel(plugin, sys.executable, "CPU", tmp_path / "c", lambda _: None, base=base)
        return
    with pytest.raises(NotProvenError, match="does not take the plugin"):
        prove_wheel(plugin, sys.executable, "CPU", tmp_path / "c", lambda _: None, base=base)


@pytest.mark.skipif(sys.platform == "win32", reason="packages bring CUDA's libraries on Linux alone")
def test_packages_that_lie_beside_the_engine_lie_beside_it_in_its_proof(tmp_path: Path) -> None:
    libraries = tmp_path / "site" / "nvidia"
    (libraries / "cu13" / "lib").mkdir(parents=True)
    (libraries / "cu13" / "lib" / "libcudart.so.13").write_text("here")
    body = (
        "import pathlib\n"
        "found = pathlib.Path(__file__).parent / '../nvidia/cu13/lib/libcudart.so.13'\n"
        "json.dump({'ok': found.read_text() == 'here', 'device': 'CUDA0'}, open(report, 'w'))\n"
    )
    wheel = reporting_wheel(tmp_path, body)
    prove_wheel(wheel, sys.executable, "CUDA0", tmp_path / "c", lambda _: None, (), {"nvidia": libraries})
    # What a toolkit of the system has is shown where a package would put it.
    lib = {"nvidia/cu13/lib": libraries / "cu13" / "lib"}
    prove_wheel(wheel, sys.executable, "CUDA0", tmp_path / "c", lambda _: None, (), lib)
    assert (libraries / "cu13" / "lib" / "libcudart.so.13").is_file()
    with pytest.raises(NotProvenError):
        prove_wheel(wheel, sys.executable, "CUDA0", tmp_path / "c", lambda _: None)


@pytest.mark.build
def test_a_gpu_that_is_gone_by_now_is_not_proven(engine_env: Environment, tmp_path: Path) -> None:
    wheel = next((engine_env.cache / "wheels").glob("*/*.whl"))
    with pytest.raises(
        NotProvenError, match="There is no device CUDA0 here; this engine sees: CPU"
    ) as caught:
        prove_wheel(wheel, str(engine_env.python), "CUDA0", tmp_path / "c", lambda _: None)
    assert "Try another backend with --backend" in str(caught.value)


def test_a_proof_of_what_is_installed_leaves_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(NotProvenError, match="The installed engine is not proven") as caught:
        prove_installed(sys.executable, tmp_path, "NONE0", lambda _: None)
    log = Path(str(caught.value).split(" is in ")[-1])
    assert log.read_text()
    log.unlink()
    assert list(log.parent.glob("floatllm-verify-*.log")) == []
    assert not (tmp_path / "c").exists()


@pytest.mark.build
def test_a_good_library_elsewhere_proves_no_bad_wheel(
    engine_env: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = next(engine_env.prefix.glob(f"lib/python*/site-packages/floatllm/{LIBRARY}"))
    copy = shutil.copy2(good, tmp_path / LIBRARY)
    monkeypatch.setenv("FLOATLLM_LIBRARY", str(copy))
    with pytest.raises(NotProvenError, match="could not be loaded"):
        prove_wheel(garbage_wheel(tmp_path), sys.executable, "CPU", tmp_path / "c", lambda _: None)


@pytest.mark.build
def test_a_bad_library_elsewhere_spoils_no_proof(engine_env: Environment, tmp_path: Path) -> None:
    (tmp_path / "bad.so").write_text("garbage")
    done = engine_env.tool("verify", FLOATLLM_LIBRARY=str(tmp_path / "bad.so"))
    assert done.returncode == 0, done.stderr


# ---- more than one GPU ------------------------------------------------------------------------

# The engine's commands as far as the tool asks them, where two GPUs are: one of them computes wrongly.
_TWO_GPUS = """
import json, sys
seen = [("CPU", "cpu"), ("CUDA0", "gpu"), ("CUDA1", "gpu")]
if sys.argv[1] == "devices":
    print(json.dumps({"devices": [{"name": name, "kind": kind} for name, kind in seen]}))
"""
_SELF_TEST = """
import json, sys
device, report = sys.argv[sys.argv.index("--device") + 1], sys.argv[sys.argv.index("--report") + 1]
if device not in ("CPU", "CUDA0", "CUDA1"):
    sys.exit(3)
ok = device != "WRONG"
operations = [
    {"operation": "matmul", "agree": 7, "unsupported": ["iq1_m"], "type": "q4_K", "positions": 8,
     "nmse": 2e-5, "allowed": 5e-4},
]
found = {"ok": ok, "device": device, "agree": 7, "operations": operations}
found["reason"] = "" if ok else device + " computes matmul of q4_K wrongly"
json.dump(found, open(report, "w"))
sys.exit(0 if ok else 5)
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes an environment with such an engine, where the GPU of that name computes wrongly."""
    # For the logs of what is not proven.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def make(wrong: str) -> Path:
        venv.create(tmp_path / "venv", symlinks=True)
        site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
        package = site / "floatllm"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(_TWO_GPUS)
        (package / "selftest.py").write_text(_SELF_TEST.replace("WRONG", wrong))
        (package / "manifest.json").write_text('{"backends": ["cpu", "cuda"]}')
        info = site / "floatllm-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: floatllm\nVersion: 0.1.0\n")
        (info / "RECORD").touch()
        return tmp_path / "venv" / "bin" / "python"

    return make


def _verify(python: Path, *options: str) -> Any:  # typer brings its own click, or none
    return CliRunner().invoke(app, ["verify", "--python", str(python), *options])


def test_every_gpu_is_proven(two_gpus: Callable[[str], Path]) -> None:
    done = _verify(two_gpus("none"), "-v")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    computed = "the installed engine computed on {}, 7 operations agree"
    assert [line for line in lines if line.startswith("the")] == [
        computed.format(d) for d in ("CUDA0", "CUDA1")
    ]
    assert " ".join(lines[1].split()) == "matmul 7 2.0e-05 of 5.0e-04 q4_K not supported: iq1_m"


def test_a_device_that_is_not_there_is_missing_not_unproven(two_gpus: Callable[[str], Path]) -> None:
    done = _verify(two_gpus("none"), "--device", "CUDA7")
    assert isinstance(done.exception, MissingError)
    assert str(done.exception) == "The installed engine sees no device CUDA7. It sees CPU, CUDA0, CUDA1."


def test_another_gpu_that_fails_is_named(two_gpus: Callable[[str], Path]) -> None:
    python = two_gpus("CUDA1")
    done = _verify(python)
    assert done.exit_code == 0, done.output
    assert "computed on CUDA0, 7 operations agree" in done.stdout
    assert "1 kind of operation it does not support" in done.stdout
    assert "computed on CUDA1" not in done.stdout
    assert "CUDA1 computes matmul of q4_K wrongly" in done.stderr
    found = json.loads(_verify(python, "--json").stdout)
    assert [proof["device"] for proof in found["proofs"]] == ["CUDA0"]
    assert [other["device"] for other in found["unproven"]] == ["CUDA1"]


@pytest.mark.parametrize(("wrong", "options"), [("CUDA0", ()), ("CUDA1", ("--device", "CUDA1"))])
def test_the_device_that_is_meant_must_hold(
    two_gpus: Callable[[str], Path], wrong: str, options: tuple[str, ...]
) -> None:
    done = _verify(two_gpus(wrong), *options)
    assert isinstance(done.exception, NotProvenError)
    assert f"{wrong} computes matmul of q4_K wrongly" in str(done.exception)


def test_only_the_device_that_is_named_is_proven(two_gpus: Callable[[str], Path]) -> None:
    done = _verify(two_gpus("CUDA0"), "--device", "CUDA1")
    assert done.exit_code == 0, done.output
    assert "computed on CUDA1" in done.stdout
    assert "CUDA0" not in done.stdout
