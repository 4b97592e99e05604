"""The built library: hardened as distributions harden theirs, and with a C++ runtime of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import elf
import pytest
from installed import Installed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF and glibc")


@pytest.fixture
def library(engine: Installed) -> elf.Library:
    return elf.read(Path(os.environ["FLOATLLM_LIBRARY"]).read_bytes())


def test_nothing_that_the_loader_wrote_can_be_changed_and_no_stack_holds_code(library: elf.Library) -> None:
    assert library.relro
    assert library.now
    assert not library.stack


def test_stacks_and_copies_are_checked(library: elf.Library) -> None:
    assert "__stack_chk_fail" in library.wanted
    assert {"__memcpy_chk", "__snprintf_chk", "__vsnprintf_chk"} & library.wanted


def test_it_brings_its_own_runtime_and_shows_none_of_it(library: elf.Library) -> None:
    compiler = os.environ.get("CXX", "c++")
    archive = subprocess.run(
        [compiler, "-print-file-name=libstdc++.a"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(archive).is_absolute():
        pytest.skip("this compiler has no static C++ runtime")
    assert not [name for name in library.needed if name.startswith(("libstdc++", "libgcc_s"))]
    assert not [name for name in library.wanted if name.startswith(("_Z", "__cxa_throw", "_Unwind"))]
    # Another copy in the same process must meet nothing that has a state: locales, streams, exceptions.
    shown = ("_ZNSt6locale", "_ZNSt8ios_base", "_ZSt4cout", "_ZTISt9exception", "__cxa_", "_Unwind")
    assert not [name for name in library.given if name.startswith(shown)]


def test_an_error_inside_is_caught_inside_also_next_to_another_runtime(engine: Installed, tiny: Path) -> None:
    """The process holds the system's libstdc++ too, as with other packages, and both throw and catch."""
    said = engine.script(
        """
import ctypes, json, sys
other = ctypes.CDLL("libstdc++.so.6", ctypes.RTLD_GLOBAL)
from floatllm import Model, ModelError, UsageError
found = []
for call in (
    lambda: Model.open(sys.argv[1] + ".none"),
    lambda: Model.open(sys.argv[1]).plan(ctx=10**9),
    lambda: Model.open(sys.argv[1]).plan(device="NONE0"),
):
    try:
        call()
    except Exception as error:
        found.append(type(error).__name__)
found.append(len(Model.open(sys.argv[1]).tensors) > 0)
print(json.dumps(found))
""",
        tiny,
    )
    assert said[-1] is True
    assert said[0] == "ModelError"
    assert len(said) == 4
    assert all(name.endswith("Error") for name in said[:3])
