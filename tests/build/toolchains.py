"""Toolchains that the tests bring along: many versions of CMake, a CUDA toolkit, newer Vulkan headers.

None of them touches the system. They are kept between runs in the user's cache, below `floatllm-tests`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import platformdirs
import pytest
from tool_environment import skip_or_fail

from floatllm_build.cuda_toolkit import fetch_toolkit
from floatllm_build.errors import MissingError
from floatllm_build.lock import cache_lock
from floatllm_build.rules.cuda_index import INDEX_KIT, INDEX_REQUIREMENT
from floatllm_build.system import LiveSystem
from floatllm_build.values import PlannedToolkit

OLDEST = "3.25.0"
"""What the presets and CMakeLists.txt state as the minimum."""
SERIES = (
    OLDEST,
    *(f"3.{minor}" for minor in range(25, 32)),
    *(f"4.{minor}" for minor in range(5)),
    "newest",
)
"""Each series of CMake that has wheels, and whatever the package index calls the newest today."""

VULKAN_HEADERS = 272
"""The oldest VK_HEADER_VERSION that the tool takes for ggml's Vulkan backend."""
_NEWER_SUITE = "trixie"
_DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NEWER_PACKAGES = ("libvulkan-dev", "spirv-headers")

_KEPT = platformdirs.user_cache_path("floatllm-tests")


def kept(name: str) -> bool:
    return (_KEPT / name).is_dir()


def keep(name: str, make: Callable[[Path], None]) -> Path:
    """The kept folder, made once: in a folder beside it, so that half of one is never taken for a whole."""
    folder = _KEPT / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            make(scratch)
            try:
                scratch.rename(folder)
            except OSError:
                # Another run was quicker.
                assert folder.is_dir()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def packages(name: str, *requirements: str) -> Path:
    """A kept folder with these packages and what they need, for PYTHONPATH."""

    def make(folder: Path) -> None:
        first, *more = requirements
        _pip(folder, first, *more)

    return keep(name, make)


def _pip(folder: Path, requirement: str, *options: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary=:all:", *options, "--target", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        skip_or_fail(f"{requirement} cannot be had, perhaps without a network: {done.stderr.strip()[-300:]}")


@cache
def cmake(series: str) -> str:
    """A CMake of the series."""

    def make(folder: Path) -> None:
        exact = series.count(".") == 2
        _pip(
            folder, "cmake" if series == "newest" else f"cmake=={series}{'' if exact else '.*'}", "--no-deps"
        )
        for large in ("doc", "bin/ctest", "bin/cpack", "bin/ccmake"):
            path = folder / "cmake" / "data" / large
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    if series == "newest":
        # What is newest changes, so this one is not kept.
        folder = Path(tempfile.mkdtemp(prefix="floatllm-cmake-"))
        make(folder)
    else:
        folder = keep(f"cmake/{series}", make)
    return str(folder / "cmake" / "data" / "bin" / "cmake")


@cache
def nvcc() -> Path:
    """The compiler of the CUDA toolkit that the tool fetches. Skips a user's run where it is not kept yet."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the package index has CUDA toolkits for Linux and Windows, and only Linux is tried here")
    plain = INDEX_KIT.nvcc.replace("{cache}", str(_KEPT))
    toolkit = PlannedToolkit(nvcc=plain, version=INDEX_KIT.version, download=620 << 20, requires=())
    if not Path(plain).is_file() and os.environ.get("CI") != "true":
        pytest.skip(f"{INDEX_REQUIREMENT} is a download of 600 MB; with CI=true it is fetched and kept")
    try:
        with cache_lock(_KEPT, lambda _: None):
            fetch_toolkit(LiveSystem(), toolkit, _KEPT, lambda _: None)
    except MissingError as error:
        skip_or_fail(str(error))
    return Path(plain)


def header_version(include: Path) -> int:
    """VK_HEADER_VERSION of the headers in a folder, 0 where there are none."""
    try:
        text = (include / "vulkan" / "vulkan_core.h").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^#define VK_HEADER_VERSION (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def vulkan_tools() -> None:
    """Skips, or fails in CI, where the distribution's own part of building for Vulkan is not installed."""
    include = Path("/usr/include")
    if not (shutil.which("glslc") and header_version(include)):
        skip_or_fail("no Vulkan development files (Debian: apt install libvulkan-dev glslc spirv-headers)")


@cache
def vulkan_sdk() -> dict[str, str]:
    """The environment in which CMake finds headers that ggml's Vulkan backend compiles with."""
    vulkan_tools()
    sdk = os.environ.get("VULKAN_SDK")
    if sdk and header_version(Path(sdk) / "include") >= VULKAN_HEADERS:
        return {"VULKAN_SDK": sdk}
    if header_version(Path("/usr/include")) >= VULKAN_HEADERS:
        return {}
    if not on_debian():
        pytest.skip(f"Vulkan headers before 1.x.{VULKAN_HEADERS}, and newer ones are known for Debian only")
    folder = keep(f"vulkan-{_NEWER_SUITE}", _download_headers) / "usr"
    assert header_version(folder / "include") >= VULKAN_HEADERS
    return {"VULKAN_SDK": str(folder)}


# A thousand shaders take longer than all the rest, and are the same for each engine with Vulkan.
_GLSLC = """#!/bin/sh
# glslc, which compiles a shader once: the same words, the same source, the same includes.
for word; do
    case $before in
        -o) out=$word ;;
        -MF) depends=$word ;;
        *) case $word in *.comp) shader=$word ;; -o | -MF) ;; *) words="$words $word" ;; esac ;;
    esac
    before=$word
done
[ -n "$shader" ] && [ -n "$out" ] && [ "$out" != - ] || exec "{real}" "$@"
key=$({{ echo "$words ${{shader##*/}}"; cat "$shader" "${{shader%/*}}"/*.glsl; }} | sha256sum | cut -c 1-64)
if [ -f "{kept}/$key" ]; then
    cp "{kept}/$key" "$out" || exit
    [ -z "$depends" ] || echo "$out: $shader" >"$depends"
else
    "{real}" "$@" || exit
    cp "$out" "{kept}/$key.$$" && mv "{kept}/$key.$$" "{kept}/$key"
fi
"""


def quick_glslc(kept: Path) -> dict[str, str]:
    """PATH with a glslc that keeps what it compiles in the folder `kept`."""
    real = shutil.which("glslc")
    assert real, "vulkan_sdk() asks for it"
    program = kept / "bin" / "glslc"
    program.parent.mkdir(exist_ok=True)
    program.write_text(_GLSLC.format(real=real, kept=kept))
    program.chmod(0o755)
    return {"PATH": os.pathsep.join((str(program.parent), os.environ["PATH"]))}


def _download_headers(folder: Path) -> None:
    unpack_from(_NEWER_SUITE, folder, _NEWER_PACKAGES)
    # It points to a library that is not here; the distribution's own is the one to link.
    for link in folder.rglob("libvulkan.so"):
        link.unlink()


def on_debian() -> bool:
    release = Path("/etc/os-release")
    return bool(shutil.which("apt-get")) and "ID=debian" in release.read_text(encoding="utf-8").split()


def unpack_from(
    suite: str, folder: Path, names: tuple[str, ...], *, whole: bool = False, without: tuple[str, ...] = ()
) -> None:
    """Unpacks packages of another release of Debian, from where apt gets this one's. Needs no root.

    `whole`: and all that they depend on, but for those whose names start like one of `without`.
    """
    shape = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    targets = _apt("indextargets", "--format", shape, "Created-By: Packages").splitlines()
    release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    assert release
    found = [line.split() for line in targets if line.endswith(f" {release[1]} main")]
    if not found:
        skip_or_fail(f"apt has no source for {release[1]}; run apt-get update")
    address = found[0][0]
    with tempfile.TemporaryDirectory() as scratch:
        lists = Path(scratch, "lists")
        (lists / "partial").mkdir(parents=True)
        signed = f"[signed-by={_DEBIAN_KEYS}] " if _DEBIAN_KEYS.exists() else ""
        source = Path(scratch, "newer.list")
        source.write_text(f"deb {signed}{address} {suite} main\n")
        options = [f"Dir::Etc::SourceList={source}", "Dir::Etc::SourceParts=/dev/null"]
        options += [f"Dir::State::Lists={lists}", f"Dir::Cache={scratch}", "Dir::State::Status=/dev/null"]
        # The folder is ours alone, so the user that apt would fall back to could not write there.
        options += ["APT::Sandbox::User=", "APT::Get::List-Cleanup=false"]
        settings = [part for option in options for part in ("-o", option)]
        _apt(*settings, "update")
        if whole:
            said = _apt(*settings, "install", "--simulate", "--no-install-recommends", *names)
            wanted = re.findall(r"^Inst (\S+)", said, re.MULTILINE)
            names = tuple(name for name in wanted if not name.startswith(without or "/"))
        _apt(*settings, "download", *names, cwd=scratch)
        packages = sorted(Path(scratch).glob("*.deb"))
        assert len(packages) == len(names)
        for package in packages:
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)


def _apt(*arguments: str, cwd: str | None = None) -> str:
    done = subprocess.run(["apt-get", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(
            f"apt-get {arguments[-1]} failed, perhaps without a network: {done.stderr.strip()[-300:]}"
        )
    return done.stdout
