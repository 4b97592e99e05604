"""Bad luck, for real: no network, a full disk, no right to write, two at once, a clock that was set back.

Each time: a message that says what happened and what to do, the former engine untouched, and an install that
goes on once luck is back.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from mounts import mounted, remount
from running import Place, make_place, quick_compilers, working_in

from floatllm_build.files import in_the_future

pytestmark = [
    pytest.mark.ci,
    pytest.mark.build,
    pytest.mark.mount,
    pytest.mark.skipif(sys.platform != "linux", reason="mounts, and looks at /proc"),
]

MIB = 1 << 20


def install_works(place: Place, **more: str) -> str:
    done = place.install(**more)
    assert done.returncode == 0, done.stderr
    assert place.is_whole()
    assert place.works()
    return done.stderr


def refused(done: subprocess.CompletedProcess[str], *status: int) -> str:
    assert done.returncode in status, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


# ---- the network ------------------------------------------------------------------------------


class _HalfAnIndex(http.server.BaseHTTPRequestHandler):
    """Lists one file of each package, and ends in the middle of it."""

    names: ClassVar[dict[str, str]] = {
        "xllamacpp": "xllamacpp-2026.10.11549.tar.gz",
        "cmake": "cmake-4.0.0-py3-none-any.whl",
        "ninja": "ninja-1.13.0-py3-none-any.whl",
    }
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.names.get(self.path.strip("/").split("/")[-1])
        self.send_response(200)
        if name:
            page = f'<a href="/files/{name}">{name}</a>'.encode()
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        else:
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(4 * MIB))
            self.end_headers()
            self.wfile.write(b"x" * (2 * MIB))
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def half_an_index() -> Iterator[dict[str, str]]:
    """Settings of pip that lead to it and nowhere else."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _HalfAnIndex)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    _HalfAnIndex.asked.clear()
    yield only_index(f"http://127.0.0.1:{server.server_port}/simple")
    server.shutdown()
    thread.join()
    server.server_close()


def only_index(url: str) -> dict[str, str]:
    nothing = {"PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    return {**nothing, "PIP_INDEX_URL": url, "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1", "NO_PROXY": "*"}


def test_half_a_ggml_is_never_used(place: Place, half_an_index: dict[str, str]) -> None:
    place.delete("ggml")
    former = place.engine()
    said = refused(place.install(**half_an_index), 6)
    assert any(path.endswith(".tar.gz") for path in _HalfAnIndex.asked), _HalfAnIndex.asked
    assert "could not be fetched" in said
    assert "Fix this and run the command again" in said
    assert "git clone" in said
    assert list((place.cache / "ggml").iterdir()) == []
    assert place.engine() == former
    assert "fetched and verified" in install_works(place)


def test_no_index_at_all(place: Place) -> None:
    place.delete("ggml")
    said = refused(place.install(**only_index("http://127.0.0.1:9/simple")), 6)
    assert "there is no network" in said
    assert "Check the connection" in said
    install_works(place)


@pytest.mark.parametrize("name", ["cmake", "ninja"])
def test_half_a_wheel_of_a_tool_is_never_used(place: Place, half_an_index: dict[str, str], name: str) -> None:
    shutil.rmtree(place.cache / "tools" / name)
    said = refused(place.install(**half_an_index), 3)
    assert any(path.endswith(".whl") for path in _HalfAnIndex.asked), _HalfAnIndex.asked
    assert f"{name} " in said
    assert f"pkg install {name}" in said
    assert not (place.cache / "tools" / name).exists()
    assert list((place.cache / "tools").glob(".*")) == []
    install_works(place)


def test_a_cached_ggml_that_was_damaged_is_fetched_again(place: Place) -> None:
    tree = next((place.cache / "ggml").iterdir())
    (tree / "src" / "ggml.c").write_text("half")
    assert "fetched and verified" in install_works(place)


def test_a_kept_wheel_in_which_a_bit_flipped_is_packed_and_proven_again(place: Place) -> None:
    install_works(place)
    (kept,) = (path for path in place.cache.glob("wheels/*/*.whl") if path.stat().st_mtime == newest(place))
    whole = kept.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    kept.write_bytes(changed)
    place.spoil()
    said = install_works(place)
    assert "operations agree" in said
    assert "reusing" not in said
    assert kept.read_bytes() == whole
    assert "nothing changed; reusing" in install_works(place)


def newest(place: Place) -> float:
    return max(path.stat().st_mtime for path in place.cache.glob("wheels/*/*.whl"))


# ---- the disk ---------------------------------------------------------------------------------


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def stage_of(said: str) -> str:
    """The last step that had ended."""
    steps = [
        line.split(" ")[0]
        for line in said.splitlines()
        if re.match(r"(plan|ggml|build|package|verify) ", line)
    ]
    return steps[-1] if steps else ""


def install_on_a_shrinking_disk(place: Place, cache: Path, size: int) -> tuple[int, str]:
    """An install that finds room when it looks for it, and loses it once it compiles."""
    remount(cache, "size=1g")
    with place.started(FLOATLLM_CACHE_DIR=str(cache)) as run:
        if run.wait_for("build  "):
            # It may have taken more by now: then there is nothing to lose.
            with contextlib.suppress(subprocess.CalledProcessError):
                remount(cache, f"size={size}")
        status = run.wait()
        run.wait_for_all()
        return status, run.said


def test_a_disk_that_is_too_small_is_told_before_compiling(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    former = place.engine()
    place.change("small")
    with mounted(cache, "-t", "tmpfs", "-o", "size=1m"):
        for name in ("ggml", "tools"):
            (cache / name).symlink_to(place.cache / name)
        remount(cache, "size=8m")
        said = refused(place.install(FLOATLLM_CACHE_DIR=str(cache)), 3)
        assert "room on the disk is missing" in said
        assert f"in {cache}, where 8.0 MiB are free" in said
        assert "FLOATLLM_CACHE_DIR" in said
        assert not (cache / "build").exists()
    assert place.engine() == former


def test_a_full_disk_at_every_step(place: Place, tmp_path: Path) -> None:
    """A cache on a disk that has a little more room each time, until it is enough."""
    cache = tmp_path / "cache"
    former = place.engine()
    ggml, build = size_of(place.cache / "ggml"), size_of(place.cache / "build")
    seen: dict[str, str] = {}
    status, size = 1, 0

    def check(status: int, said: str) -> None:
        assert status in {3, 4, 6}, said
        assert "Traceback" not in said
        message = said[said.rindex("floatllm-build: ") :]
        seen.setdefault(stage_of(said), message)
        assert re.search("space|full", message), said
        assert "FLOATLLM_CACHE_DIR" in message, said
        assert place.engine() == former

    with mounted(cache, "-t", "tmpfs", "-o", "size=1m"):
        (cache / "tools").symlink_to(place.cache / "tools")
        place.change("full")
        # In the download and in unpacking; an empty cache would be looked at before.
        (cache / "costs").mkdir()
        (cache / "costs" / "old.json").write_text("{}")
        for size in (MIB, ggml // 2):
            remount(cache, f"size={size}")
            done = place.install(FLOATLLM_CACHE_DIR=str(cache))
            check(done.returncode, done.stderr)
        # In configuring, in compiling, in linking, and then step by step.
        sizes = [ggml + int(build * part) for part in (0.35, 0.6, 0.8, 0.9)]
        for size in [*sizes, *(ggml + build + extra * MIB for extra in range(40))]:
            status, said = install_on_a_shrinking_disk(place, cache, size)
            if status == 0:
                break
            check(status, said)
        assert status == 0, seen
        # In fetching, in compiling or linking, and in what comes after.
        sys.stdout.write(f"{sorted(seen)}, enough: {size >> 20} MiB\n")
        assert {"plan", "build"} <= set(seen)
        assert place.is_whole()
        assert place.works()
    assert place.round_of_engine() == "round full"


# ---- no right to write ------------------------------------------------------------------------


def test_a_cache_that_is_read_only(place: Place, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with mounted(cache, "-t", "tmpfs", "-o", "ro"):
        said = refused(place.install(FLOATLLM_CACHE_DIR=str(cache)), 3)
    assert "Read-only file system" in said
    assert str(cache) in said
    assert "FLOATLLM_CACHE_DIR" in said


@pytest.mark.parametrize(("name", "status"), [("build", 4), ("wheels", 4), ("proofs", 4)])
def test_a_folder_of_the_cache_that_is_read_only(place: Place, name: str, status: int) -> None:
    place.change(f"read only {name}")
    former = place.engine()
    with mounted(place.cache / name, "-t", "tmpfs", "-o", "ro"):
        said = refused(place.install(), status)
    assert "Read-only file system" in said
    assert str(place.cache / name) in said
    assert "build.log" in said
    assert place.engine() == former
    assert place.works()
    install_works(place)
    assert place.round_of_engine() == f"round read only {name}"


def test_a_target_that_is_read_only(place: Place) -> None:
    place.change("read only target")
    former = place.engine()
    with mounted(place.site, "--bind", of=str(place.site)):
        remount(place.site, "bind,ro")
        said = refused(place.install(), 3)
    assert f"Nothing can be written to {place.site}: Read-only file system" in said
    assert "--python" in said
    assert "units in" not in said, "that is known before anything is compiled"
    assert place.engine() == former
    assert place.works()
    install_works(place)


def test_a_target_whose_disk_is_full(place: Place, tmp_path: Path) -> None:
    """The former engine is there, and the new one does not fit beside it."""
    folder = tmp_path / "small"
    with mounted(folder, "-t", "tmpfs", "-o", "size=64m"):
        small = make_place(place.env, folder)
        small.variables.update({**place.variables, "PIP_NO_COMPILE": "1"})
        install_works(small)
        former = small.engine()
        small.change("full target")
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        said = refused(small.install(), 4)
        assert "No space left on device" in said
        assert "Nothing there was changed. Free space there" in said
        assert small.engine() == former
        assert small.works()
        filler.unlink()
        install_works(small)
        assert small.round_of_engine() == "round full target"


# ---- others -----------------------------------------------------------------------------------


def test_two_at_once(place: Place, tmp_path: Path) -> None:
    place.change("two")
    with place.started() as first:
        assert first.wait_for("plan ")
        second = place.install()
        assert first.wait() == 0, first.said
    assert second.returncode == 0, second.stderr
    assert "Another floatllm-build is at work" in second.stderr
    assert "units in" in first.said
    assert "nothing changed; reusing" in second.stderr
    assert "nothing to do" in second.stderr
    assert place.is_whole()
    assert place.works()


def test_a_tool_that_was_killed_takes_its_build_with_it(place: Place) -> None:
    """Else compilers would go on with nobody looking after the memory, and the next install would wait."""
    place.delete("objects")
    place.change("orphans")
    with place.started() as run:
        assert run.wait_for("ggml ")
        while not {"cc1", "cc1plus"} & set(run.tree().values()):
            assert run.sleep(0.02), run.said
        run.child.kill()
        run.wait()
        run.wait_for_all()
        assert not [name for name in working_in(place.cache).values() if name in {"ninja", "cc1", "cc1plus"}]
        said = install_works(place)
    assert "units in" in said
    assert place.round_of_engine() == "round orphans"


def test_a_clock_that_was_set_back(place: Place) -> None:
    """All that is there comes from an hour that is still to come: ninja alone would not see a change."""
    install_works(place)
    hour = time.time() + 3600
    for name in ("build", "ggml", "tools"):
        for path in (place.cache / name).rglob("*"):
            if path.is_file():
                os.utime(path, (hour, hour))
    source = place.env.data / "native/src/arch.cpp"
    text = source.read_text()
    try:
        source.write_text(f"{text}\nnonsense;\n")
        said = refused(place.install(), 4)
        assert "nonsense" in said
        assert "The clock was set back" in said
    finally:
        source.write_text(text)
    place.change("clock")
    install_works(place)
    assert place.round_of_engine() == "round clock"
    for name in ("build", "ggml", "tools"):
        assert in_the_future(place.cache / name) == []


def test_a_check_of_cmake_that_was_killed_is_no_answer(place: Place, tmp_path: Path) -> None:
    """Else a machine would lack for good what it has."""
    programs = tmp_path / "bin"
    variables = quick_compilers(tmp_path)
    killed = tmp_path / "killed"
    # Dies as one does that the system ends: once, in the check for the C library's threads.
    (programs / "cc").write_text(
        f'#!/bin/sh\ncase "$*" in *CMAKE_HAVE_LIBC_PTHREAD*)\n'
        f'  [ -e {killed} ] || {{ : > {killed}; kill -9 $$; }};; esac\nexec gcc "$@" -O0 -g0\n'
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("ggml", "tools"):
        (cache / name).symlink_to(place.cache / name)
    done = place.install(**variables, FLOATLLM_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    assert killed.exists(), "no such check was made"
    found = next(cache.glob("build/*/out/CMakeCache.txt")).read_text()
    assert re.search(r"^CMAKE_HAVE_LIBC_PTHREAD:INTERNAL=1$", found, re.MULTILINE)
    assert json.loads((place.site / "floatllm" / "manifest.json").read_text())["preset"] == "cpu"
