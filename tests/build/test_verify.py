"""The proof is one of the engine's own library, whatever the environment says."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from tool_environment import ROOT, Environment

from floatllm_build.errors import NotProvenError
from floatllm_build.events import Event, Said
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
    assert heard == [Said("PYTHONPATH")]


def test_a_proof_of_what_is_installed_leaves_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "c"))
    with pytest.raises(NotProvenError, match="The installed engine is not proven") as caught:
        prove_installed(sys.executable, "NONE0", lambda _: None)
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
