"""The user's settings of pip and uv: what says where from is heeded, what says where to and how is not."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_wheels import small_wheel, uv_or_skip
from tool_environment import make_venv

from floatllm_build import pip_settings
from floatllm_build.errors import MissingError
from floatllm_build.host.python import probe_target
from floatllm_build.install import holds, install
from floatllm_build.network import places
from floatllm_build.paths import existing
from floatllm_build.pip import fetch_with_pip
from floatllm_build.pip_settings import Section, advice, for_pip, index_settings, pip_sections
from floatllm_build.start import changed
from floatllm_build.system import LiveSystem
from floatllm_build.uv_settings import for_fetching, for_local_wheels, uv_files

# Each breaks an installation of a wheel of ours, or leads it elsewhere. pip 26.3, `pip install --help`.
HARMFUL = {
    "user": "1",
    "target": "ELSEWHERE",
    "prefix": "ELSEWHERE",
    "root": "ELSEWHERE",
    "dry-run": "1",
    "require-hashes": "1",
    "constraint": "ELSEWHERE/none.txt",
    "build-constraint": "ELSEWHERE/none.txt",
    "requirement": "ELSEWHERE/none.txt",
    "editable": "ELSEWHERE",
    "python": "ELSEWHERE/python",
    "platform": "win_amd64",
    "python-version": "2.7",
    "implementation": "pp",
    "abi": "none9",
    "only-binary": ":none:",
    "no-binary": ":all:",
    "no-deps": "1",
    "log": "ELSEWHERE/log",
    "report": "ELSEWHERE/report",
    "quiet": "3",
    "require-virtualenv": "1",
    "break-system-packages": "1",
    "uploaded-prior-to": "2001-01-01",
    "upgrade": "1",
    "no-such-setting": "1",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("target") / "venv")


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's own, but for those that a test makes."""
    for name in [*filter(lambda name: name.startswith(("PIP_", "UV_", "XDG_CONFIG")), os.environ)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


def harmful(elsewhere: Path) -> dict[str, str]:
    return {name: value.replace("ELSEWHERE", str(elsewhere)) for name, value in HARMFUL.items()}


def use(monkeypatch: pytest.MonkeyPatch, form: str, folder: Path, settings: dict[str, str]) -> None:
    """Sets these in one of the forms that pip knows."""
    if form == "variables":
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name.upper().replace('-', '_')}", value)
        return
    half = len(settings) // 2
    lines = [f"{name} = {value}" for name, value in settings.items()]
    text = "\n".join(("[global]", *lines[:half], "[install]", *lines[half:], "[download]", *lines[half:], ""))
    names = {
        "PIP_CONFIG_FILE": "own.conf",
        "XDG_CONFIG_HOME": "pip/pip.conf",
        "XDG_CONFIG_DIRS": "pip/pip.conf",
    }
    file = folder / "settings" / ("home/.pip/pip.conf" if form == "HOME" else names[form])
    file.parent.mkdir(parents=True)
    file.write_text(text)
    where = {"PIP_CONFIG_FILE": file, "HOME": folder / "settings" / "home"}
    monkeypatch.setenv(form, str(where.get(form, folder / "settings")))


FORMS = ("variables", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "HOME")


@pytest.mark.parametrize("form", FORMS)
def test_the_local_wheel_is_installed_whatever_is_set(
    python: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    wheel, system = small_wheel(tmp_path, said=form), LiveSystem()
    use(
        monkeypatch,
        form,
        tmp_path,
        {**harmful(elsewhere), "no-index": "1", "index-url": "http://127.0.0.1:9"},
    )
    install(system, probe_target(system, str(python)), wheel, tmp_path / "cache")
    assert holds(probe_target(system, str(python)), wheel)
    assert not elsewhere.exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_fetch_heeds_where_from_alone(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    wheel, system = small_wheel(tmp_path), LiveSystem()
    # Relative, as its user sees it; no index, so that nothing else has it.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "links").mkdir()
    Path(wheel.path).rename(tmp_path / "links" / Path(wheel.path).name)
    use(monkeypatch, form, tmp_path, {"no-index": "true", "find-links": "links", **harmful(elsewhere)})
    for command, option in (("download", "--dest"), ("install", "--target")):
        out = tmp_path / command
        fetched = fetch_with_pip(system, tmp_path / "cache", command, option, str(out), "floatllm")
        assert fetched.done.rc == 0, fetched.why
        assert list(out.iterdir())
    assert not elsewhere.exists()
    failed = fetch_with_pip(system, tmp_path / "cache", "download", "--dest", str(tmp_path), "no-such-thing")
    assert failed.done.rc != 0
    assert not failed.offline, "it was not to ask anybody"
    source = "PIP_NO_INDEX" if form == "variables" else "no-index in "
    assert f"{source}" in failed.why
    assert "keeps pip from asking a package index" in failed.why


def test_pip_itself_would_have_heeded_the_rest(
    python: Path, tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "PIP_CONFIG_FILE", tmp_path, {"target": str(elsewhere), "user": "1"})
    wheel = small_wheel(tmp_path)
    command = [python, "-m", "pip", "install", "--no-index", wheel.path]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_uv_installs_the_local_wheel_whatever_is_set(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(uv_or_skip()).parent}{os.pathsep}{os.environ['PATH']}")
    python = make_venv(tmp_path / "venv")
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "pip"], check=True)
    settings = tmp_path / "config" / "uv" / "uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f'[pip]\ntarget = "{elsewhere}"\nrequire-hashes = true\npython-platform = "windows"\n'
    )
    for name, value in {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "UV_CONFIG_FILE": str(settings),
        "UV_CONSTRAINT": str(elsewhere / "none.txt"),
        "UV_REQUIRE_HASHES": "1",
        "UV_WORKING_DIR": str(elsewhere),
        "UV_PROJECT": str(elsewhere),
        "UV_EXCLUDE_NEWER": "2001-01-01",
        "UV_NO_BINARY": "1",
    }.items():
        monkeypatch.setenv(name, value)
    wheel, system = small_wheel(tmp_path), LiveSystem()
    install(system, probe_target(system, str(python)), wheel, tmp_path / "cache")
    assert holds(probe_target(system, str(python)), wheel)
    assert not elsewhere.exists()


# ---- which win ----------------------------------------------------------------------------------


def test_the_stronger_setting_wins_as_in_pip() -> None:
    sections = [
        Section("a", "global", {"index-url": "global-a", "find_links": "one\ntwo", "--retries": "1"}),
        Section("a", "download", {"index-url": "download-a", "target": "x"}),
        Section("b", "global", {"index-url": "global-b", "pypi-url": "", "timeout": "5"}),
        Section("b", "install", {"proxy": "not-for-us"}),
    ]
    env = {"PIP_RETRIES": "7", "PIP_DEFAULT_TIMEOUT": "9", "PIP_CERT": "", "PIP_USER": "1", "HOME": "/root"}
    found = index_settings("download", env, sections)
    assert {(one.name, one.value, one.source) for one in found} == {
        ("index-url", "download-a", "index-url in a"),
        ("find-links", "one two", "find-links in a"),
        ("retries", "7", "PIP_RETRIES"),
        ("timeout", "9", "PIP_DEFAULT_TIMEOUT"),
    }
    assert changed(env, for_pip(env, found)) == {
        "HOME": "/root",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "download-a",
        "PIP_FIND_LINKS": "one two",
        "PIP_RETRIES": "7",
        "PIP_TIMEOUT": "9",
    }
    assert "download-a" not in advice(found), "an address may hold a password"
    assert "index-url in a" in advice(found)


@pytest.mark.parametrize("chosen", [False, True])
def test_pips_files_are_those_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    """Those that `pip config list` reads, and the strongest of them is the same."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path}/one:{tmp_path}/two")
    if chosen:
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "chosen.conf"))
    names = (".pip/pip.conf", ".config/pip/pip.conf", "one/pip/pip.conf", "two/pip/pip.conf", "chosen.conf")
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"[global]\nproxy = {name}\nonly-{number} = yes\n")
    said = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    ours: dict[str, str] = {}
    for section in pip_sections(os.environ, sys.prefix):
        ours |= section.options
    assert {line for line in said.splitlines() if line.startswith("global.only")} == {
        f"global.{name}='yes'" for name in ours if name.startswith("only")
    }
    assert f"global.proxy={ours['proxy']!r}" in said.splitlines()
    assert ("only-4" in ours, "only-1" in ours) == (chosen, not chosen)


def test_a_home_that_may_not_be_looked_into_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Path's own questions raise there, up to Python 3.13."""

    def refused(path: Path, **_: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for question in ("is_dir", "is_file", "exists"):
        monkeypatch.setattr(Path, question, refused)
    assert existing(Path("/nowhere/cache")) == Path("/")
    assert uv_files({"UV_CONFIG_FILE": "/nowhere/uv.toml"}) == []
    assert Path("/nowhere/pip.conf") in pip_settings._pip_files(
        {"PIP_CONFIG_FILE": "/nowhere/pip.conf"}, "/usr"
    )


def test_a_file_that_pip_cannot_read_either_is_named(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("no section = here\n")
    with pytest.raises(MissingError, match=r"pip\.conf cannot be read"):
        pip_sections({"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}, str(tmp_path))
    assert pip_sections({"PIP_CONFIG_FILE": os.devnull}, str(tmp_path)) == []


def test_uvs_settings_of_the_index_become_variables(tmp_path: Path) -> None:
    (tmp_path / "uv.toml").write_text(
        'index-url = "https://a"\nextra-index-url = ["https://b", "https://c"]\nnative-tls = true\n'
        'link-mode = "copy"\n[[index]]\nname = "own"\nurl = "https://d"\n[[index]]\nurl = "https://e"\n'
        'default = true\n[[index]]\nname = "x"\nurl = "https://f"\nexplicit = true\n[pip]\ntarget = "y"\n'
        'find-links = ["/one", "/two"]\n'
    )
    env = {
        "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
        "UV_INDEX_OWN_PASSWORD": "p",
        "UV_INDEX_URL": "https://g",
        "UV_PYTHON": "3.9",
        "UV_CACHE_DIR": "/cache",
        "A": "b",
    }
    assert changed(env, for_fetching(env, uv_files(env))) == {
        "A": "b",
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": "/cache",
        "UV_INDEX_OWN_PASSWORD": "p",
        "UV_INDEX_URL": "https://g",
        "UV_EXTRA_INDEX_URL": "https://b https://c",
        "UV_NATIVE_TLS": "true",
        "UV_INDEX": "own=https://d",
        "UV_FIND_LINKS": "/one,/two",
    }
    assert changed(env, for_local_wheels(env)) == {"A": "b", "UV_NO_CONFIG": "1", "UV_CACHE_DIR": "/cache"}
    del env["UV_INDEX_URL"]
    assert for_fetching(env, uv_files(env))["UV_DEFAULT_INDEX"] == "https://e"


def config(folder: Path, name: str, more: str) -> str:
    """A folder with a uv.toml that says something of everything."""
    (folder / name / "uv").mkdir(parents=True)
    (folder / name / "uv" / "uv.toml").write_text(
        f'extra-index-url = ["https://{name}-extra"]\nfind-links = ["/{name}-links"]\n{more}\n'
        f'[[index]]\nurl = "https://{name}-index"\n'
        f'[pip]\nextra-index-url = ["https://{name}-pip"]\nfind-links = ["/{name}-pip-links"]\n'
    )
    return str(folder / name)


@pytest.fixture
def conflicting(tmp_path: Path) -> dict[str, str]:
    """Variables that lead to two files that contradict each other, and to one that uv does not read."""
    user = config(tmp_path, "user", 'index-url = "https://user"\nkeyring-provider = "subprocess"')
    one = config(tmp_path, "one", 'keyring-provider = "disabled"')
    for path, more in ((user, 'index-strategy = "first-index"'), (one, 'index-url = "https://one-of-pip"')):
        with Path(path, "uv", "uv.toml").open("a") as file:
            file.write(more)
    two = config(tmp_path, "two", "")
    return {"XDG_CONFIG_HOME": user, "XDG_CONFIG_DIRS": f"{one}:{two}"}


def test_of_uvs_settings_those_of_pip_win_and_lists_are_combined(conflicting: dict[str, str]) -> None:
    found = for_fetching(conflicting, uv_files(conflicting))
    assert found == {
        "UV_NO_CONFIG": "1",
        "UV_INDEX": "https://user-index https://one-index",
        "UV_INDEX_URL": "https://one-of-pip",
        "UV_EXTRA_INDEX_URL": "https://user-pip https://one-pip https://user-extra https://one-extra",
        "UV_FIND_LINKS": "/user-pip-links,/one-pip-links,/user-links,/one-links",
        "UV_KEYRING_PROVIDER": "subprocess",
        "UV_INDEX_STRATEGY": "first-index",
    }
    env = {**conflicting, "UV_EXTRA_INDEX_URL": "https://mine", "UV_KEYRING_PROVIDER": "disabled"}
    mine = for_fetching(env, uv_files(env))
    assert mine["UV_EXTRA_INDEX_URL"] == f"https://mine {found['UV_EXTRA_INDEX_URL']}"
    assert mine["UV_KEYRING_PROVIDER"] == "disabled"


@pytest.mark.parametrize("own", [{}, {"UV_INDEX_URL": "https://mine"}])
def test_uv_takes_from_variables_what_it_takes_from_files(
    conflicting: dict[str, str], own: dict[str, str]
) -> None:
    def asked(env: dict[str, str]) -> tuple[list[str], ...]:
        command = [uv_or_skip(), "pip", "install", "--show-settings", "x"]
        said = subprocess.check_output(command, env={**os.environ, **env}, text=True)
        found = re.findall(r'given: Some\(\s*"([^"]+)".*?\bdefault: (true|false)', said, re.DOTALL)
        # Of several defaults the first counts.
        return (
            [url for url, default in found if default == "true"][:1],
            [url for url, default in found if default == "false"],
            re.findall(r"\b(?:index_strategy|keyring_provider): (\w+)", said),
        )

    env = {**conflicting, **own}
    ours = asked(changed(env, for_fetching(env, uv_files(env))))
    theirs = asked(env)
    assert theirs[0] == [own.get("UV_INDEX_URL", "https://one-of-pip")]
    assert ours == theirs


# ---- who is asked -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "proxy", "proxies", "asked"),
    [
        (["https://a/simple", "http://b:8080/x", "/a/folder", "file:///x"], "", {}, ("a:443", "b:8080")),
        (["https://a/simple"], "", {"https": "http://p:3128", "http": "http://q:1"}, ("p:3128",)),
        (["https://a/simple", "https://inside/simple"], "", {"all": "socks5://p"}, ("p:1080", "inside:443")),
        (["https://a/simple", "https://inside/simple"], "u:secret@p:8", {"https": "http://q:1"}, ("p:8",)),
        (["https://[::1]/simple"], "", {}, ("::1:443",)),
        (["links"], "p:8", {}, ()),
        (["http://[bad/simple", "https://a/simple"], "", {}, ("a:443",)),
        (["https://a/simple"], "http://[bad", {}, ()),
    ],
)
def test_servers_that_are_asked(
    urls: list[str], proxy: str, proxies: dict[str, str], asked: tuple[str, ...]
) -> None:
    assert places(urls, proxy, proxies, lambda host: host == "inside") == asked
