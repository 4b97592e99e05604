"""The package index's CUDA toolkit comes into the cache whole, once, and after its price was told.

With a toolkit of a few kilobytes and the real pip; the real one is fetched by what test_configure.py builds
with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_toolkit import NVCC, PACKAGES, make_index, make_wheel, planned_in

from floatllm_build import flow
from floatllm_build.cuda_toolkit import fetch_toolkit, home_of, runtime_wheels
from floatllm_build.errors import MissingError
from floatllm_build.events import Event, Hint, Said
from floatllm_build.system import LiveSystem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the index's toolkit is for Linux"),
]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in make_index(tmp_path / "index").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "index"


def fetch(cache: Path, heard: list[Event] | None = None, *, download: int = 1) -> bool:
    cache.mkdir(exist_ok=True)
    said: list[Event] = [] if heard is None else heard
    return fetch_toolkit(LiveSystem(), planned_in(cache, download=download), cache, said.append)


def folders(cache: Path) -> list[str]:
    """What the cache holds of toolkits, half ones included."""
    return sorted(path.name for path in (cache / "cuda").iterdir())


def test_it_is_told_what_comes_before_it_comes(index: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    assert fetch(tmp_path / "cache", heard, download=619 << 10)
    assert isinstance(heard[0], Hint)
    assert "619 KiB to download" in heard[0].text
    assert "1.6 MiB in" in heard[0].text
    assert "floatllm-build clean" in heard[0].text
    assert all(isinstance(event, Said) for event in heard[1:])


def test_it_is_fetched_once_and_works_without_an_index_then(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    # What a tool that was killed has left.
    (cache / "cuda" / ".fetch-killed" / "toolkit").mkdir(parents=True)
    assert fetch(cache)
    toolkit = planned_in(cache)
    assert folders(cache) == [home_of(toolkit).name]
    assert LiveSystem().run((toolkit.nvcc, "--version")).out.startswith("Cuda compilation tools")
    kept = sorted(path.name.partition("-")[0] for path in runtime_wheels(toolkit).iterdir())
    assert kept == ["nvidia_cublas", "nvidia_cuda_nvrtc", "nvidia_cuda_runtime"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    heard: list[Event] = []
    assert not fetch(cache, heard)
    assert heard == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2] ^= 1
    path.write_bytes(content)


def test_where_nothing_is_compiled_only_its_wheels_are_read(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert fetch(cache)
    toolkit = planned_in(cache)

    def fetch_to_run() -> bool:
        return fetch_toolkit(LiveSystem(), toolkit, cache, lambda _: None, compiles=False)

    flip(home_of(toolkit) / "toolkit" / "nvidia" / "cu13" / "lib" / "libcublas.so.13")
    assert not fetch_to_run()
    flip(next(runtime_wheels(toolkit).glob("nvidia_cublas*")))
    assert fetch_to_run()


@pytest.mark.parametrize(
    "damage",
    [
        *("gone", "bit", "wheel cut"),
        *(pytest.param(one, marks=pytest.mark.ci) for one in ("cut", "wheel gone", "wheel bit")),
    ],
)
def test_one_that_was_damaged_is_fetched_again(index: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    assert fetch(cache)
    toolkit = planned_in(cache)
    library = home_of(toolkit) / "toolkit" / "nvidia" / "cu13" / "lib" / "libcublas.so.13"
    victim = next(runtime_wheels(toolkit).glob("nvidia_cublas*")) if "wheel" in damage else library
    if "gone" in damage:
        victim.unlink()
    elif "bit" in damage:
        flip(victim)
    else:
        victim.write_bytes(victim.read_bytes()[:3])
    assert fetch(cache)
    assert library.read_text() == "blas"
    assert not fetch(cache)


@pytest.mark.parametrize("fault", ["missing", "half"])
def test_what_cannot_be_had_whole_is_not_kept(index: Path, tmp_path: Path, fault: str) -> None:
    cache = tmp_path / "cache"
    wheel = next(index.glob("nvidia_cublas*"))
    whole = wheel.read_bytes()
    if fault == "missing":
        wheel.unlink()
    else:
        wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MissingError, match="could not be fetched") as caught:
        fetch(cache)
    assert "cuda-toolkit[" in str(caught.value)
    assert "CUDACXX" in str(caught.value)
    assert folders(cache) == []
    wheel.write_bytes(whole)
    assert fetch(cache)


def test_a_compiler_that_cannot_be_run_is_not_kept(index: Path, tmp_path: Path) -> None:
    broken = NVCC + "raise SystemExit('it is broken')\n"
    version = PACKAGES["nvidia_cuda_nvcc"]
    make_wheel(index, "nvidia_cuda_nvcc", version, {"nvidia/cu13/bin/nvcc": broken})
    with pytest.raises(MissingError, match="it is broken"):
        fetch(tmp_path / "cache")
    assert folders(tmp_path / "cache") == []


def test_where_there_is_no_room_nothing_is_downloaded(index: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="FLOATLLM_CACHE_DIR") as caught:
        fetch(tmp_path / "cache", download=1 << 60)
    assert "are free" in str(caught.value)
    assert folders(tmp_path / "cache") == []


def test_clean_deletes_it(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(tmp_path / "cache")
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "cache"))
    flow.clean(lambda _: None)
    assert not (tmp_path / "cache" / "cuda").exists()
