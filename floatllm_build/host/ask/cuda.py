"""Asks NVIDIA's driver library (the subject) for its version and its devices.

{"version": 12040, "init": 0, "devices": [{"name", "major", "minor", "integrated", "memory"}],
 "error": "cuInit: 100"}: init is what cuInit returned, or cuDriverGetVersion if that failed already, as in
the stub that toolkits have for linking.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120  pathlib would cost a third of the time

from _answer import NoAnswerError, answer, load  # type: ignore[import-not-found]

# CUdevice_attribute in cuda.h.
_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76


def _check(library: ctypes.CDLL, call: str, code: int) -> None:
    if code == 0:
        return
    name = c_char_p()
    known = hasattr(library, "cuGetErrorName") and library.cuGetErrorName(c_int(code), byref(name)) == 0
    told = f" ({name.value.decode(errors='replace')})" if known and name.value else ""
    raise NoAnswerError(f"{call}: {code}{told}")


def _device(library: ctypes.CDLL, index: int) -> dict[str, Any]:
    device = c_int()
    _check(library, "cuDeviceGet", library.cuDeviceGet(byref(device), c_int(index)))
    name = ctypes.create_string_buffer(256)
    _check(library, "cuDeviceGetName", library.cuDeviceGetName(name, c_int(len(name)), device))
    found: dict[str, Any] = {"name": name.value.decode(errors="replace")}
    for key, attribute in (("major", _MAJOR), ("minor", _MINOR), ("integrated", _INTEGRATED)):
        value = c_int()
        code = library.cuDeviceGetAttribute(byref(value), c_int(attribute), device)
        _check(library, "cuDeviceGetAttribute", code)
        found[key] = value.value
    library.cuDeviceTotalMem_v2.argtypes = (POINTER(c_size_t), c_int)
    memory = c_size_t()
    if library.cuDeviceTotalMem_v2(byref(memory), device) == 0:
        found["memory"] = memory.value
    return found


def ask(subject: str, found: dict[str, Any]) -> None:
    # What the machine has, not what this shell was told to use.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    library = load(subject)
    version = c_int()
    # Answers without cuInit too: so a driver that cannot start still says which one it is.
    found["init"] = library.cuDriverGetVersion(byref(version))
    _check(library, "cuDriverGetVersion", found["init"])
    found["version"] = version.value
    found["init"] = library.cuInit(c_uint(0))
    _check(library, "cuInit", found["init"])
    count = c_int()
    _check(library, "cuDeviceGetCount", library.cuDeviceGetCount(byref(count)))
    devices = found["devices"] = []
    for index in range(min(count.value, 64)):
        try:
            devices.append(_device(library, index))
        except NoAnswerError as error:  # noqa: PERF203  one bad device hides no good one
            devices.append({"error": str(error)})


if __name__ == "__main__":
    answer(ask)
