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

OLDEST = "3.25.0"
"""What the presets and CMakeLists.txt state as the minimum."""
SERIES = (
    OLDEST,
    *(f"3.{minor}" for minor in range(25, 32)),
    *(f"4.{minor}" for minor in range(5)),
    "newest",
)
"""Each series of CMake that has wheels, and whatever the package index calls the newest today."""

CUDA_TOOLKIT = "cuda-toolkit[nvcc,cccl,cublas,crt,cudart]==13.4.3"
VULKAN_HEADERS = 272
"""The oldest VK_HEADER_VERSION that the tool takes for ggml's Vulkan backend."""
_NEWER_SUITE = "trixie"
_DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_NEWER_PACKAGES = ("libvulkan-dev", "spirv-headers")

_KEPT = platformdirs.user_cache_path("floatllm-tests")


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
    """The compiler of a CUDA toolkit from the package index. Skips a user's run where it is not kept yet."""
    name = re.sub(r"[^\w.]+", "-", CUDA_TOOLKIT)
    if not sys.platform.startswith("linux"):
        pytest.skip("the package index has CUDA toolkits for Linux and Windows, and only Linux is tried here")
    if not (_KEPT / name).is_dir() and os.environ.get("CI") != "true":
        pytest.skip(f"{CUDA_TOOLKIT} is a download of 600 MB; with CI=true it is fetched and kept")
    folder = keep(name, lambda folder: _pip(folder, CUDA_TOOLKIT))
    return next(folder.glob("nvidia/cu*/bin/nvcc"))


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
    if not shutil.which("apt-get") or "ID=debian" not in Path("/etc/os-release").read_text().split():
        pytest.skip(f"Vulkan headers before 1.x.{VULKAN_HEADERS}, and newer ones are known for Debian only")
    folder = keep(f"vulkan-{_NEWER_SUITE}", _download_headers) / "usr"
    assert header_version(folder / "include") >= VULKAN_HEADERS
    return {"VULKAN_SDK": str(folder)}


def _download_headers(folder: Path) -> None:
    """Unpacks the headers of Debian's next release, from where apt gets this one's. Needs no root."""
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
        source.write_text(f"deb {signed}{address} {_NEWER_SUITE} main\n")
        options = [f"Dir::Etc::SourceList={source}", "Dir::Etc::SourceParts=/dev/null"]
        options += [f"Dir::State::Lists={lists}", f"Dir::Cache={scratch}", "Dir::State::Status=/dev/null"]
        # The folder is ours alone, so the user that apt would fall back to could not write there.
        options += ["APT::Sandbox::User=", "APT::Get::List-Cleanup=false"]
        settings = [part for option in options for part in ("-o", option)]
        _apt(*settings, "update")
        _apt(*settings, "download", *_NEWER_PACKAGES, cwd=scratch)
        packages = sorted(Path(scratch).glob("*.deb"))
        assert len(packages) == len(_NEWER_PACKAGES)
        for package in packages:
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    # It points to a library that is not here; the distribution's own is the one to link.
    for link in folder.rglob("libvulkan.so"):
        link.unlink()


def _apt(*arguments: str, cwd: str | None = None) -> str:
    done = subprocess.run(["apt-get", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(
            f"apt-get {arguments[-1]} failed, perhaps without a network: {done.stderr.strip()[-300:]}"
        )
    return done.stdout
