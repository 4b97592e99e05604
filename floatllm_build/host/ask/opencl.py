"""Asks an OpenCL loader (the subject) for the names of its platforms: {"platforms": ["..."]}."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import byref, c_size_t, c_uint, c_void_p
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120  pathlib would cost a third of the time

from _answer import NoAnswerError, answer, load  # type: ignore[import-not-found]

_PLATFORM_NAME = 0x0902


def ask(subject: str, found: dict[str, Any]) -> None:
    library = load(subject)
    count = c_uint()
    code = library.clGetPlatformIDs(c_uint(0), None, byref(count))
    if code != 0:
        raise NoAnswerError(f"clGetPlatformIDs: {code}")
    platforms = (c_void_p * min(count.value, 64))()
    code = library.clGetPlatformIDs(c_uint(len(platforms)), platforms, None)
    if code != 0:
        raise NoAnswerError(f"clGetPlatformIDs: {code}")
    names = found["platforms"] = []
    for platform in platforms:
        name = ctypes.create_string_buffer(1024)
        code = library.clGetPlatformInfo(
            c_void_p(platform), c_uint(_PLATFORM_NAME), c_size_t(len(name) - 1), name, None
        )
        names.append(name.value.decode(errors="replace") if code == 0 else f"clGetPlatformInfo: {code}")


if __name__ == "__main__":
    answer(ask)
