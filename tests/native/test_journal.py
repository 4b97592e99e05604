"""The results of a batch on disk, torn and cut in every way that a kill or a power cut can leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from floatllm import UsageError
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
