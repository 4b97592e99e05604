"""What tells who the user is: hidden in every answer, and shown again letter by letter."""

from __future__ import annotations

import errno
import getpass
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import PC

from floatllm_build.host import probe_host
from floatllm_build.record import find_fault
from floatllm_build.symbols import Door, Symbols, settled
from floatllm_build.system import Completed, LiveSystem, Recorder, Replay, keep_lines
from floatllm_build.values import Host, Note

ADA = {"{cache}": "/home/ada/.cache/floatllm", "{home}": "/home/ada"}
UUID = "6b1f7a52-1c2d-4e3f-8a9b-0c1d2e3f4a5b"
OTHER_UUID = "00000000-aaaa-BBBB-cccc-123456789abc"
HEX = "0123456789abcdef" * 4


def ada() -> Symbols:
    return Symbols(folders=ADA, user="ada", aliases=("/nfs/people/ada",))


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("/home/ada/cuda/bin/nvcc", "{home}/cuda/bin/nvcc"),
        ("-I/home/ada/include:/home/ada", "-I{home}/include:{home}"),
        ("cannot open /home/ada.", "cannot open {home}."),
        ("/home/ada/.cache/floatllm/tools", "{cache}/tools"),
        ("/home/ada/.cache/floatllm2", "{home}/.cache/floatllm2"),
        ("/home//ada/x", "{home-1}/x"),
        ("/nfs/people/ada/x", "{home-1}/x"),
        ("/home/adam/x /home/ada-old /home/ada.bak", "{home-1}/x {home-2} {home-3}"),
        ("/home/bob/a:/home/bob/b", "{home-1}/a:{home-1}/b"),
        ("/home/linuxbrew/.linuxbrew/bin/gcc", "/home/linuxbrew/.linuxbrew/bin/gcc"),
        ("/Users/Shared/x /Users/eve/x", "/Users/Shared/x {home-1}/x"),
        ("/mnt/c/Users/eve/x", "/mnt/c{home-1}/x"),
        (r"C:\Users\eve\x c:/users/eve/x", r"{home-1}\x {home-2}/x"),
        ("/srv/ada/venv /srv/adam /opt/canada", "/srv/{user}/venv /srv/adam /opt/canada"),
        ("NVIDIA RTX 6000 Ada, ada", "NVIDIA RTX 6000 Ada, ada"),
        (f"GPU 0: NVIDIA H200 (UUID: GPU-{UUID})", "GPU 0: NVIDIA H200 (UUID: GPU-{uuid-1})"),
        (f"/x/{OTHER_UUID}/{UUID}/{OTHER_UUID}", "/x/{uuid-1}/{uuid-2}/{uuid-1}"),
        (
            f"/kubepods/pod{UUID}/kubepods-pod{OTHER_UUID.replace('-', '_')}.slice",
            "/kubepods/pod{uuid-1}/kubepods-pod{uuid-2}.slice",
        ),
        ("Serial\t\t: 10000000a1b2c3d4\n", "Serial\t\t: {serial-1}\n"),
        (
            "    Serial Number                : 1321020012345\n",
            "    Serial Number                : {serial-1}\n",
        ),
        ("      Serial Number (system): C02XK0AAJGH5\n", "      Serial Number (system): {serial-1}\n"),
        ("[ro.serialno]: [R58M12ABCDE]\n", "[ro.serialno]: {serial-1}\n"),
        ("unique_id 1234567890\nsimd_count 4\n", "unique_id {serial-1}\nsimd_count 4\n"),
        ("link/ether 52:54:00:ab:cd:ef", "link/ether {mac-1}"),
        ("00000000:01:00.0 driver 31.0.15.5222", "00000000:01:00.0 driver 31.0.15.5222"),
        ("/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/x", "{temp-1}/T/x"),
        ("/run/user/1000", "/run/user/1000"),
        ("/mnt/c/Users/Bob Smith/sdk", "/mnt/c{home-1}/sdk"),
        (r"C:\Users\Bob Smith\sdk;C:\Users\O'Brien (work)\x", r"{home-1}\sdk;{home-2}\x"),
        ("USERPROFILE=C:\\Users\\Bob Smith\r\nA=1", "USERPROFILE={home-1}\r\nA=1"),
        ("gcc -I/Users/eve -L/opt/x /Users/eve /opt", "gcc -I{home-1} -L/opt/x {home-1} /opt"),
        (r"C:\Users\Rita O'Hara", "{home-1}"),
        (r"C:\Users\O'Hara", "{home-1}"),
        ("/Users/eve (/Users/bob/x) 'C:/Users/eve'", "{home-1} ({home-2}/x) '{home-3}'"),
        ("cannot open '/Users/eve' or '/Users/bob/x'", "cannot open '{home-1}' or '{home-2}/x'"),
        (f"0::/docker/{HEX}", "0::/docker/{uuid-1}"),
        (
            f"/cri-containerd-{HEX}.scope /pod{HEX[:32]}.slice",
            "/cri-containerd-{uuid-1}.scope /pod{uuid-2}.slice",
        ),
        (f"/machine_{HEX.upper()}/x", "/machine_{uuid-1}/x"),
        (f"{HEX[:31]} x{HEX} {HEX}g", f"{HEX[:31]} x{HEX} {HEX}g"),
        ("{home} {uuid-1} {build}", "{text-1} {text-2} {text-3}"),
        ("{house} {home-x} {}", "{house} {home-x} {}"),
        ("/x/\udcff\udcfe/y", "/x/{text-1}/y"),
    ],
)
def test_what_is_hidden(text: str, hidden: str) -> None:
    symbols = ada()
    assert symbols.hide(text) == hidden
    assert symbols.show(hidden) == text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (r"C:\Users\Ada Lovelace\x", r"{home}\x"),
        ("c:/users/ada lovelace/x", "{home-1}/x"),
        (r"C:\\Users\\Ada Lovelace\\x", r"{home-1}\\x"),
        (r"C:\Users\Ada Lovelace2", "{home-1}"),
        (r"C:\Users\Ada Lovelace is not C:\Users\Ada", "{home} is not {home-1}"),
    ],
)
def test_a_home_on_windows_is_hidden_however_it_is_spelt(text: str, hidden: str) -> None:
    symbols = Symbols(folders={"{home}": r"C:\Users\Ada Lovelace"})
    assert symbols.hide(text) == hidden
    assert symbols.show(hidden) == text


pieces = st.sampled_from(
    [
        *("/home/ada", "/home/", "/home/bob", "/home/ada/.cache/floatllm", "/Users/x", "/nfs//people/ada"),
        *(
            "/ada",
            "ada",
            "a",
            "/",
            "\\",
            ":",
            " ",
            "\n",
            ".",
            "-",
            "{",
            "}",
            "{home}",
            "{home-1}",
            "{uuid-1}",
        ),
        *(
            "{user}",
            "{text-1}",
            "{serial-2}",
            UUID,
            OTHER_UUID,
            "Serial: ",
            "serial",
            "=",
            "52:54:00:ab:cd:ef",
        ),
        *(HEX, "pod", "/Users/Bob Smith", " Smith", "'", "\t", "\r\n"),
        *("home", "1", "\udc80", "\0", "é", "C:\\Users\\", "/var/folders/ab/cd/T", "unique_id ", "{cache}"),
    ]
)
texts = st.lists(pieces | st.text(st.characters(), max_size=3), max_size=12).map("".join)


@given(st.lists(texts, min_size=1, max_size=4), st.booleans())
@pytest.mark.slow
def test_what_was_hidden_is_shown_again(all_texts: list[str], someone: bool) -> None:
    symbols = ada() if someone else Symbols()
    hidden = [symbols.hide(text) for text in all_texts]
    assert [symbols.show(text) for text in hidden] == all_texts
    # So it is after the numbers have been put in order.
    host = replace(PC, notes=tuple(Note(source="x", said=text) for text in reversed(hidden)))
    host = symbols.settle(host)
    assert [symbols.show(note.said) for note in host.notes] == [*reversed(all_texts)]
    assert [symbols.show(symbols.hide(text)) for text in all_texts] == all_texts


@given(texts)
def test_nothing_personal_stays(text: str) -> None:
    hidden = ada().hide(text)
    assert "\udc80" not in hidden
    assert not re.search(r"/home/ada(?![\w+~@.-])|/nfs/people/ada(?![\w+~@.-])", hidden)
    assert UUID not in hidden
    # What stood before it was hidden and may have been a letter.
    assert not re.search(rf"(?<![^\W_])(?<!\}}){HEX}(?![^\W_])", hidden)


@pytest.mark.parametrize(("home", "user"), [("/", "root"), ("/usr", "lib"), ("/home/python", "python")])
def test_what_everybody_has_is_not_hidden(monkeypatch: pytest.MonkeyPatch, home: str, user: str) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", "/srv/cache")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, user)
    symbols = Symbols.of_this_user()
    for text in ("/usr/lib/gcc", "/usr/bin/python", "/", "/usr", "/lib/python/x", "/usr/local/root"):
        assert symbols.hide(text) == text
    assert symbols.hide("/srv/cache/x") == "{cache}/x"
    assert symbols.hide("/home/python/x") == ("{home}/x" if user == "python" else "{home-1}/x")


@pytest.mark.skipif(sys.platform == "win32", reason="has no HOME")
def test_nobody_has_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> str:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", "/srv/cache")
    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    symbols = Symbols.of_this_user()
    assert symbols.hide("/home/ada/x /srv/cache") == "{home-1}/x {cache}"


@pytest.mark.skipif(sys.platform == "win32", reason="has no HOME")
def test_a_home_behind_a_link_is_hidden_under_both_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", "/srv/cache")
    symbols = Symbols.of_this_user()
    text = f"{tmp_path}/link/x {tmp_path}/real/x"
    assert symbols.hide(text) == "{home}/x {home-1}/x"
    assert symbols.show("{home}/x {home-1}/x") == text


def test_the_door_asks_for_what_the_symbols_stand_for(tmp_path: Path) -> None:
    home = tmp_path / "[a]"
    home.mkdir()
    (home / "note").write_text(f"lies in {home}/note\n")
    door = Door(LiveSystem(), Symbols(folders={"{home}": str(home)}))
    assert door.read("{home}/note") == "lies in {home}/note\n"
    assert door.glob("{home}/n*") == ("{home}/note",)
    done = door.run(("cat", "{home}/note", "{home}/none"), variables={"A": "{home}"})
    assert done.out == "lies in {home}/note\n"
    assert str(home) not in done.err
    assert "{home}/none" in done.err
    assert door.run(("sh", "-c", "echo $A"), variables={"A": "{home}/a"}).out == "{home}/a\n"
    with pytest.raises(FileNotFoundError) as caught:
        door.read("{home}/none")
    assert str(home) not in str(caught.value)


def test_the_doors_time_begins_with_the_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    given: list[float] = []

    class Slow(LiveSystem):
        def run(self, argv: tuple[str, ...], *, timeout: float = 5.0, **_: Any) -> Completed:
            given.append(timeout)
            now[0] += 4.0
            return Completed(rc=0, out="", err="")

    monkeypatch.setattr("floatllm_build.symbols.time.monotonic", lambda: now[0])
    door = Door(Slow(), Symbols(), seconds=10.0)
    now[0] += 3600.0  # a build of someone else holds the lock
    for _ in range(4):
        door.run(("true",), timeout=5.0)
    assert given == [5.0, 5.0, 2.0, 0.05]


def test_only_whether_kubernetes_is_around_gets_through_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    recorder = Recorder(Door(LiveSystem(), Symbols()))
    assert recorder.getenv("KUBERNETES_SERVICE_HOST")
    assert "10.96" not in recorder.text()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert Door(LiveSystem(), Symbols()).getenv("KUBERNETES_SERVICE_HOST") is None


# ---- a machine of someone else -------------------------------------------------------------------


@dataclass
class Theirs(LiveSystem):
    """A machine like ours, as it would answer to someone with a home, GPUs and a name."""

    home: str = "/Volumes/people/zoe.q"
    user: str = "zoe-q"
    uuids: tuple[str, ...] = (UUID, OTHER_UUID)

    def theirs(self, text: str) -> str:
        boards = "".join(f"GPU-{uuid} in /home/neighbour-{uuid[:4]}\n" for uuid in self.uuids)
        return f"{text}\nSerial : SN-4711\n{boards}{self.home}/bin /srv/{self.user}/x\n"

    def read(self, path: str, only: str = "") -> str:
        if path.endswith("cpuinfo"):
            return keep_lines(self.theirs(super().read(path)), f"{only}|Serial|GPU" if only else "")
        return super().read(path, only)

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        if argv[0].startswith(self.home):
            return Completed(rc=0, out=f"1.11.1\n{self.theirs('')}", err="")
        done = super().run(argv, timeout=timeout, variables=variables)
        return replace(done, out=self.theirs(done.out), err=self.theirs(done.err))

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        if question != "target":
            error = {"error": self.theirs(f"{subject}: no luck"), "loaded": True, "é": f"{self.home}/é"}
            return Completed(rc=0, out=json.dumps(error), err=self.theirs(""))
        return super().run((sys.executable, "-I", str(_script()), subject), timeout=30.0)

    def which(self, name: str) -> str | None:
        return f"{self.home}/bin/{name}" if name in {"ninja", "nvcc"} else super().which(name)

    def getenv(self, name: str) -> str | None:
        given = {
            "CC": f"{self.home}/bin/cc",
            "CUDA_PATH": f"/srv/{self.user}/{self.uuids[1]}/cuda",
            "CUDACXX": f"/home/other/{self.uuids[0]}/nvcc",
            "CUDA_VISIBLE_DEVICES": f"GPU-{self.uuids[0]}",
        }
        return given.get(name)

    def native(self, question: str) -> Any:
        answer = super().native(question)
        return {**answer, "prefix": f"{self.home}/venv"} if question == "identity" else answer

    def symbols(self) -> Symbols:
        return Symbols(folders={"{home}": self.home}, user=self.user)


def _script() -> Path:
    import floatllm_build

    return Path(floatllm_build.__file__).parent / "host" / "ask" / "target.py"


def look(system: Theirs) -> tuple[Host, str, Symbols]:
    symbols = system.symbols()
    recorder = Recorder(Door(system, symbols))
    host = probe_host(recorder)
    return symbols.settle(host), recorder.text(), symbols


def test_a_record_tells_nothing_of_its_owner_and_replays_to_the_same_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host, text, _ = look(Theirs())
    said = json.dumps(json.loads(text), ensure_ascii=False) + repr(host)
    for secret in ("zoe", "/Volumes/people", UUID, OTHER_UUID, "SN-4711", "neighbour", "/home/other"):
        assert secret not in said
    assert "{home}/bin/ninja" in said
    assert find_fault(json.loads(text)) == ""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "somebody")
    assert settled(probe_host(Replay(json.loads(text)))) == host


def test_what_is_found_can_be_used_where_it_was_found() -> None:
    host, _, symbols = look(Theirs())
    assert host.toolchain.ninja is not None
    assert symbols.show_in(host).toolchain.ninja.path == "/Volumes/people/zoe.q/bin/ninja"


def test_a_host_does_not_depend_on_who_looks() -> None:
    """But for what a machine says anew each time."""
    other = Theirs(home="/data/w", user="werner", uuids=(OTHER_UUID, UUID))
    hosts = [look(theirs)[0] for theirs in (Theirs(), other)]
    first, second = (replace(host, memory=PC.memory, disk=PC.disk) for host in hosts)
    assert first == second


def test_this_machine_replays_to_itself() -> None:
    symbols = Symbols.of_this_user()
    recorder = Recorder(Door(LiveSystem(), symbols))
    live = symbols.settle(probe_host(recorder))
    record = json.loads(recorder.text())
    assert find_fault(record) == ""
    assert settled(probe_host(Replay(record))) == live
    again = Recorder(Replay(record))
    assert settled(probe_host(again)) == live
    assert json.loads(again.text()) == record


def test_an_error_of_the_system_keeps_its_number() -> None:
    class Refuses(LiveSystem):
        def read(self, path: str, only: str = "") -> str:
            raise OSError(errno.EACCES, "Permission denied", path)

    with pytest.raises(PermissionError) as caught:
        Door(Refuses(), ada()).read("{home}/x")
    assert (caught.value.filename, "ada" in str(caught.value)) == ("{home}/x", False)
