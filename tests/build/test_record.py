"""Recorded hosts: what is refused and why, and that the threads of those who ask leave no trace."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floatllm_build.errors import UsageFaultError
from floatllm_build.record import LARGEST_RECORD, find_fault, load_record
from floatllm_build.recording import renumbered, united
from floatllm_build.system import Completed, LiveSystem, Recorder, Replay, keep_lines

DONE = '{"rc": 0, "out": "", "err": ""}'


def saved(folder: Path, content: str | bytes) -> Path:
    path = folder / "host.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cut short"),
        ("{", "cut short"),
        ('{"schema_version": 1, "files": {"/proc/cpuinfo": {"text": "proc', "cut short"),
        ("[]", "not an object"),
        ("7", "not an object"),
        ("{}", "no `schema_version`"),
        ('{"schema_version": 99}', "schema version 99; this floatllm-build reads 1. Take a newer"),
        ('{"schema_version": 0}', "`schema_version` is a number"),
        ('{"schema_version": true}', "`schema_version` is not a whole number"),
        ('{"schema_version": 1.0}', "1.0 is no whole number"),
        ('{"schema_version": "1"}', "`schema_version` is not a whole number"),
        ("[" * 100_000, "without end"),
        ('{"a":' * 100_000, "without end"),
        (b"\xff\xfe{\x00}\x00", "utf-8"),
        (b'{"schema_version": 1, "about": "\xff"}', "utf-8"),
        ('{"schema_version": 1, "schema_version": 1}', "`schema_version` stands there twice"),
        ('{"schema_version": 1, "which": {"cc": null, "cc": "/bin/cc"}}', "`cc` stands there twice"),
        ('{"schema_version": 1, "native": {"cpu_count": NaN}}', "NaN is no whole number"),
        ('{"schema_version": 1, "native": {"cpu_count": -Infinity}}', "-Infinity"),
        ('{"schema_version": 1, "native": {"cpu_count": 1e3}}', "1e3"),
        ('{"schema_version": 1, "native": {"cpu_count": -1}}', "`cpu_count` in `native` is a number"),
        (
            '{"schema_version": 1, "native": {"affinity": true}}',
            "`affinity` in `native` is not a whole number",
        ),
        ('{"schema_version": 1, "native": {"rlimit_as": 18446744073709551616}}', "`rlimit_as` in `native`"),
        ('{"schema_version": 1, "native": {"cpu_count": ' + "9" * 3_000_000 + "}}", "3000000 digits"),
        ('{"schema_version": 1, "expected": {"n": ' + "9" * 100 + "}}", "a number of 100 digits"),
        ('{"schema_version": 1, "native": {"cpu_count": "many"}}', "`cpu_count` in `native`"),
        (
            '{"schema_version": 1, "native": {"identity": [1]}}',
            "`identity` in `native` is not an object or null",
        ),
        ('{"schema_version": 1, "native": {"identity": {"bits": "x"}}}', "`bits` in `identity` in `native`"),
        ('{"schema_version": 1, "native": {"identity": {"system": null}}}', "`system` in `identity`"),
        ('{"schema_version": 1, "native": {"identity": {"sistem": "Linux"}}}', "`sistem` in `identity`"),
        ('{"schema_version": 1, "native": {"hwcaps": {"hwcap": 1}}}', "`hwcaps` in `native` has no `hwcap2`"),
        ('{"schema_version": 1, "native": {"windows_memory": {}}}', "has no `total`"),
        ('{"schema_version": 1, "native": {"moon": 1}}', "`moon` in `native` is nothing"),
        ('{"schema_version": 1, "comands": {}}', "`comands` is nothing that a recording of version 1 holds"),
        ('{"schema_version": 1, "commands": []}', "`commands` is not an object"),
        ('{"schema_version": 1, "commands": {"cc --version": {"out": "", "err": ""}}}', "has no `rc`"),
        ('{"schema_version": 1, "commands": {"cc": {"rc": null, "out": "", "err": ""}}}', "`rc` in `cc`"),
        ('{"schema_version": 1, "commands": {"cc": {"rc": 1e9, "out": "", "err": ""}}}', "1e9"),
        ('{"schema_version": 1, "asked": {"cuda x": {"rc": 4294967296, "out": "", "err": ""}}}', "`cuda x`"),
        (
            '{"schema_version": 1, "asked": {"cuda x": ' + DONE.replace('""', "[]", 1) + "}}",
            "`out` in `cuda x`",
        ),
        (
            '{"schema_version": 1, "files": {"/proc/meminfo": {"errno": "errorcode"}}}',
            "`errno` in `/proc/meminfo`",
        ),
        ('{"schema_version": 1, "files": {"/a": {}}}', "`/a` in `files` must hold one of `text` and `errno`"),
        ('{"schema_version": 1, "files": {"/a": {"text": "", "errno": "EIO"}}}', "must hold one of"),
        ('{"schema_version": 1, "files": {"/a\\u0000b": {"text": ""}}}', "the name `/a?b` in `files`"),
        ('{"schema_version": 1, "files": {"/a": {"text": "\\ud800"}}}', "half a character"),
        ('{"schema_version": 1, "files": {"/a\\udfff": {"text": ""}}}', "half a character"),
        ('{"schema_version": 1, "globs": {"/lib/*": 7}}', "`/lib/*` in `globs` is not a list"),
        ('{"schema_version": 1, "globs": {"/lib/*": ["/lib/x", null]}}', "an item of `/lib/*`"),
        ('{"schema_version": 1, "globs": {"/lib/*": ["/lib/\\u0000"]}}', "an item of `/lib/*`"),
        ('{"schema_version": 1, "which": {"cc": 1}}', "`cc` in `which` is not text or null"),
        ('{"schema_version": 1, "which": {"cc": "/bin/\\u0000cc"}}', "`cc` in `which`"),
        ('{"schema_version": 1, "environ": {"A": ["x"]}}', "`A` in `environ`"),
        ('{"schema_version": 1, "environ": {"\\u001b[31m\\n": 1}}', "`?[31m?` in `environ`"),
        ('{"schema_version": 1, "about": 1}', "`about`"),
    ],
)
def test_a_damaged_or_hostile_record_is_refused_with_the_place(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(UsageFaultError) as caught:
        Replay.load(path)
    message = str(caught.value)
    assert said in message
    assert str(path) in message
    assert "`detect --save`" in message or "newer floatllm-build" in message
    assert len(message) < 600
    assert message.isprintable()


def test_a_good_record_is_taken_with_a_byte_order_mark_and_every_kind(tmp_path: Path) -> None:
    record = {
        "schema_version": 1,
        "about": "made by hand",
        "expected": {"preset": "cpu", "odds": [1, None, {"deep": True}]},
        "files": {"/a": {"text": "x\0y"}, "/b": {"errno": "EACCES"}},
        "commands": {"cc --version": {"rc": -11, "out": "", "err": "\x1b"}},
        "asked": {"cuda libcuda.so.1": {"rc": 3221225477, "out": "{}", "err": ""}},
        "environ": {"CC": None, "CXX": "c++"},
        "which": {"cc": None, "ld": "/usr/bin/ld"},
        "globs": {"/lib/*": [], "/opt/*": ["/opt/a"]},
        "native": {
            "identity": {"system": "Linux", "system_version": "", "bits": 64},
            "cpu_count": None,
            "affinity": 4,
            "hwcaps": {"hwcap": (1 << 64) - 1, "hwcap2": 0},
            "rlimit_as": None,
            "windows_memory": None,
        },
    }
    replay = Replay.load(saved(tmp_path, b"\xef\xbb\xbf" + json.dumps(record).encode()))
    assert replay.record == record
    assert replay.read("/a") == "x\0y"
    with pytest.raises(PermissionError):
        replay.read("/b")
    with pytest.raises(FileNotFoundError):
        replay.read("/c")
    assert replay.run(("cc", "--version")).rc == -11
    assert replay.ask("cuda", "libcuda.so.1").out == "{}"
    assert replay.run(("unknown",)).rc == 127
    assert (replay.getenv("CC"), replay.getenv("CXX"), replay.which("ld")) == (None, "c++", "/usr/bin/ld")
    assert (replay.glob("/opt/*"), replay.glob("/srv/*")) == (("/opt/a",), ())
    assert replay.native("hwcaps")["hwcap"] == (1 << 64) - 1


def test_what_is_too_large_is_refused_without_being_read(tmp_path: Path) -> None:
    path = saved(tmp_path, '{"schema_version": 1, "about": "')
    os.truncate(path, 1 << 40)
    with pytest.raises(UsageFaultError, match="larger than 4 MiB"):
        load_record(path)
    path = saved(tmp_path, json.dumps({"schema_version": 1, "about": "x" * 10_000_000}))
    with pytest.raises(UsageFaultError, match="larger than 4 MiB"):
        load_record(path)


# Not ru_maxrss: it counts what the process was before it became this program, a copy of a large one.
_LOAD = """
import re, sys
from pathlib import Path
from floatllm_build.errors import UsageFaultError
from floatllm_build.record import load_record
try:
    load_record(Path(sys.argv[1]))
except UsageFaultError as error:
    print(error)
    status = Path("/proc/self/status")
    print(int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) // 1024 if status.exists() else 0)
"""


def refusal(path: Path | str) -> tuple[str, int]:
    """What a child says of a record, and the MiB that it took. It has minutes, for a busy machine."""
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True, timeout=300
    )
    message, size = done.stdout.splitlines()
    return message, int(size)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
def test_what_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path):
        assert "no ordinary file" in refusal(path)[0]
    assert "No such file" in refusal(tmp_path / "none")[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("piece", ["{},", '{"":0},', "[],", '"ab",', "0,"])
def test_the_worst_that_fits_takes_little_memory(tmp_path: Path, piece: str) -> None:
    start = '{"schema_version": 1, "globs": {"/a": ['
    many = piece * ((LARGEST_RECORD - len(start) - 10) // len(piece))
    message, size = refusal(saved(tmp_path, f"{start}{many}0]}}}}"))
    assert "an item of `/a` in `globs`" in message
    assert 0 < size < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["files", "commands", "asked", "environ", "which", "globs", "native", "about", "x"])


@given(
    record=json_values
    | st.fixed_dictionaries({"schema_version": st.just(1)}).flatmap(
        lambda base: st.dictionaries(kinds, json_values, max_size=3).map(lambda more: {**more, **base})
    )
)
def test_the_check_itself_never_raises_and_what_it_lets_pass_can_be_asked(record: Any) -> None:
    if find_fault(record):
        return
    replay = Replay(record)
    for path in record.get("files", {}):
        with contextlib.suppress(OSError):
            replay.read(path)
    for name in record.get("which", {}):
        replay.which(name)
        replay.getenv(name)
    for pattern in record.get("globs", {}):
        assert isinstance(replay.glob(pattern), tuple)


# ---- recording ------------------------------------------------------------------------------------


class Answers(LiveSystem):
    """The machine, but for some files and variables; each file is given once only."""

    def __init__(self, files: Mapping[str, str], environ: Mapping[str, str] | None = None) -> None:
        self.files = dict(files)
        self.environ = environ or {}
        self.asked: list[str] = []

    def read(self, path: str, only: str = "") -> str:
        self.asked.append(f"{path} {only}")
        if path not in self.files:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return keep_lines(self.files[path], only)

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        self.asked.append(" ".join(argv))
        return Completed(rc=0, out=f"{len(self.asked)} {sorted((variables or {}).items())}", err="")

    def getenv(self, name: str) -> str | None:
        return self.environ.get(name)


LINES = "model : a\nflags : b\nmodel : a\nend : c\n"


def replayed(recorder: Recorder) -> Replay:
    record = json.loads(recorder.text())
    assert find_fault(record) == ""
    return Replay(record)


def test_selections_from_one_file_are_united_in_its_order() -> None:
    recorder = Recorder(Answers({"/f": LINES}))
    patterns = ["^flags|^end", "^model|^flags", "^none", "^end"]
    live = [recorder.read("/f", only) for only in patterns]
    replay = replayed(recorder)
    assert [replay.read("/f", only) for only in patterns] == live
    assert replay.read("/f") == "model : a\nflags : b\nend : c\n"


def test_a_file_that_was_read_whole_stays_whole() -> None:
    for patterns in (("", "^end"), ("^end", "")):
        recorder = Recorder(Answers({"/f": LINES}))
        for only in patterns:
            recorder.read("/f", only)
        assert replayed(recorder).read("/f") == LINES


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.lists(st.sets(st.sampled_from("abcdefgh"))))
def test_united_keeps_every_line_once_and_the_order_of_the_first(
    letters: list[str], chosen: list[set[str]]
) -> None:
    parts = ["".join(f"{letter}\n" for letter in letters if letter in keep) for keep in chosen]
    lines = united(parts).splitlines()
    assert sorted(lines) == sorted(set("".join(parts).split()))
    if parts:
        first = parts[0].split()
        assert [line for line in lines if line in first] == first


@given(st.lists(st.sampled_from("abcdefgh"), unique=True), st.sets(st.sampled_from("abcdefgh")))
def test_united_with_the_whole_is_the_whole(letters: list[str], keep: set[str]) -> None:
    whole = "".join(f"{letter}\n" for letter in letters)
    part = "".join(f"{letter}\n" for letter in letters if letter in keep)
    assert united([part, whole]) == united([whole, part]) == whole


def test_an_answer_once_given_stands() -> None:
    inner = Answers({"/f": "1\n"})
    recorder = Recorder(inner)
    assert recorder.read("/f") == "1\n"
    inner.files["/f"] = "2\n"
    assert recorder.read("/f") == "1\n"
    first = recorder.run(("date",))
    assert recorder.run(("date",)) == first
    assert recorder.run(("date",), variables={"TZ": "UTC"}) != first
    replay = replayed(recorder)
    assert replay.run(("date",)) == first
    assert "TZ" in replay.run(("date",), variables={"TZ": "UTC"}).out
    assert replay.run(("date",), variables={"TZ": "CET"}).rc == 127


def test_refusals_are_recorded_as_they_were() -> None:
    recorder = Recorder(Answers({}))
    with pytest.raises(PermissionError):
        recorder.read("/secret", "^a")
    for system in (recorder, replayed(recorder)):
        with pytest.raises(PermissionError) as caught:
            system.read("/secret", "^a")
        assert caught.value.filename == "/secret"


def test_how_a_file_opens_is_recorded_and_a_record_may_leave_it_unsaid(tmp_path: Path) -> None:
    here, gone, below = tmp_path / "here", tmp_path / "gone", tmp_path / "here" / "below"
    here.write_text("not read")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening one to read waits for somebody who writes
    recorder = Recorder(LiveSystem())
    said = {path: recorder.opens(str(path)) for path in (here, gone, below, fifo)}
    assert said == {here: "", gone: "ENOENT", below: "ENOTDIR", fifo: ""}
    assert "not read" not in recorder.text()
    again = Replay(json.loads(recorder.text()))
    assert {path: again.opens(str(path)) for path in said} == said
    assert again.opens("/never/asked") is None
    second = Recorder(again)
    assert [second.opens(str(here)), second.opens("/never/asked")] == ["", None]
    assert json.loads(second.text())["files"] == {str(here): {"text": ""}}
    by_hand = Replay({"globs": {"/dev/a": [], "/dev/b": ["/dev/b"]}, "files": {"/dev/c": {"errno": "EODD"}}})
    assert [by_hand.opens(f"/dev/{name}") for name in "abc"] == ["ENOENT", "", "EIO"]


def test_a_record_has_the_same_bytes_however_the_threads_took_turns() -> None:
    files = {f"/f{n}": f"id {n}\n" for n in range(40)}
    environ = {f"V{n}": f"{{home-{n}}}" for n in range(40)}

    texts = set()
    for order in (range(40), reversed(range(40))):
        recorder = Recorder(Answers(files, environ))
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(partial(ask_some, recorder), order))
        texts.add(recorder.text())
    assert len(texts) == 1
    assert json.loads(texts.pop())["environ"]["V9"] == "{home-40}"


def ask_some(recorder: Recorder, n: int) -> None:
    recorder.read(f"/f{n}", "^id" if n % 2 else "")
    recorder.getenv(f"V{n}")
    recorder.which("no-such-program")


@given(st.permutations(range(1, 5)))
def test_symbols_are_numbered_by_what_the_record_says(numbers: list[int]) -> None:
    """Whichever probe was the quickest to find each of them."""
    a, b, c, d = (f"{{uuid-{n}}}" for n in numbers)
    record = {
        "globs": {"/dev/*": [f"/dev/{b}", f"/dev/{a}"]},
        "files": {f"/{c}/x": {"text": f"{a}\n"}, f"/{d}/x": {"text": "none"}},
        "environ": {"HOME": "{home}", "A": "{serial-9}"},
    }
    assert renumbered(record) == {
        "environ": {"A": "{serial-1}", "HOME": "{home}"},
        "files": {"/{uuid-1}/x": {"text": "none"}, "/{uuid-2}/x": {"text": "{uuid-3}\n"}},
        "globs": {"/dev/*": ["/dev/{uuid-4}", "/dev/{uuid-3}"]},
    }
