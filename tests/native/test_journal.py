"""The results of a batch on disk, torn and cut in every way that a kill or a power cut can leave them."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from floatllm import UsageError, locks
from floatllm.atomic import AtomicFile
from floatllm.journal import Journal, recorded, sidecar


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


_NO_PROGRESS = r"out\.progress is not the progress of a batch by this version: move it away\."


@pytest.mark.parametrize(
    "content",
    [
        b"mine\n",
        b"{}\n",
        b'{"schema_version": 99}\n',
        b'{"schema_version": [1]}\n',
        b"mine",
        b"[" * 100_000,
        b"[" * 100_000 + b"\n",
        b'{"schema_version": 1, "x": ' + b"[" * 6000 + b"]" * 6000 + b"}\n",
        b'{"schema_version": 1, "x": "' + b"y" * 100_000,
        b'{"schema_version": 1, "kv": {"a": 1}}\n',
        b'{"schema_version": 1, "kv": null}\n',
        b'{"schema_version": 1, "device": ["CPU"]}\n',
        b'{"schema_version": 1, "ctx": "5"}\n',
        b'{"schema_version": 1, "ctx": true}\n',
        b'{"schema_version": 1, "ctx": 5e300}\n',
        b'{"schema_version": 1, "ctx": ' + b"9" * 5000 + b"}\n",
        b'{"schema_version": 1, "ctx": NaN}\n',
        b'{"schema_version": 1, "ctx": 5, "ctx": 5}\n',
        b'{"schema_version": 1, "model": "\xff"}\n',
        b"\x00" * 100_000,
        b"\x89PNG\r\n\x1a\n\x00\xff\n",
    ],
    ids=range(21),
)
def test_a_file_that_is_no_sidecar_is_left_alone(tmp_path: Path, content: bytes) -> None:
    out = str(tmp_path / "out")
    sidecar(out).write_bytes(content)
    with pytest.raises(UsageError, match=_NO_PROGRESS):
        recorded(out)
    with pytest.raises(UsageError, match=_NO_PROGRESS):
        Journal(out, {"ctx": 5}, 3)
    assert sidecar(out).read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_what_is_no_ordinary_file_is_no_sidecar(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    # As a sidecar that a kill left empty: it would be written to.
    victim.write_bytes(b"")
    out = str(tmp_path / "out")
    plants: list[Callable[[Path], object]] = [
        lambda path: path.symlink_to(victim),
        lambda path: path.symlink_to(tmp_path / "nowhere"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
        Path.mkdir,
    ]
    for plant in plants:
        plant(sidecar(out))
        for opened in (lambda: recorded(out), lambda: Journal(out, {"ctx": 5}, 3)):
            with pytest.raises(UsageError, match=_NO_PROGRESS):
                opened()
        (Path.rmdir if plant is Path.mkdir else Path.unlink)(sidecar(out))
    sidecar(out).hardlink_to(victim)
    with pytest.raises(UsageError, match="has another name"):
        Journal(out, {"ctx": 5}, 3)
    assert victim.read_bytes() == b""
    assert not (tmp_path / "nowhere").exists()


def test_a_row_that_is_none_is_computed_again(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    good = b'{"row": 0, "result": {"id": 0}}\n'
    for torn in (
        b'{"row": 1}\n',
        b'{"row": 1, "result": []}\n',
        b'{"row": 1, "result": ' + b"[" * 100_000 + b"\n",
        b'{"row": true, "result": {}}\n',
        b'{"row": 9, "result": {}}\n',
        b'{"row": 1, "result": {"id": 1}, "result": {"id": 2}}\n',
        b"\xff\x00\n",
        b"7\n",
    ):
        sidecar(out).write_bytes(b'{"schema_version": 1, "ctx": 5}\n' + good + torn)
        journal = Journal(out, {"ctx": 5}, 2)
        assert (journal.done, 0 in journal, 1 in journal) == (1, True, False)
        journal.add(1, {"id": 1})
        journal.finish()
        assert (tmp_path / "out").read_bytes() == b'{"id": 0}\n{"id": 1}\n'
        (tmp_path / "out").unlink()


def test_a_line_without_end_is_not_read(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    sidecar(out).write_bytes(b'{"schema_version": 1, "ctx": 5}\n')
    # It holds no blocks, and would take all memory.
    os.truncate(sidecar(out), 1 << 40)
    with pytest.raises(UsageError, match=_NO_PROGRESS):
        Journal(out, {"ctx": 5}, 2)
    assert sidecar(out).stat().st_size == 1 << 40


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone gives files away")
def test_another_users_progress_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "out")
    Journal(out, {"ctx": 5}, 2).close()
    os.chown(sidecar(out), 65534, 65534)
    before = sidecar(out).read_bytes()
    for opened in (lambda: recorded(out), lambda: Journal(out, {"ctx": 5}, 2)):
        with pytest.raises(UsageError, match="another user's"):
            opened()
    assert sidecar(out).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out.progress"]
    # Where all files have one owner, that tells nothing.
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda file: os.stat_result((*real(file)[:4], 65534, *real(file)[5:])))
    assert recorded(out) == {"schema_version": 1, "ctx": 5}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_nothing_is_written_through_what_others_put_there(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = str(tmp_path / "out")
    Path(out + ".part").symlink_to(victim)
    journal = Journal(out, {"ctx": 5}, 1)
    assert stat.S_IMODE(sidecar(out).stat().st_mode) == 0o600
    journal.add(0, {"id": 0})
    # Put there while the batch ran.
    Path(out).symlink_to(victim)
    journal.finish()
    assert victim.read_text() == "mine"
    assert not Path(out).is_symlink()
    assert Path(out).read_text() == '{"id": 0}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.part", "victim"]
    # A link that leads nowhere is a name that is taken, too.
    Path(out).unlink()
    Path(out).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is there already"):
        Journal(out, {"ctx": 5}, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_file_is_its_owners_alone_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = os.umask(0o027)
    try:
        for mode, expected in ((None, 0o640), (0o604, 0o604)):
            if mode is not None:
                path.chmod(mode)
            file = AtomicFile(str(path))
            file.write("text")
            (part,) = set(tmp_path.iterdir()) - {path}
            assert re.fullmatch(r"\.floatllm-[0-9a-f]{16}\.part", part.name)
            assert stat.S_IMODE(part.stat().st_mode) == 0o600
            file.keep()
            assert stat.S_IMODE(path.stat().st_mode) == expected
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


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
