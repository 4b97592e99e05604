"""Libraries that the system does not load: what is said, and that it helps."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from floatllm import loader
from installed import Installed
from tool_environment import skip_or_fail

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's loader")


@pytest.mark.parametrize(
    ("said", "conda", "advice"),
    [
        (
            "/opt/conda/lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x)",
            True,
            "than the compiler's, /opt/conda/lib/libstdc++.so.6: conda install -c conda-forge libstdcxx-ng",
        ),
        ("/a/libstdc++.so.6: version `CXXABI_1.3.15' not found (required by /x)", True, "libstdcxx-ng"),
        ("/a/libgcc_s.so.1: version `GCC_14.0.0' not found (required by /x)", True, "libstdcxx-ng"),
        ("/a/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x)", False, "LD_LIBRARY_PATH"),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found (required by /x)", True, "newer C library"),
        ("/x: failed to map segment from shared object: Operation not permitted", False, "noexec"),
        ("libvulkan.so.1: cannot open shared object file: No such file", False, "Vulkan loader is missing"),
    ],
)
def test_what_helps_is_said_and_a_rebuild_that_changes_nothing_is_not(
    said: str, conda: bool, advice: str
) -> None:
    told = loader.explained(said, conda=conda)
    assert advice in told
    assert told.endswith(f" ({said})")
    # The same compiler makes the same library again, unless something was installed before.
    assert "floatllm-build" not in told or "static" in told


def test_other_words_stay_as_they_are() -> None:
    for said in ("bad ELF header", "/x: version 3 not found", ""):
        assert loader.explained(said, conda=False) == said


def test_an_engine_of_a_newer_system_says_so(engine: Installed, tmp_path: Path) -> None:
    library = Path(os.environ["FLOATLLM_LIBRARY"])
    content = library.read_bytes()
    newer = re.sub(rb"\x00GLIBC_2\.\d\d(?=\x00)", b"\x00GLIBC_9.99", content)
    assert newer != content
    changed = tmp_path / library.name
    changed.write_bytes(newer)
    env = {**engine.env, "FLOATLLM_LIBRARY": str(changed)}
    done = Installed(engine.python, env).run("devices")
    assert done.returncode == 3
    assert "could not be loaded: it was built with a newer C library" in done.stderr
    assert "floatllm-build install" not in done.stderr


def test_glibcs_own_words_on_an_old_runtime_are_understood(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        skip_or_fail("no C++ compiler; install one (Debian: apt install g++)")
    source, library = tmp_path / "a.cpp", tmp_path / "liba.so"
    source.write_text('#include <string>\nstd::string text(int i) { return std::to_string(i) + "x"; }\n')
    command = [compiler, "-shared", "-fPIC", "-o", library, source]
    subprocess.run(command, check=True)
    content = library.read_bytes()
    newer = re.sub(rb"\x00GLIBCXX_3\.4\.\d\d(?=\x00)", b"\x00GLIBCXX_9.9.99", content)
    if newer == content:
        skip_or_fail(f"{compiler} links its C++ runtime statically, so nothing can be too old")
    library.write_bytes(newer)
    with pytest.raises(OSError, match="GLIBCXX_9") as caught:
        ctypes.CDLL(str(library))
    assert "loads an older C++ runtime than the compiler's, /" in loader.explained(str(caught.value))
