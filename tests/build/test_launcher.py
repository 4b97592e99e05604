"""Compiler caches that fail, and flags that compilers refuse, in builds of a project of two real units."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from machines import PC
from plans import PRESETS
from tool_environment import skip_or_fail

from floatllm_build.build.run import Means, build
from floatllm_build.build_folder import FLAGS, Folder
from floatllm_build.errors import BuildFailedError
from floatllm_build.events import Event, Hint
from floatllm_build.host.findings import Findings
from floatllm_build.host.os_facts import probe_os
from floatllm_build.host.toolchain import probe_toolchain
from floatllm_build.select import make_plan
from floatllm_build.settings import make_request
from floatllm_build.system import LiveSystem
from floatllm_build.values import Built

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs here are shell scripts")

# As ggml 0.15 has it in src/CMakeLists.txt.
PROJECT = """
cmake_minimum_required(VERSION 3.20)
project(tiny C CXX)
option(GGML_CCACHE "ggml: use ccache if available" ON)
if (GGML_CCACHE AND NOT CMAKE_C_COMPILER_LAUNCHER AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(GGML_CCACHE_FOUND ccache)
    find_program(GGML_SCCACHE_FOUND sccache)
    if (GGML_CCACHE_FOUND OR GGML_SCCACHE_FOUND)
        if(GGML_CCACHE_FOUND)
            set(GGML_CCACHE_VARIANT ccache)
        else()
            set(GGML_CCACHE_VARIANT sccache)
        endif()
        set_property(GLOBAL PROPERTY RULE_LAUNCH_COMPILE "${GGML_CCACHE_VARIANT}")
    endif ()
endif ()
add_library(tiny SHARED a.c b.cpp)
"""
# What a distribution's ccache says where its folder cannot be made.
SAID = "ccache: error: Failed to create directory /r/.cache/ccache: Read-only file system"
BROKEN = f"""#!/bin/sh
[ "$1" = --version ] && echo "ccache version 4.8" && exit
case "$*" in *--version*) exec "$@";; esac
[ -n "$CCACHE_DISABLE" ] && exec "$@"
echo "{SAID}" >&2
exit 1
"""


class Place:
    """A project, a folder of programs that PATH begins with, and what was told."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root / "build")
        self.folder.native.mkdir(parents=True)
        self.bin = root / "bin"
        self.bin.mkdir()
        self.used = root / "used"
        self.told: list[str] = []
        (self.folder.native / "CMakeLists.txt").write_text(PROJECT)
        (self.folder.native / "a.c").write_text("int a(void) { return 1; }\n")
        (self.folder.native / "b.cpp").write_text("int b() { return 2; }\n")
        presets = {"version": 3, "configurePresets": [{"name": "cpu", "generator": "Ninja"}]}
        (self.folder.native / "CMakePresets.json").write_text(json.dumps(presets))

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def build(self) -> Built:
        system = LiveSystem()
        toolchain = probe_toolchain(system, probe_os(system, Findings()), Findings())
        if not (toolchain.cmake and toolchain.ninja and toolchain.cxx and toolchain.c):
            skip_or_fail("needs cmake, ninja and a compiler (Debian: apt install cmake ninja-build g++)")
        request = make_request(system, None, "cpu", None, 2, None, low_mem=False)
        plan = make_plan(replace(PC, toolchain=toolchain), request, PRESETS)
        means = Means(room=lambda _: 1 << 32, learned=self.folder.root / "costs")
        return build(plan, toolchain, "", self.folder, means, self.hear)

    def hear(self, event: Event) -> None:
        if isinstance(event, Hint):
            self.told.append(event.text)

    @property
    def commands(self) -> str:
        return (self.folder.out / "build.ninja").read_text()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    # No compiler cache of this machine, and no flags of its user.
    for name in (
        *FLAGS,
        "CC",
        "CXX",
        "CCACHE_DISABLE",
        "CMAKE_C_COMPILER_LAUNCHER",
        "CMAKE_CXX_COMPILER_LAUNCHER",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("ccache", "sccache"):
        if shutil.which(name):
            made.program(name, '#!/bin/sh\nexec "$@"\n')
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


# ---- compiler caches ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ccache", "sccache"])
def test_a_compiler_cache_that_fails_is_left_out(place: Place, name: str) -> None:
    place.program(name, BROKEN)
    assert place.build().units == 3
    (told,) = place.told
    assert f"{place.bin / name} fails: {SAID}" in told
    assert "CCACHE_DIR" in told
    assert name not in place.commands


def test_one_that_does_not_even_say_its_version_is_left_out(place: Place) -> None:
    place.program("ccache", "#!/bin/sh\necho 'ccache: cannot open shared object file' >&2; exit 127\n")
    assert place.build().units == 3
    assert "cannot open shared object file" in place.told[0]


def test_one_that_works_is_used(place: Place) -> None:
    place.program("ccache", f'#!/bin/sh\necho "$*" >> {place.used}\nexec "$@"\n')
    assert place.build().units == 3
    assert place.told == []
    assert "b.cpp.o" in place.used.read_text()


def test_one_that_stands_before_the_compiler_in_CC_is_passed_by(  # noqa: N802
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.program("ccache", BROKEN)
    monkeypatch.setenv("CC", "ccache cc")
    monkeypatch.setenv("CXX", "ccache c++")
    assert place.build().units == 3
    assert SAID in place.told[0]


def test_one_that_took_the_compilers_names_is_passed_by(place: Place) -> None:
    """As /usr/lib/ccache does, at the beginning of PATH."""
    real = {name: shutil.which(name) for name in ("cc", "c++")}
    cases = "".join(f'*/{name}) set -- {path} "$@";; ' for name, path in real.items())
    place.program("ccache", BROKEN.replace("#!/bin/sh", f'#!/bin/sh\ncase "$0" in {cases} esac'))
    for name in real:
        (place.bin / name).symlink_to("ccache")
    assert place.build().units == 3
    assert SAID in place.told[0]


def test_one_that_cmakes_variables_name_is_left_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = place.program("ccache", BROKEN.replace("CCACHE_DISABLE", "NOTHING"))
    monkeypatch.setenv("CMAKE_C_COMPILER_LAUNCHER", str(wrapper))
    monkeypatch.setenv("CMAKE_CXX_COMPILER_LAUNCHER", f"{wrapper};--quiet")
    assert place.build().units == 3
    assert SAID in place.told[0]
    assert "ccache" not in place.commands


def test_one_that_CMAKE_ARGS_names_is_left_out(  # noqa: N802
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.program("sccache", BROKEN.replace("CCACHE_DISABLE", "NOTHING"))
    monkeypatch.setenv(
        "CMAKE_ARGS", "-DCMAKE_CXX_COMPILER_LAUNCHER=sccache -DCMAKE_C_COMPILER_LAUNCHER=sccache"
    )
    assert place.build().units == 3
    assert "sccache" not in place.commands


def test_one_that_fails_later_is_left_out_then(place: Place) -> None:
    fails_later = BROKEN.replace(
        'case "$*" in', 'case "$*" in *floatllm-tries*|*CMakeScratch*) exec "$@";; esac\ncase "$*" in'
    )
    place.program("ccache", fails_later)
    assert place.build().units >= 3
    assert SAID in place.told[0]
    assert "ccache" not in place.commands


def test_without_any_nothing_is_tried(place: Place) -> None:
    if shutil.which("ccache") or shutil.which("sccache"):
        pytest.skip("this machine has a compiler cache")
    assert place.build().units == 3
    assert "floatllm-tries" not in place.folder.log.read_text()


# ---- flags --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CMAKE_ARGS", "-DCMAKE_CXX_FLAGS=--bogus", "--bogus"),
        ("CXXFLAGS", "--bogus", "--bogus"),
        ("CFLAGS", "-fno-such-thing", "-fno-such-thing"),
        ("LDFLAGS", "-Wl,--no-such-option", "no-such-option"),
    ],
)
def test_what_the_compiler_refused_is_quoted_and_the_flags_are_named_first(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BuildFailedError) as caught:
        place.build()
    text = str(caught.value)
    assert "there is no C and C++ compiler" not in text
    quoted, _, fix = text.partition("To go on: ")
    assert said in quoted
    assert fix.startswith(f"unset {name} (`{value}`)")


def test_flags_that_fail_in_compiling_are_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder.native / "b.cpp").write_text("#ifdef LEFT_OVER\n#error not for this\n#endif\n")
    monkeypatch.setenv("CXXFLAGS", "-DLEFT_OVER")
    with pytest.raises(BuildFailedError, match="not for this") as caught:
        place.build()
    assert "To go on: unset CXXFLAGS (`-DLEFT_OVER`)" in str(caught.value)


def test_flags_are_not_blamed_for_what_the_machine_refuses(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = place.program("c++", '#!/bin/sh\ncase "$*" in *b.cpp*) ;; *) exec /usr/bin/c++ "$@";; esac\n')
    with program.open("a") as file:
        file.write("echo 'b.s: fatal error: error writing: No space left on device' >&2; exit 1\n")
    monkeypatch.setenv("CXXFLAGS", "-DHARMLESS")
    with pytest.raises(BuildFailedError, match="the disk is full") as caught:
        place.build()
    assert "CXXFLAGS" not in str(caught.value)
