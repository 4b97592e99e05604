"""The results of a batch on disk, torn and cut in every way that a kill or a power cut can leave them."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from floatllm import UsageError, locks
from floatllm.journal import Journal, sidecar


def test_a_kill_before_the_sidecar_is_gone_leaves_nothing_to_compute(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    journal = Journal(out, {"ctx": 5}, 2)
    journal.add(1, {"id": "\ud800"})
    journal.add(0, {"id": "é"})
    journal.sync()
    progress = sidecar(out).read_bytes()
    journal.finish()
    assert (tmp_path / "out").read_bytes() == '{"id": "é"}\n{"id": "\\ud800"}\n'.encode()
    sidecar(out).write_bytes(progress)
    journal = Journal(out, {"ctx": 5}, 2)
    assert journal.done == 2
    journal.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    sidecar(out).write_bytes(progress[: progress.rfind(b"\n", 0, -1) + 1])
    with pytest.raises(UsageError, match="remove one of them"):
        Journal(out, {"ctx": 5}, 2)


def test_every_torn_sidecar_is_gone_on_from(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    journal = Journal(out, {"ctx": 5}, 3)
    for row in (2, 0):
        journal.add(row, {"id": row, "text": "line\nline"})
    journal.close()
    whole = sidecar(out).read_bytes()
    for end in range(len(whole)):
        sidecar(out).write_bytes(whole[:end])
        journal = Journal(out, {"ctx": 5}, 3)
        kept = max(0, whole[:end].count(b"\n") - 1)
        assert journal.done == kept
        # What is added behind a torn line is found again.
        journal.add(1, {"id": 1, "text": ""})
        journal.close()
        journal = Journal(out, {"ctx": 5}, 3)
        assert journal.done == kept + 1
        for row in range(3):
            if row not in journal:
                journal.add(row, {"id": row, "text": "line\nline"})
        journal.finish()
        lines = (tmp_path / "out").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == [0, 1, 2]
        (tmp_path / "out").unlink()


@pytest.mark.parametrize("content", [b"mine\n", b"{}\n", b'{"schema_version": 99}\n', b"mine"])
def test_a_file_that_is_no_sidecar_is_left_alone(tmp_path: Path, content: bytes) -> None:
    out = str(tmp_path / "out")
    sidecar(out).write_bytes(content)
    with pytest.raises(UsageError, match="move it away"):
        Journal(out, {"ctx": 5}, 3)
    assert sidecar(out).read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locks")
def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        assert locks.take(first)
        assert not locks.take(second)
        os.close(first)
        assert locks.take(second)
        # A file system without locks keeps nobody from working; one that fails does.
        for number, taken in ((errno.ENOLCK, True), (errno.EIO, False)):

            def fail(_file: int, _how: int, number: int = number) -> None:
                raise OSError(number, "no")

            monkeypatch.setattr("fcntl.flock", fail)
            if taken:
                assert locks.take(second)
            else:
                with pytest.raises(OSError, match="no"):
                    locks.take(second)
    finally:
        os.close(second)


def test_windows_locks_a_byte_that_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[int] = set()

    def locking(file: int, how: int, count: int) -> None:
        place = os.lseek(file, 0, os.SEEK_CUR)
        assert (how, count) == (2, 1)
        if place in taken:
            raise PermissionError(errno.EACCES, "locked")
        taken.add(place)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    spec = importlib.util.spec_from_file_location("windows_locks", locks.__file__)
    assert spec is not None
    assert spec.loader is not None
    windows = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(windows)
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"header")
        assert windows.take(file.fileno())
        assert not windows.take(file.fileno())
        # Written is where it would have been.
        assert file.tell() == len(b"header")
        assert taken == {2**31 - 2}
