"""Asks Metal (the subject is the framework's binary) for its devices, through the Objective-C runtime.

{"devices": [{"name", "working_set"}]}
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_char_p, c_uint64, c_ulong, c_void_p
from typing import Any

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120  pathlib would cost a third of the time

from _answer import NoAnswerError, answer, load  # type: ignore[import-not-found]


def _send(runtime: ctypes.CDLL, result: Any, receiver: int, selector: bytes, *index: int) -> Any:
    """objc_msgSend has no signature of its own: each call is made with that of the method."""
    runtime.sel_registerName.restype, runtime.sel_registerName.argtypes = c_void_p, (c_char_p,)
    method = ctypes.CFUNCTYPE(result, c_void_p, c_void_p, *(c_ulong for _ in index))
    return method(("objc_msgSend", runtime))(receiver, runtime.sel_registerName(selector), *index)


def ask(subject: str, found: dict[str, Any]) -> None:
    # A program without windows has no default device before this one is loaded.
    load("/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics")
    metal, runtime = load(subject), load("/usr/lib/libobjc.A.dylib")
    metal.MTLCopyAllDevices.restype = metal.MTLCreateSystemDefaultDevice.restype = c_void_p
    every = metal.MTLCopyAllDevices()
    count = _send(runtime, c_ulong, every, b"count") if every else 0
    devices = [_send(runtime, c_void_p, every, b"objectAtIndex:", index) for index in range(min(count, 64))]
    if not devices:
        devices = [metal.MTLCreateSystemDefaultDevice()]
    if not all(devices):
        raise NoAnswerError("MTLCreateSystemDefaultDevice: no device")
    answers = found["devices"] = []
    for device in devices:
        name = _send(runtime, c_char_p, _send(runtime, c_void_p, device, b"name"), b"UTF8String")
        working_set = _send(runtime, c_uint64, device, b"recommendedMaxWorkingSetSize")
        answers.append({"name": (name or b"").decode(errors="replace"), "working_set": working_set})


if __name__ == "__main__":
    answer(ask)
