"""Termux, as far as it can be had without a phone: its folders, programs, variables and wheel tags.

bubblewrap gives a root of its own: Termux' prefix, no /tmp, clang and lld under the names of gcc and ld, and
an index that holds what pip could install on a phone. What no x86 machine can give are bionic, the processor
(test_aarch64.py emulates that) and a Python that calls itself Android: of that one only the tags are tried.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from machines import VENV
from tool_environment import ROOT, skip_or_fail

from floatllm_build import ggml_source
from floatllm_build.errors import MissingError
from floatllm_build.install import check_tag
from floatllm_build.system import LiveSystem
from floatllm_build.values import Wheel
from floatllm_build.wheel_file import platform_fits

sys.path.insert(0, str(ROOT / "tests" / "gguf"))
import gguf_files

# ---- wheel tags ----------------------------------------------------------------------------------

# Packs a project of one file as build/skbuild.py is told to, in a Python that takes itself for Termux'.
_PACKED = """
import os, platform, sys, sysconfig
from types import SimpleNamespace
from floatllm_build.build import skbuild

platform_name, level = sys.argv[1], int(sys.argv[2])
sysconfig.get_config_vars()  # read once, while it is still this Python's
if level:
    sys.platform = "android"
    platform.system = lambda: "Android"
    platform.android_ver = lambda: SimpleNamespace(api_level=level, release="14")
else:
    os.environ["_PYTHON_HOST_PLATFORM"] = platform_name
sysconfig.get_platform = lambda: os.environ.get("_PYTHON_HOST_PLATFORM", platform_name)
skbuild.main(sys.argv[3], '{"build-dir": "out"}')
"""


@pytest.mark.programs
@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform_name", "level", "tag"),
    [
        # Python 3.12 and before.
        ("linux-aarch64", 0, "linux_aarch64"),
        # From 3.13 on, built for Android 7, on Android 7, 12 and 15.
        ("android-24-arm64_v8a", 24, "android_24_arm64_v8a"),
        ("android-24-arm64_v8a", 31, "android_24_arm64_v8a"),
        ("android-24-arm64_v8a", 35, "android_24_arm64_v8a"),
    ],
)
def test_a_wheel_has_the_tag_of_its_python(tmp_path: Path, platform_name: str, level: int, tag: str) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(small LANGUAGES NONE)\n"
        "install(FILES CMakeLists.txt DESTINATION small)\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["scikit-build-core"]\nbuild-backend = "scikit_build_core.build"\n'
        '[project]\nname = "small"\nversion = "1"\n[tool.scikit-build]\nwheel.py-api = "py3"\n'
    )
    _needs("cmake", "ninja")
    done = subprocess.run(
        [sys.executable, "-c", _PACKED, platform_name, str(level), tmp_path / "wheel"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    assert wheel.name == f"small-1-py3-none-{tag}.whl"
    assert platform_fits(wheel, replace(VENV, platform=platform_name))


@pytest.mark.parametrize(
    ("tag", "platform_name", "fits"),
    [
        ("android_24_arm64_v8a", "android-24-arm64_v8a", True),
        ("linux_aarch64", "linux-aarch64", True),
        # A Python of before Android had tags, and one of after: neither takes the other's wheels.
        ("linux_aarch64", "android-24-arm64_v8a", False),
        ("android_24_arm64_v8a", "linux-aarch64", False),
        ("android_24_arm64_v8a", "android-24-x86_64", False),
        ("manylinux_2_28_aarch64", "linux-aarch64", True),
        ("manylinux_2_17_x86_64.manylinux2014_x86_64", "linux-x86_64", True),
        ("musllinux_1_2_x86_64", "linux-x86_64", True),
        ("manylinux_2_28_x86_64", "linux-aarch64", False),
        ("manylinux_2_28_aarch64", "android-24-arm64_v8a", False),
    ],
)
def test_a_wheel_for_another_python_of_the_phone_is_refused(
    tag: str, platform_name: str, *, fits: bool
) -> None:
    wheel = Wheel(path=f"/w/floatllm-0.1.0-py3-none-{tag}.whl", key="k", reused=False)
    target = replace(VENV, platform=platform_name)
    assert platform_fits(Path(wheel.path), target) is fits
    if not fits:
        with pytest.raises(MissingError, match="another platform"):
            check_tag(target, wheel)


def _needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            skip_or_fail(
                f"{program} is not on PATH (Debian: apt install bubblewrap clang lld cmake ninja-build)"
            )


# ---- a root of its own ---------------------------------------------------------------------------

FILES = "/data/data/com.termux/files"
PREFIX, HOME = f"{FILES}/usr", f"{FILES}/home"
CHECKOUT = f"{HOME}/floatllm"
# Termux' package of clang and lld, as pkg lays them: the names of gcc's programs are links.
_LINKS = {
    "clang": ("cc", "gcc", "clang"),
    "clang++": ("c++", "g++", "clang++"),
    "ld.lld": ("ld", "ld.lld"),
    "cmake": ("cmake",),
    "ninja": ("ninja",),
    **{name: (name,) for name in ("ar", "ranlib", "nm", "strip", "sh", "uname", "nproc", "cp")},
}
_SYSTEM_PATH = "/usr/bin:/usr/local/bin:/bin"
_VARIABLES = {
    "PREFIX": PREFIX,
    "TERMUX_VERSION": "0.118.3",
    "HOME": HOME,
    "TMPDIR": f"{PREFIX}/tmp",  # noqa: S108  there is no other
    "PATH": f"{PREFIX}/bin",
    "LANG": "en_US.UTF-8",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": f"{FILES}/index",
}
_ENVIRONMENT = ["--clearenv", *(word for pair in _VARIABLES.items() for word in ("--setenv", *pair))]
# What Termux' cmake knows of itself, because it was built there.
_ANDROID = """
set(CMAKE_HOST_SYSTEM_NAME Android)
set(CMAKE_SYSTEM_NAME Android)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
"""
# Termux' own commands, which here only write down that they were called.
_STUBS = ("pkg", "termux-wake-lock", "termux-wake-unlock", "termux-setup-storage")
PAGE = ROOT / "docs" / "termux.md"


@dataclass(frozen=True)
class Phone:
    """What lies below Termux' folder, and how a program is started where that is all that can be written."""

    files: Path
    scratch: Path

    def words(self, *command: object) -> list[str]:
        """What starts the command there."""
        return ["bwrap", *self._root(), *_ENVIRONMENT, *map(str, command)]

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    def tool(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.run(f"{PREFIX}/bin/floatllm-build", *arguments)

    def _root(self) -> list[str]:
        words = ["--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
        words += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
        for name in ("bin", "lib", "lib64"):
            words += ["--symlink", f"usr/{name}", f"/{name}"]
        # A clang that was not built for Termux asks for `ld` where its own distribution has it.
        words += ["--ro-bind", _program("ld.lld"), str(Path(_program("ld")).resolve())]
        if not sys.base_prefix.startswith("/usr"):
            words += ["--ro-bind", sys.base_prefix, sys.base_prefix]
        words += ["--bind", str(self.files), FILES, "--ro-bind", str(ROOT), CHECKOUT]
        words += ["--ro-bind", str(self.scratch / "build.prop"), "/system/build.prop"]
        return [*words, "--remount-ro", "/", "--chdir", HOME]


def _program(name: str) -> str:
    found = shutil.which(name, path=_SYSTEM_PATH)
    if not found:
        _needs(name)
        pytest.skip(f"{name} is not one of the system's own programs")
    return found


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(f"pip {arguments[0]} failed, perhaps without a network: {done.stderr.strip()[-500:]}")


def _fill_index(index: Path, scratch: Path) -> None:
    """What pip gets on a phone without compiling anything; and the archive with llama.cpp."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:requires|dependencies) = \[(.*?)\]", project, re.MULTILINE | re.DOTALL)
    wanted = [word for text in lists for word in re.findall(r'"(.+?)"', text)]
    assert len(wanted) > 4
    # What pip builds the metadata of the archive with that holds llama.cpp.
    wanted += ["cython", "versioneer[toml]", "setuptools"]
    python = "{}.{}".format(*sys.version_info)
    options = ("--only-binary=:all:", "--platform", "android_24_arm64_v8a", "--python-version", python)
    _pip("download", *options, "--dest", index, *wanted, "pip")
    assert [path.name for path in index.iterdir() if not path.name.endswith("-none-any.whl")] == []
    pin = ggml_source.read_pin(ROOT)
    shutil.copy2(ggml_source.download(LiveSystem(), pin, scratch / "cache", scratch), index)


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Phone:
    """Termux with `pkg install python clang cmake ninja`, and the tool by `pip install ./floatllm`."""
    if sys.platform != "linux":
        pytest.skip("bubblewrap is Linux'")
    _needs("bwrap", "clang", "clang++", "ld.lld")
    folder = tmp_path_factory.mktemp("termux")
    phone = Phone(folder / "files", folder)
    for name in ("usr/bin", "usr/tmp", "home", "index"):
        (phone.files / name).mkdir(parents=True)
    for program, names in _LINKS.items():
        for name in names:
            (phone.files / "usr" / "bin" / name).symlink_to(_program(program))
    for name in _STUBS:
        stub = phone.files / "usr" / "bin" / name
        stub.write_text(f'#!/bin/sh\necho {name} "$@" >> "$HOME/called"\n')
        stub.chmod(0o755)
    properties = {"ro.build.version.release": "14", "ro.build.version.sdk": "34"}
    (folder / "build.prop").write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    probe = phone.run("/usr/bin/true")
    if probe.returncode != 0:
        skip_or_fail(f"bubblewrap may not make a root of its own here: {probe.stderr.strip()[-300:]}")
    _fill_index(phone.files / "index", folder)
    pip = next((phone.files / "index").glob("pip-*.whl")).name
    for command in (
        (Path(sys.executable).resolve(), "-m", "venv", "--without-pip", PREFIX),
        (f"{PREFIX}/bin/python", f"{FILES}/index/{pip}/pip", "install", "--quiet", "pip"),
        (f"{PREFIX}/bin/python", "-m", "pip", "install", "--quiet", CHECKOUT),
    ):
        done = phone.run(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return phone


def test_termux_is_known_by_what_it_is(phone: Phone) -> None:
    done = phone.tool("detect", "--json")
    assert done.returncode == 0, done.stderr
    host = json.loads(done.stdout)
    assert (host["os"]["name"], host["os"]["termux"], host["os"]["api_level"]) == ("Android", True, 34)
    chain = host["toolchain"]
    assert {chain["c"]["kind"], chain["cxx"]["kind"]} == {"clang"}
    assert chain["cxx"]["command"] == "c++"
    assert {linker["kind"] for linker in chain["linkers"]} == {"lld"}


def test_the_plan_is_the_phones(phone: Phone) -> None:
    done = phone.tool("plan", "--low-mem", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["preset"], plan["jobs"], plan["device"]) == ("android-low-mem", 1, "CPU")
    assert "GGML_NATIVE=OFF" in plan["defines"]


@pytest.mark.parametrize("name", ["cmake", "ninja"])
def test_what_pkg_must_bring_is_asked_for_before_anything_is_done(phone: Phone, name: str) -> None:
    program = phone.files / "usr" / "bin" / name
    hidden = program.with_name(f"{name}.hidden")
    program.rename(hidden)
    try:
        done = phone.tool("install", "--low-mem")
    finally:
        hidden.rename(program)
    assert done.returncode == 3, done.stderr
    assert f"pkg install {name}" in done.stderr
    made = {path.name for path in (phone.files / "home" / ".cache" / "floatllm").iterdir()}
    assert made <= {"errors", "lock"}


def _ended_by_android(phone: Phone) -> int:
    """All processes of an install at once, in the midst of compiling; returns how many units there are."""
    command = phone.words(f"{PREFIX}/bin/floatllm-build", "install", "--low-mem")
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as first:
        assert first.stderr
        units = next(found for line in first.stderr if (found := re.match(r"build +[0-9]+/([0-9]+)", line)))
        first.kill()
        assert not [line for line in first.stderr if line.startswith("install")]
    assert phone.run(f"{PREFIX}/bin/pip", "show", "floatllm").returncode != 0
    return int(units[1])


@pytest.mark.ci
@pytest.mark.build
def test_the_page_can_be_followed(phone: Phone) -> None:
    """Each command of docs/termux.md, in its order; its install is ended once, and goes on when repeated."""
    home = phone.files / "home"
    (home / "storage" / "downloads").mkdir(parents=True)
    gguf_files.llama(home / "storage" / "downloads" / "model.gguf", gguf_files.Llama(tokenizer=True))
    (home / "called").unlink(missing_ok=True)
    said, units = "", 0
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        if "floatllm-build install" in block:
            units = _ended_by_android(phone)
            # Who was killed could not tidy up.
            shutil.rmtree(phone.files / "usr" / "tmp")
            (phone.files / "usr" / "tmp").mkdir()
        done = phone.run(f"{PREFIX}/bin/sh", "-e", "-c", block)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        said += done.stderr
    called = (home / "called").read_text().splitlines()
    assert called[:2] == ["pkg upgrade", "pkg install python clang cmake ninja"]
    assert [line.strip() for line in called[2:]] == list(_STUBS[1:])
    for step in ("probe", "plan", "ggml", "package", "verify", "install"):
        assert re.search(rf"^{step} ", said, re.MULTILINE), step
    left = re.search(r"^build +([0-9]+) units", said, re.MULTILINE)
    assert left
    assert 0 < int(left[1]) < units
    assert re.search(r"^verify +[0-9]+ chunks mapped, computed on CPU", said, re.MULTILINE)
    with zipfile.ZipFile(home / "report.zip") as report:
        report.extract("host.json", home)
    assert "Android 14" in phone.tool("detect", "--from", f"{HOME}/host.json").stdout
    # What compilers and linkers wrote on their way lay here, for there is no other place; and is gone.
    assert list((phone.files / "usr" / "tmp").iterdir()) == []


@pytest.mark.build
def test_what_is_installed_is_the_phones(phone: Phone) -> None:
    done = phone.tool("install", "--low-mem")
    assert done.returncode == 0, done.stderr
    site = next((phone.files / "usr").glob("lib/python*/site-packages"))
    manifest = json.loads((site / "floatllm" / "manifest.json").read_text())
    assert (manifest["preset"], manifest["build_type"]) == ("android-low-mem", "MinSizeRel")
    assert manifest["compilers"]["CXX"].startswith("Clang")
    assert "GGML_NATIVE" not in manifest["options"]
    linker = subprocess.run(
        ["readelf", "-p", ".comment", site / "floatllm" / "libfloatllm.so"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "LLD" in linker.stdout
    devices = phone.run(f"{PREFIX}/bin/floatllm", "devices", "--json")
    assert [device["name"] for device in json.loads(devices.stdout)["devices"]] == ["CPU"]


@pytest.mark.build
def test_plain_cmake_configures_by_its_rules_for_android(phone: Phone) -> None:
    """With ggml from the tool's cache, and without a NDK: the machine is the phone itself."""
    assert phone.tool("fetch").returncode == 0
    (phone.files / "home" / "android.cmake").write_text(_ANDROID)
    out = f"{HOME}/plain"
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={HOME}/android.cmake"
    words = ("--preset=android-low-mem", "-S", f"{CHECKOUT}/native", "-B", out, toolchain)
    done = phone.run(f"{PREFIX}/bin/cmake", *words)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((phone.files / "home" / "plain" / "manifest.json").read_text())
    assert (manifest["system"], manifest["preset"]) == ("Android", "android-low-mem")
    assert manifest["ggml"]["pinned"] is True
    rules = (phone.files / "home" / "plain" / "build.ninja").read_text()
    assert re.search(r"^build libfloatllm\.so: ", rules, re.MULTILINE)
