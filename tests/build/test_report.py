"""`report`: one new file that tells a failure, and nothing of whose machine it is."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import pytest
from tool_environment import Environment, closed_folder

from floatllm_build import report
from floatllm_build.errors import MissingError, UsageFaultError
from floatllm_build.flow.report import make_report
from floatllm_build.pip_settings import Section
from floatllm_build.report import (
    check_free,
    commit_of,
    environment,
    logs,
    pip_settings,
    text_part,
    write_report,
)
from floatllm_build.scrub import Scrubber
from floatllm_build.symbols import Symbols
from floatllm_build.system import Completed, LiveSystem
from floatllm_build.troubles import Trouble, keep_trouble, trouble_of, troubles

PLAIN = Scrubber(Symbols())
SECRETS = {
    "HF_TOKEN": "hf_TopSecret0123",
    "PIP_EXTRA_INDEX_URL": "https://ada:open-sesame@packages.example.org/simple",
    "MY_DB_PASSWORD": "correct-horse",
    "HOSTNAME": "difference-engine",
    "USER": "ada-lovelace",
    "LOGNAME": "ada-lovelace",
}


def trouble(**more: object) -> Trouble:
    told = {"when": "2026-11-30T12:00:00Z", "exit_code": 4, "kind": "E", "command": "c", "message": "m"}
    return Trouble(**{**told, **more})  # type: ignore[arg-type]


# ---- the file -----------------------------------------------------------------------------------


def test_a_report_replaces_nothing_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    done = write_report(path, [text_part("a.txt", "about a", "text of a")])
    assert done.size == path.stat().st_size
    assert [(part.name, part.size) for part in done.parts] == [("a.txt", 9)]
    assert path.stat().st_mode & 0o077 == 0
    with zipfile.ZipFile(path) as archive:
        assert archive.read("a.txt") == b"text of a"
        assert "about a" in archive.read("README.txt").decode()
    before = path.read_bytes()
    for refused in (check_free, lambda there: write_report(there, [text_part("b", "", "other")])):
        with pytest.raises(UsageFaultError, match="there already"):
            refused(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_that_waits_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "r.zip").symlink_to(tmp_path / "victim")
    with pytest.raises(UsageFaultError, match="there already"):
        check_free(tmp_path / "r.zip")
    with pytest.raises(UsageFaultError, match="there already"):
        write_report(tmp_path / "r.zip", [text_part("a", "", "a")])
    assert not (tmp_path / "victim").exists()


def test_where_there_are_no_links_it_replaces_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(report.os, "link", refuse)
    path = tmp_path / "r.zip"
    write_report(path, [text_part("a", "", "a")])
    assert zipfile.is_zipfile(path)
    with pytest.raises(UsageFaultError, match="there already"):
        write_report(path, [text_part("b", "", "b")])
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageFaultError, match=f"there is no folder {tmp_path / 'nowhere'}"):
        check_free(tmp_path / "nowhere" / "r.zip")


def test_a_folder_that_cannot_be_written_is_something_missing(tmp_path: Path) -> None:
    folder = closed_folder(tmp_path)
    with pytest.raises(MissingError, match=f"{folder} takes no file") as caught:
        check_free(folder / "r.zip")
    assert "--out" in str(caught.value)
    with pytest.raises(MissingError, match=f"cannot be written to {folder}"):
        write_report(folder / "r.zip", [text_part("a", "", "a")])


# ---- its parts ----------------------------------------------------------------------------------


def test_variables_are_shown_by_name_and_addresses_never() -> None:
    variables = {
        **SECRETS,
        "CXXFLAGS": "-O2 -DX_TOKEN=zzz",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/srv/acme",
        "UV_DEFAULT_INDEX": "acme=https://packages.example.org",
        "UV_FANCY": "https://packages.example.org",
        "http_proxy": "10.0.0.1:3128",
        "EDITOR": "vi",
    }
    shown = environment(variables, PLAIN)
    assert shown["CXXFLAGS"] == "-O2 -DX_TOKEN={secret}"
    assert shown["PIP_NO_INDEX"] == "1"
    hidden = {name for name, value in shown.items() if "not shown" in value}
    assert hidden == {"PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_FANCY", "http_proxy"}
    assert set(shown) - hidden == {"CXXFLAGS", "PIP_NO_INDEX"}


def test_pips_settings_are_shown_as_its_variables_are() -> None:
    sections = [
        Section("a", "global", {"index-url": "https://a:b@c/d", "timeout": "50", "proxy": "a:b@c:3128"}),
        Section("a", "install", {"no-binary": ":all:", "find_links": "one\ntwo", "cache-dir": "/x/1.2.3.4"}),
        Section("b", "global", {"timeout": "60", "https": "//a:b@c/d"}),
    ]
    hidden = "set, and not shown here"
    assert pip_settings(sections, PLAIN) == {
        "global.index-url": hidden,
        "global.timeout": "60",
        "global.proxy": hidden,
        "global.https": hidden,
        "install.no-binary": ":all:",
        "install.find-links": hidden,
        "install.cache-dir": "/x/{address}",
    }


class NoPrograms(LiveSystem):
    """A machine on which nothing can be started, and that keeps what was asked for."""

    asked: ClassVar[list[tuple[str, ...]]] = []

    def run(self, argv: tuple[str, ...], **_: Any) -> Completed:
        self.asked.append(argv)
        return Completed(rc=127, out="", err="not found")


def test_the_settings_of_pip_are_told_without_a_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be fetched where there is none, beside a tool that holds the cache's lock."""
    (tmp_path / "pip.conf").write_text("[global]\ntimeout = 60\n[download]\nno-deps = 1\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "report.zip"

    def host() -> NoReturn:
        raise MissingError("no host")

    make_report(NoPrograms(), PLAIN, host, None, out, lambda _: None)
    with zipfile.ZipFile(out) as archive:
        told = json.loads(archive.read("environment.json"))["pip"]
    assert (told["global.timeout"], told["download.no-deps"]) == ("60", "1")
    assert [argv for argv in NoPrograms.asked if "config" in argv or "install" in argv] == []
    assert not (tmp_path / "cache").exists()


def test_the_commit_is_read_from_a_checkout_of_any_kind(tmp_path: Path) -> None:
    git = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_CONFIG_GLOBAL": os.devnull,
    }

    def run(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=tmp_path / "a", env=git, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "a").mkdir()
    run("init", "-q")
    run("commit", "-q", "--allow-empty", "-m", "x")
    head = run("rev-parse", "HEAD")
    assert commit_of(tmp_path / "a") == head
    run("pack-refs", "--all")
    assert commit_of(tmp_path / "a") == head
    run("worktree", "add", "-q", "../b")
    assert commit_of(tmp_path / "b") == head
    run("checkout", "-q", "--detach")
    assert commit_of(tmp_path / "a") == head
    assert commit_of(tmp_path) == ""


def test_the_log_of_the_last_error_is_taken_and_no_other_file(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name, text in (("old", "old log"), ("new", "new log")):
        (cache / "build" / name).mkdir(parents=True)
        (cache / "build" / name / "build.log").write_text(text)
    secret = tmp_path / "id_rsa"
    secret.write_text("private")
    old = str(cache / "build" / "old" / "build.log")

    def told(*logs_of: str) -> dict[str, str]:
        found = logs(cache, [trouble(log=log) for log in logs_of], PLAIN)
        return {part.name: part.data.decode() for part in found}

    assert told(old) == {"logs/build.log": "old log"}
    os.utime(old, (1, 1))
    assert told() == {"logs/build.log": "new log"}
    # Whoever can write into the cache cannot have another file told by it.
    assert told(str(secret), str(cache / "build" / "x" / ".." / ".." / ".." / "id_rsa")) == {
        "logs/build.log": "new log"
    }
    for name in ("old", "new"):
        (cache / "build" / name / "build.log").unlink()
        (cache / "build" / name / "build.log").symlink_to(secret)
    assert told(old) == {}


def test_of_a_long_log_the_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_LONGEST_LOG", 10)
    (tmp_path / "build" / "a").mkdir(parents=True)
    (tmp_path / "build" / "a" / "build.log").write_text("x" * 90 + "0123456789")
    (part,) = logs(tmp_path, [], PLAIN)
    assert part.data == b"(90 bytes before this are left out)\n0123456789"


# ---- what is kept until then ----------------------------------------------------------------------


def test_the_newest_errors_are_kept_without_what_was_secret_then(tmp_path: Path) -> None:
    for number in range(8):
        keep_trouble(tmp_path, trouble(when=f"2026-11-30T12:00:0{number}Z"))
    assert [one.when[-2:] for one in troubles(tmp_path)] == ["7Z", "6Z", "5Z", "4Z", "3Z"]
    error = ValueError("hf_TopSecret0123 was refused by https://ada:open-sesame@packages.example.org/simple")
    told = trouble_of(error, 1, ("floatllm-build", "install", "correct-horse"), SECRETS, traced=True)
    text = json.dumps(vars(told))
    assert "was refused by" in text
    assert not [value for value in ("TopSecret", "open-sesame", "correct-horse", "packages") if value in text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"when": 1}',
        "[" * 100_000,
        '{"trace": 5}',
        '{"trace": [1], "when": "", "x": 1}',
    ],
)
def test_a_damaged_error_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors" / "9.json").write_text(text)
    keep_trouble(tmp_path, trouble())
    assert troubles(tmp_path) == (trouble(),)


def test_where_the_cache_cannot_be_written_it_is_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    (tmp_path / "file").touch()
    kept = keep_trouble(tmp_path / "file", trouble())
    assert kept
    assert kept.parent == tmp_path / "t"
    assert troubles(tmp_path / "file") == ()
    assert troubles(tmp_path / "file", kept.parent) == (trouble(),)
    # Of those in the cache and those elsewhere the newest come first.
    keep_trouble(tmp_path / "c", trouble(when="2026-11-30T13:00:00Z"))
    found = troubles(tmp_path / "c", kept.parent)
    assert [one.when for one in found] == ["2026-11-30T13:00:00Z", trouble().when]
    # What others could have written, or lead to, is no record of ours.
    text = kept.read_text()
    kept.chmod(0o666)
    (tmp_path / "other").write_text(text)
    (tmp_path / "t" / "floatllm-error-link.json").symlink_to(tmp_path / "other")
    assert troubles(tmp_path / "file", kept.parent) == ()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert keep_trouble(tmp_path / "file", trouble()) is None


# ---- the command --------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> dict[str, str]:
    """Somebody's own variables, home and cache, with secrets in them."""
    home = tmp_path / "ada-lovelace"
    (home / "cache").mkdir(parents=True)
    return {**SECRETS, "HOME": str(home), "FLOATLLM_CACHE_DIR": str(home / "cache"), "TMPDIR": str(tmp_path)}


def reported(env: Environment, path: Path, **variables: str) -> dict[str, str]:
    done = env.tool("report", "--out", path, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path}\n"
    assert "read it" in done.stderr
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert all(name in done.stderr for name in parts if name != "README.txt")
    return parts


def test_a_failed_command_names_the_report_which_tells_it_and_no_secret(
    tool_env: Environment, tmp_path: Path, mine: dict[str, str]
) -> None:
    arguments = {
        "CMAKE_ARGS": "-DX_TOKEN=shibboleth -DY=https://joe:letmein@git.example.org/x",
        "CXXFLAGS": f"-I{mine['HOME']}/include -DWHO=ada-lovelace@difference-engine",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
    }
    failed = tool_env.tool("install", "--jobs", 3, **mine, **arguments)
    assert failed.returncode == 6, failed.stderr
    assert "floatllm-build report" in failed.stderr.strip().splitlines()[-1]
    parts = reported(tool_env, tmp_path / "r.zip", **mine, **arguments)
    assert set(parts) == {
        *("README.txt", "host.json", "plan.json", "installed.json", "versions.json", "environment.json"),
        "errors.json",
    }
    (error,) = json.loads(parts["errors.json"])
    assert (error["exit_code"], error["kind"]) == (6, "SourceFaultError")
    assert error["command"] == "floatllm-build install --jobs 3"
    assert "could not be fetched" in error["message"]
    assert json.loads(parts["environment.json"])["variables"]["PIP_NO_INDEX"] == "1"
    assert json.loads(parts["versions.json"])["ggml"]["release"]
    assert json.loads(parts["plan.json"])["plan"]["preset"] == "cpu"
    words = ("TopSecret", "open-sesame", "correct-horse", "shibboleth", "letmein", "example.org", "joe:")
    for name, text in parts.items():
        assert [word for word in (*words, "ada-lovelace", "difference-engine") if word in text] == [], name
    # And it is a recorded host like any other.
    (tmp_path / "host.json").write_text(parts["host.json"])
    again = tool_env.tool("plan", "--json", "--from", tmp_path / "host.json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["preset"] == "cpu"


def test_a_second_report_needs_another_name(tool_env: Environment, tmp_path: Path) -> None:
    path = tmp_path / "r.zip"
    path.write_text("mine")
    done = tool_env.tool("report", "--out", path)
    assert done.returncode == 2
    assert "there already" in done.stderr
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("variables", "name", "said"),
    [
        ({"FLOATLLM_MEMORY": "lots"}, "plan.json", "is not a size"),
        ({"FLOATLLM_BACKEND": "metal"}, "plan.json", "metal was asked for"),
        ({"FLOATLLM_PYTHON": "/nowhere/python"}, "installed.json", "null"),
    ],
)
def test_what_is_wrong_with_a_machine_is_told_too(
    tool_env: Environment, tmp_path: Path, variables: dict[str, str], name: str, said: str
) -> None:
    parts = reported(tool_env, tmp_path / "r.zip", **variables)
    assert said in parts[name]
    assert not [part for part in parts if "failed" in part]


def with_a_fault(
    env: Environment, fault: str, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The tool with a fault of its own."""
    program = (
        f"import sys\nfrom floatllm_build import cli, flow\n{fault}\nsys.argv[1:] = {words!r}\ncli.main()"
    )
    return subprocess.run(
        [env.python, "-c", program],
        cwd=env.prefix,
        env={**env.env, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_fault_of_the_tool_is_a_sentence_and_its_traceback_is_kept(
    tool_env: Environment, tmp_path: Path, mine: dict[str, str]
) -> None:
    fault = "def broken(*_): raise KeyError('hf_TopSecret0123')\nflow.plan = broken"
    done = with_a_fault(tool_env, fault, "plan", **mine)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    said, where, last = done.stderr.splitlines()
    assert "a fault of the tool" in said
    assert "KeyError" in said
    assert "TopSecret" not in done.stderr
    assert "floatllm-build report" in last
    kept = json.loads(Path(where.rpartition(" ")[2]).read_text())
    assert any("in broken" in line for line in kept["trace"])
    (error,) = json.loads(reported(tool_env, tmp_path / "r.zip", **mine)["errors.json"])
    assert (error["exit_code"], error["kind"]) == (1, "KeyError")
    assert "TopSecret" not in json.dumps(error)


def test_a_fault_of_one_part_leaves_the_others(
    tool_env: Environment, tmp_path: Path, mine: dict[str, str]
) -> None:
    fault = "def broken(*_): raise RuntimeError('this part')\nflow.detect = broken"
    path = tmp_path / "r.zip"
    done = with_a_fault(tool_env, fault, "report", "--out", str(path), **mine)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(path) as archive:
        assert "RuntimeError: this part" in archive.read("host-failed.txt").decode()
        assert "versions.json" in archive.namelist()


def test_usage_errors_are_not_kept(tool_env: Environment, mine: dict[str, str]) -> None:
    assert tool_env.tool("plan", "--memory", "lots", **mine).returncode == 2
    assert not (Path(mine["FLOATLLM_CACHE_DIR"]) / "errors").exists()
