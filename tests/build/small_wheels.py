"""A wheel of floatllm that takes no compiler, and uv beside pip, for tests of how a wheel is installed."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

from tool_environment import skip_or_fail

from floatllm_build.start import which
from floatllm_build.values import Wheel
from floatllm_build.wheel_file import record_hash

INFO = "floatllm-0.1.0.dist-info"


def small_wheel(folder: Path, said: str = "here") -> Wheel:
    """A wheel of floatllm with one module, which says `said`, and its console script."""
    files = {
        "floatllm/__init__.py": f"def main():\n    print('{said}')\n",
        f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: floatllm\nVersion: 0.1.0\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n",
        f"{INFO}/entry_points.txt": "[console_scripts]\nfloatllm = floatllm:main\n",
    }
    record = [f"{name},{record_hash(text.encode())},{len(text)}\n" for name, text in files.items()]
    path = folder / "floatllm-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{INFO}/RECORD", "".join([*record, f"{INFO}/RECORD,,\n"]))
    return Wheel(path=str(path), key="k", reused=False)


def uv_or_skip() -> str:
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return which("uv", {"PATH": beside}) or skip_or_fail("no uv") or ""
