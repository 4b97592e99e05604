"""The pinned source: hashed, fetched, verified; and refused without a trace where it is something else."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tool_environment import skip_or_fail

from floatllm_build.errors import SourceFaultError, UsageFaultError
from floatllm_build.ggml_source import (
    Pin,
    fetch,
    hash_folder,
    locate,
    read_pin,
    tree_files,
    tree_sha256,
)
from floatllm_build.network import proxy_variables
from floatllm_build.paths import cache_dir
from floatllm_build.pip import Fetched
from floatllm_build.system import Completed, LiveSystem

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "LICENSE": b"MIT\n",
    "include/llama.h": b"int x;\n",
    "src/llama.cpp": b"int x;\n",
    "src/models/llama.cpp": b"int x;\n",
    "ggml/CMakeLists.txt": b"project(ggml)\n",
    "ggml/cmake/common.cmake": b"# x\n",
    "ggml/include/ggml.h": b"int x;\n",
    "ggml/src/ggml.c": b"int x;\n",
    "ggml/src/ggml-cpu/ops.cpp": b"\xff\x00binary",
}


def _tree(files: dict[str, bytes]) -> str:
    return tree_sha256((path, hashlib.sha256(content).hexdigest()) for path, content in files.items())


def _archive(extra: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        names = {f"pkg-1/thirdparty/llama.cpp/{path}": content for path, content in FILES.items()}
        for name, content in {**names, **extra}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("pkg-1/thirdparty/llama.cpp/src/link.c")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return packed.getvalue()


@dataclass(frozen=True)
class Index(LiveSystem):
    """A package index of one archive: answers `pip download` and nothing else."""

    archive: bytes
    name: str = "pkg-1.tar.gz"
    rc: int = 0
    offline: bool = False

    def run(
        self, argv: tuple[str, ...], *, timeout: float = 5.0, variables: Mapping[str, str] | None = None
    ) -> Completed:
        if "download" in argv and "--help" not in argv:
            assert {"--require-hashes", "--no-deps"} <= set(argv)
            if self.rc == 0:
                (Path(argv[argv.index("-d") + 1]) / self.name).write_bytes(self.archive)
            return Completed(rc=self.rc, out="", err="ERROR: no matching distribution" if self.rc else "")
        return Completed(rc=0, out="--index-url <url> (default https://index.invalid/simple).", err="")

    def ask(self, question: str, subject: str = "", *, timeout: float = 5.0) -> Completed:
        assert (question, subject) == ("reach", "index.invalid:443")
        return Completed(rc=0, out=json.dumps({"reached": not self.offline, "why": "No route"}), err="")


def _pin(archive: bytes, **changed: Any) -> Pin:
    pin = replace(
        read_pin(ROOT),
        archive="pkg-1.tar.gz",
        archive_sha256=hashlib.sha256(archive).hexdigest(),
        tree_sha256=_tree(FILES),
    )
    return replace(pin, **changed)


def _left_over(cache: Path) -> list[str]:
    return [path.name for path in (cache / "ggml").iterdir()]


def test_fetched_once_then_found_without_asking(tmp_path: Path) -> None:
    archive = _archive({})
    pin = _pin(archive)
    assert locate(pin, ROOT, tmp_path, None) is None
    source = fetch(Index(archive), pin, tmp_path)
    assert source.fetched
    found = locate(pin, ROOT, tmp_path, None)
    assert found is not None
    assert found.folder == source.folder
    assert not found.fetched
    assert _left_over(tmp_path) == [pin.folder_name]


def test_only_the_pinned_files_are_kept(tmp_path: Path) -> None:
    extra = {
        "pkg-1/setup.py": b"x",
        "pkg-1/thirdparty/llama.cpp/tests/test.c": b"x",
        "pkg-1/thirdparty/llama.cpp/ggml/src/ggml-sycl/ggml-sycl.cpp": b"x",
        "pkg-1/thirdparty/llama.cpp/src/../../../../evil.c": b"x",
    }
    archive = _archive(extra)
    folder = Path(fetch(Index(archive), _pin(archive), tmp_path).folder)
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    assert kept == set(FILES)


@pytest.mark.parametrize("changed", [{"archive_sha256": "0" * 64}, {"tree_sha256": "0" * 64}])
def test_a_wrong_hash_is_refused_and_leaves_nothing(tmp_path: Path, changed: dict[str, str]) -> None:
    archive = _archive({})
    with pytest.raises(SourceFaultError, match=r"0{64}") as caught:
        fetch(Index(archive), _pin(archive, **changed), tmp_path)
    assert caught.value.exit_code == 6
    assert "--ggml-dir" in str(caught.value)
    assert _left_over(tmp_path) == []


def test_an_index_that_does_not_answer_is_exit_6_with_its_words(tmp_path: Path) -> None:
    archive = _archive({})
    with pytest.raises(SourceFaultError, match="no matching distribution") as caught:
        fetch(Index(archive, rc=1), _pin(archive), tmp_path)
    assert "Fix this" in str(caught.value)
    assert "connection" not in str(caught.value)
    assert _left_over(tmp_path) == []


def test_a_proxy_in_the_environment_is_named_and_its_password_is_not() -> None:
    environment = {"HTTPS_PROXY": "http://me:secret@proxy:3128", "http_proxy": "", "PATH": "/bin"}
    assert proxy_variables(environment, ("index.corp:443",)) == ()
    names = proxy_variables(environment, ("proxy:3128",))
    assert names == ("HTTPS_PROXY",)
    done = Completed(rc=1, out="", err="")
    said = Fetched(done=done, offline="there is no network", settings=(), proxies=names).why
    assert said == "there is no network. HTTPS_PROXY names a proxy: check that it is right. "


def test_no_network_is_said_as_such(tmp_path: Path) -> None:
    archive = _archive({})
    with pytest.raises(SourceFaultError, match=r"there is no network.*index\.invalid \(No route\)") as caught:
        fetch(Index(archive, rc=1, offline=True), _pin(archive), tmp_path)
    for words in ("Check the connection", "`floatllm-build fetch`", "--ggml-dir FOLDER"):
        assert words in str(caught.value)
    assert "git clone" not in str(caught.value), "it needs a network too"
    assert _left_over(tmp_path) == []


def test_a_changed_tree_in_the_cache_is_not_used(tmp_path: Path) -> None:
    archive = _archive({})
    pin = _pin(archive)
    folder = Path(fetch(Index(archive), pin, tmp_path).folder)
    (folder / "src/llama.cpp").write_text("int y;\n")
    assert locate(pin, ROOT, tmp_path, None) is None
    again = Path(fetch(Index(archive), pin, tmp_path).folder)
    assert (again / "src/llama.cpp").read_bytes() == FILES["src/llama.cpp"]


def test_a_tree_of_ones_own_is_taken_and_called_so(tmp_path: Path) -> None:
    for path, content in {**FILES, "src/more.c": b"x"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    pin = _pin(b"")
    source = locate(pin, ROOT, tmp_path / "cache", tmp_path)
    assert source is not None
    assert not source.pinned
    (tmp_path / "src/more.c").unlink()
    assert hash_folder(pin, tmp_path) == pin.tree_sha256
    with pytest.raises(UsageFaultError, match=r"ggml\.h"):
        locate(pin, ROOT, tmp_path, tmp_path / "src")
    with pytest.raises(UsageFaultError, match="holds ggml alone"):
        locate(pin, ROOT, tmp_path, tmp_path / "ggml")


def test_the_order_of_files_is_that_of_bytes() -> None:
    names = ["src/a-b.c", "src/a.c", "src/a/b.c", "src/B.c", "src/ä.c"]
    files = [(name, "0") for name in names]
    assert tree_sha256(files) == tree_sha256(reversed(files))
    lines = "".join(f"0  {name}\n" for name in ["src/B.c", "src/a-b.c", "src/a.c", "src/a/b.c", "src/ä.c"])
    assert tree_sha256(files) == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        *(("LICENSE", True), ("src/x", True), ("src/models/x", True), ("ggml/src/x", True)),
        *(("ggml/src/ggml-cpu/arch/x", True), ("ggml/src/ggml-sycl/x", False), ("ggml/x", False)),
        *(("srcs/x", False), ("README.md", False), ("tests/LICENSE", False)),
    ],
)
def test_which_files_count(path: str, kept: bool) -> None:
    assert read_pin(ROOT).keeps(path) is kept


def _beside(data: Path, files: dict[str, bytes]) -> Path:
    """A tree in ggml/source, with something of the user's own in it."""
    source = data / "ggml" / "source"
    for name, content in {**files, "notes.txt": b"mine"}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return source


def test_a_tree_beside_us_is_taken_into_the_cache(tmp_path: Path) -> None:
    """Whoever unpacked it may delete it: build folders remember where ggml was."""
    pin, cache = _pin(_archive({})), tmp_path / "cache"
    source = _beside(tmp_path, FILES)
    found = locate(pin, tmp_path, cache, None)
    assert found is not None
    assert (found.pinned, found.fetched, Path(found.folder).parent) == (True, False, cache / "ggml")
    assert tree_files(pin, Path(found.folder)) == FILES
    assert _left_over(cache) == [pin.folder_name]
    kept, given = (folder / "src/llama.cpp" for folder in (Path(found.folder), source))
    assert kept.stat().st_mtime == given.stat().st_mtime
    before = (Path(found.folder) / "src/llama.cpp").stat().st_ino
    again = locate(pin, tmp_path, cache, None)
    assert again == found
    assert (Path(found.folder) / "src/llama.cpp").stat().st_ino == before


def test_a_changed_tree_beside_us_is_refused(tmp_path: Path) -> None:
    pin, cache = _pin(_archive({})), tmp_path / "cache"
    source = _beside(tmp_path, {**FILES, "src/llama.cpp": b"int y;\n"})
    with pytest.raises(SourceFaultError, match="was changed"):
        locate(pin, tmp_path, cache, None)
    assert not cache.exists()
    chosen = locate(pin, tmp_path, cache, source)
    assert chosen is not None
    assert not chosen.pinned


# ---- CMake alone --------------------------------------------------------------------------------


@pytest.mark.programs
@pytest.mark.parametrize("chosen", [None, "", "mine"])
def test_cmake_looks_into_the_cache_of_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    program = shutil.which("cmake") or skip_or_fail("cmake is not on PATH (Debian: apt install cmake)")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("FLOATLLM_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if chosen is not None:
        monkeypatch.setenv("FLOATLLM_CACHE_DIR", str(tmp_path / chosen) if chosen else "")
    text = (ROOT / "ggml" / "FloatllmGgml.cmake").read_text(encoding="utf-8")
    function = re.search(
        r"^function\(floatllm_user_cache_dir .*?^endfunction\(\)\n", text, re.DOTALL | re.MULTILINE
    )
    assert function
    script = tmp_path / "ask.cmake"
    script.write_text(f'{function[0]}floatllm_user_cache_dir(dir)\nmessage("<${{dir}}>")\n', encoding="utf-8")
    done = subprocess.run([program, "-P", script], capture_output=True, text=True, check=True)
    assert f"<{cache_dir().as_posix()}>" in done.stderr
