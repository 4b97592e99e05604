"""Locates, fetches and verifies the source that ggml/pin.json pins: llama.cpp, and ggml within it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from floatllm_build.errors import MissingError, SourceFaultError, UsageFaultError
from floatllm_build.files import scratch_in, sha256_file
from floatllm_build.pip import fetch_with_pip
from floatllm_build.system import System
from floatllm_build.values import GgmlSource

_WITHOUT_A_NETWORK = (
    "Check the connection and run this again. If this machine has no network, run `floatllm-build fetch` on "
    "one that has, copy the folder that it prints to this one, and run floatllm-build install --ggml-dir "
    "FOLDER here."
)


@dataclass(frozen=True)
class Pin:
    version: str
    """ggml's."""
    release: str
    """llama.cpp's tag. Its ggml is not ggml's own tag of the same version."""
    tree_sha256: str
    tree: tuple[str, ...]
    """What is kept of it: a file, `folder/*` for the files in a folder, `folder/**` for all below it."""
    requirement: str
    archive: str
    archive_sha256: str
    archive_bytes: int
    subfolder: str
    repository: str
    tag: str

    @property
    def what(self) -> str:
        return f"llama.cpp {self.release} with ggml {self.version}"

    @property
    def folder_name(self) -> str:
        """ggml/FloatllmGgml.cmake looks for the same name in the cache."""
        return f"{self.version}-{self.tree_sha256[:16]}"

    @property
    def by_hand(self) -> str:
        return (
            f"Or get it from the project itself: git clone --depth 1 --branch {self.tag} {self.repository} "
            "ggml-source, then add --ggml-dir ggml-source."
        )

    def keeps(self, path: str) -> bool:
        """Whether a file, by its POSIX path inside the source, belongs to what is pinned and kept."""
        return any(_matches(pattern, path) for pattern in self.tree)


def read_pin(data: Path) -> Pin:
    try:
        pin = json.loads((data / "ggml" / "pin.json").read_text(encoding="utf-8"))
        index, git = pin["origins"]
        return Pin(
            version=pin["version"],
            release=pin["release"],
            tree_sha256=pin["tree_sha256"],
            tree=tuple(pin["tree"]),
            requirement=index["requirement"],
            archive=index["archive"],
            archive_sha256=index["sha256"],
            archive_bytes=index["bytes"],
            subfolder=index["subfolder"],
            repository=git["repository"],
            tag=git["tag"],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MissingError(f"{data}/ggml/pin.json is damaged ({error!r}). Install the tool again.") from error


def _matches(pattern: str, path: str) -> bool:
    folder, _, rest = pattern.rpartition("/")
    if rest == "**":
        return path.startswith(f"{folder}/")
    return path.rpartition("/")[0] == folder if rest == "*" else path == pattern


def tree_sha256(files: Iterable[tuple[str, str]]) -> str:
    r"""The tree hash of (path, SHA-256 of its content), in any order.

    SHA-256 over "<sha256 of file>  <path>\n", sorted by path in byte order. CMake computes the same.
    """
    lines = (f"{digest}  {path}\n" for path, digest in sorted(files, key=lambda file: file[0].encode()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_folder(pin: Pin, folder: Path) -> str:
    """The tree hash of a source folder."""
    return tree_sha256((name, sha256_file(path)) for name, path in _pinned_paths(pin, folder))


def tree_files(pin: Pin, folder: Path) -> dict[str, bytes]:
    """Content by POSIX path of what is pinned of a source folder."""
    return {name: path.read_bytes() for name, path in sorted(_pinned_paths(pin, folder))}


def _pinned_paths(pin: Pin, folder: Path) -> Iterator[tuple[str, Path]]:
    # Only where something may be kept: a clone has a hundred megabytes elsewhere.
    for pattern in pin.tree:
        head, _, rest = pattern.rpartition("/")
        inside = folder / head
        found = inside.rglob("*") if rest == "**" else inside.glob("*") if rest == "*" else [folder / pattern]
        yield from ((path.relative_to(folder).as_posix(), path) for path in found if path.is_file())


def check_chosen(chosen: Path) -> None:
    """Raises UsageFaultError if the user's folder is not a tree of llama.cpp."""
    if (chosen / "include" / "ggml.h").is_file():
        raise UsageFaultError(
            f"{chosen} holds ggml alone, and FloatLLM needs llama.cpp, which has a ggml of its own. Give the "
            "folder of a clone of llama.cpp."
        )
    for name in ("ggml/include/ggml.h", "include/llama.h"):
        if not (chosen / name).is_file():
            raise UsageFaultError(
                f"{chosen} is not the source of llama.cpp: it has no {name}. Give the folder of a clone."
            )


def locate(pin: Pin, data: Path, cache: Path, chosen: Path | None) -> GgmlSource | None:
    """The user's own folder, or the verified one in the cache; None where that has to be fetched.

    A tree that lies beside us, in ggml/source below `data`, as the engine's source archive has it, is taken
    into the cache: builds last longer than the folder in which pip unpacks such an archive.

    Raises UsageFaultError if the user's folder is not llama.cpp, SourceFaultError if the tree beside us is
    not the pinned one.
    """
    if chosen is not None:
        check_chosen(chosen)
        found = hash_folder(pin, chosen)
        return GgmlSource(folder=str(chosen.resolve()), tree_sha256=found, pinned=found == pin.tree_sha256)
    beside = data / "ggml" / "source"
    if beside.is_dir():
        _verify(pin, beside)
    folder = cache / "ggml" / pin.folder_name
    # A tree that was changed since is as good as none: it is fetched again.
    if folder.is_dir() and hash_folder(pin, folder) == pin.tree_sha256:
        return GgmlSource(folder=str(folder), tree_sha256=pin.tree_sha256, pinned=True)
    return _take(pin, beside, cache) if beside.is_dir() else None


def _verify(pin: Pin, beside: Path) -> None:
    found = hash_folder(pin, beside)
    if found != pin.tree_sha256:
        raise SourceFaultError(
            f"The source of llama.cpp in {beside} was changed: its tree hash is {found}, pinned is "
            f"{pin.tree_sha256}. Unpack the archive again or delete that folder; a tree of your own is named "
            "with --ggml-dir."
        )


def _take(pin: Pin, beside: Path, cache: Path) -> GgmlSource:
    with scratch_in(cache / "ggml", ".take-") as scratch:
        try:
            tree = scratch / "tree"
            for name, _ in _pinned_paths(pin, beside):
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(beside / name, tree / name)
            return _keep(pin, tree, cache)
        except OSError as error:
            raise _not_kept(pin, cache, error) from error


def _keep(pin: Pin, tree: Path, cache: Path) -> GgmlSource:
    """Moves a verified tree to its place."""
    folder = cache / "ggml" / pin.folder_name
    shutil.rmtree(folder, ignore_errors=True)
    tree.replace(folder)
    return GgmlSource(folder=str(folder), tree_sha256=pin.tree_sha256, pinned=True)


def _not_kept(pin: Pin, cache: Path, error: OSError) -> SourceFaultError:
    return SourceFaultError(
        f"The source of llama.cpp {pin.release} could not be kept in {cache / 'ggml'}: "
        f"{error.strerror or error}. Make room there, or name a folder on another disk in "
        "FLOATLLM_CACHE_DIR, and run this again."
    )


def fetch(system: System, pin: Pin, cache: Path) -> GgmlSource:
    """Brings the pinned source through the user's package index into the cache.

    Raises SourceFaultError where it cannot be had or is not what was pinned; the cache then holds nothing
    of it.
    """
    with scratch_in(cache / "ggml", ".fetch-") as scratch:
        try:
            archive = download(system, pin, cache, scratch)
            tree = scratch / "tree"
            _unpack(archive, pin, tree)
            found = hash_folder(pin, tree)
            if found != pin.tree_sha256:
                raise SourceFaultError(
                    f"The source of llama.cpp in {pin.archive} is not the pinned one: its tree hash is "
                    f"{found}, pinned is {pin.tree_sha256}. Nothing of it was kept. {pin.by_hand}"
                )
            return replace(_keep(pin, tree, cache), fetched=True)
        except OSError as error:
            raise _not_kept(pin, cache, error) from error


def download(system: System, pin: Pin, cache: Path, scratch: Path) -> Path:
    """The archive that holds the pinned tree, in the folder `scratch`. Raises SourceFaultError as fetch()."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.archive_sha256}\n", encoding="utf-8")
    package = pin.requirement.partition("==")[0]
    # pip runs the build backend of a source archive for its metadata. It brings what that needs by itself:
    # setuptools, versioneer and Cython, which has a wheel without compiled code for every machine.
    options = ("--no-deps", "--no-binary", package, "--require-hashes")
    fetched = fetch_with_pip(
        system,
        cache,
        "download",
        *options,
        "-d",
        str(scratch),
        "-r",
        str(requirements),
    )
    archive = scratch / pin.archive
    if fetched.done.rc != 0 or not archive.is_file():
        then = _WITHOUT_A_NETWORK if fetched.offline else f"Fix this and run the command again. {pin.by_hand}"
        raise SourceFaultError(
            f"The source of llama.cpp {pin.release} could not be fetched: {fetched.why}{then}"
        )
    found = sha256_file(archive)
    if found != pin.archive_sha256:
        raise SourceFaultError(
            f"{pin.archive} has the SHA-256 {found}; pinned is {pin.archive_sha256}. Nothing of it was kept: "
            f"the index served something else. {pin.by_hand}"
        )
    return archive


def _unpack(archive: Path, pin: Pin, tree: Path) -> None:
    """Writes the pinned files of the archive below `tree`, and nothing else of it."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                # The first part of each path is the archive's own folder.
                inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                if not member.isreg() or ".." in inside.parts or not inside.is_relative_to(pin.subfolder):
                    continue
                path = inside.relative_to(pin.subfolder).as_posix()
                content = tar.extractfile(member) if pin.keeps(path) else None
                if content:
                    target = tree / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file)
                    # Its own time: fetched again, the same file does not have all be compiled again.
                    os.utime(target, (member.mtime, member.mtime))
    except (tarfile.TarError, EOFError) as error:
        raise SourceFaultError(f"{archive.name} cannot be unpacked: {error}. Run this again.") from error
