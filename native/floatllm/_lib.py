"""The C library: where it lies, its structures (native/include/floatllm.h) and its error convention."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import sysconfig
import threading
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from site import getusersitepackages
from typing import TYPE_CHECKING, Any

from floatllm import loader, plugin
from floatllm.errors import EngineError, FloatLLMError, MissingError, ModelError, UsageError
from floatllm.plugin import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable

ABI_VERSION = 5
MODE_RUN, MODE_MAP = 0, 1
EVENT_TENSOR, EVENT_CHUNK, EVENT_READ, EVENT_CHECK = 1, 2, 3, 4

_NAMES = {"win32": "floatllm.dll", "cygwin": "floatllm.dll", "darwin": "libfloatllm.dylib"}
_ERRORS: dict[int, type[FloatLLMError]] = {2: UsageError, 3: MissingError, 7: ModelError, 8: EngineError}


class DeviceInfo(Structure):
    """floatllm_device_info"""

    _fields_ = [
        ("name", c_char_p),
        ("description", c_char_p),
        ("memory_free", c_uint64),
        ("memory_total", c_uint64),
        ("type", c_int32),
        ("maps_host", c_int32),
    ]


class CheckInfo(Structure):
    """floatllm_check"""

    _fields_ = [
        ("operation", c_char_p),
        ("type", c_char_p),
        ("positions", c_uint32),
        ("outcome", c_int32),
        ("needed", c_int32),
        ("nmse", c_double),
        ("allowed", c_double),
    ]


class TensorInfo(Structure):
    """floatllm_tensor_info"""

    _fields_ = [
        ("name", c_char_p),
        ("type", c_char_p),
        ("ne", c_int64 * 4),
        ("offset", c_uint64),
        ("size", c_uint64),
    ]


class MetaInfo(Structure):
    """floatllm_meta_info"""

    _fields_ = [
        ("key", c_char_p),
        ("type", c_int32),
        ("element_type", c_int32),
        ("count", c_uint64),
        ("size", c_uint64),
    ]


class PlanParams(Structure):
    """floatllm_plan_params"""

    _fields_ = [
        ("struct_size", c_uint32),
        ("mode", c_int32),
        ("memory", c_uint64),
        ("chunk", c_uint64),
        ("ctx", c_uint32),
        ("width", c_uint32),
        ("sequences", c_uint32),
        ("outputs", c_uint32),
        ("threads", c_uint32),
        ("io", c_int32),
        ("uniform", c_int32),
        ("kv", c_int32),
        ("device", c_char_p),
        ("device_memory", c_uint64),
        ("cpu_share", c_double),
    ]


class Prediction(Structure):
    """floatllm_prediction"""

    _fields_ = [
        ("seconds", c_double),
        ("read_seconds", c_double),
        ("compute_seconds", c_double),
        ("streamed_bytes", c_uint64),
        ("computed_bytes", c_uint64),
    ]


class Addition(Structure):
    """floatllm_addition"""

    _fields_ = [
        ("sequence", c_uint32),
        ("outputs", c_uint32),
        ("tokens", POINTER(c_int32)),
        ("count", c_size_t),
        ("logits", POINTER(c_float)),
        ("top", c_uint32),
        ("ids", POINTER(c_uint32)),
    ]


class EventInfo(Structure):
    """floatllm_event"""

    _fields_ = [
        ("kind", c_int32),
        ("computed", c_int32),
        ("chunk", c_uint64),
        ("chunks", c_uint64),
        ("tensor", c_uint64),
        ("device", c_char_p),
        ("bytes", c_uint64),
        ("seconds", c_double),
        ("began", c_double),
        ("waited", c_double),
    ]


LogFunction = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
AbortFunction = CFUNCTYPE(None, c_char_p, c_void_p)
EventFunction = CFUNCTYPE(c_int, POINTER(EventInfo), c_void_p)
CheckFunction = CFUNCTYPE(c_int, POINTER(CheckInfo), c_void_p)

_STATUS = c_int
_ERROR = POINTER(c_void_p)
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "floatllm_abi_version": (c_uint32, ()),
    "floatllm_version": (c_char_p, ()),
    "floatllm_ggml_version": (c_char_p, ()),
    "floatllm_llama_release": (c_char_p, ()),
    "floatllm_free": (None, (c_void_p,)),
    "floatllm_set_log": (None, (LogFunction, c_void_p)),
    "floatllm_load_backends": (_STATUS, (c_char_p, c_size_t, _ERROR)),
    "floatllm_load_backend": (_STATUS, (c_char_p, c_size_t, _ERROR)),
    "floatllm_note_backend": (None, (c_char_p, c_size_t)),
    "floatllm_cpu_variant": (c_char_p, ()),
    "floatllm_device_count": (c_size_t, ()),
    "floatllm_device": (_STATUS, (c_size_t, POINTER(DeviceInfo), _ERROR)),
    "floatllm_set_abort": (None, (AbortFunction, c_void_p)),
    "floatllm_rpc_add": (_STATUS, (c_char_p, c_size_t, _ERROR)),
    "floatllm_rpc_serve": (_STATUS, (c_char_p, c_size_t, c_char_p, c_char_p, c_uint32, _ERROR)),
    "floatllm_prove": (_STATUS, (c_char_p, c_size_t, CheckFunction, c_void_p, _ERROR)),
    "floatllm_model_open": (_STATUS, (c_char_p, c_size_t, POINTER(c_void_p), _ERROR)),
    "floatllm_model_close": (None, (c_void_p,)),
    "floatllm_model_tensor_count": (c_size_t, (c_void_p,)),
    "floatllm_model_tensor": (_STATUS, (c_void_p, c_size_t, POINTER(TensorInfo), _ERROR)),
    "floatllm_model_meta_count": (c_size_t, (c_void_p,)),
    "floatllm_model_meta": (_STATUS, (c_void_p, c_size_t, POINTER(MetaInfo), _ERROR)),
    "floatllm_model_meta_read": (_STATUS, (c_void_p, c_size_t, c_void_p, c_size_t, _ERROR)),
    "floatllm_plan_create": (_STATUS, (c_void_p, POINTER(PlanParams), POINTER(c_void_p), _ERROR)),
    "floatllm_plan_close": (None, (c_void_p,)),
    "floatllm_plan_json": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "floatllm_plan_predict": (_STATUS, (c_void_p, POINTER(Prediction), _ERROR)),
    "floatllm_session_open": (_STATUS, (c_void_p, POINTER(c_void_p), _ERROR)),
    "floatllm_session_close": (None, (c_void_p,)),
    "floatllm_session_on_event": (None, (c_void_p, EventFunction, c_void_p)),
    "floatllm_session_forward": (
        _STATUS,
        (c_void_p, POINTER(c_int32), c_size_t, POINTER(c_float), c_size_t, _ERROR),
    ),
    "floatllm_session_append": (_STATUS, (c_void_p, POINTER(Addition), c_size_t, _ERROR)),
    "floatllm_top": (c_size_t, (c_void_p, c_size_t, c_uint32, POINTER(c_uint32))),
    "floatllm_session_truncate": (_STATUS, (c_void_p, c_uint32, c_size_t, _ERROR)),
    "floatllm_session_length": (c_size_t, (c_void_p, c_uint32)),
    "floatllm_session_context": (c_size_t, (c_void_p,)),
    "floatllm_session_vocab": (c_size_t, (c_void_p,)),
    "floatllm_session_map": (_STATUS, (c_void_p, POINTER(c_double), c_size_t, _ERROR)),
}


def library_path() -> Path:
    """The library file: beside this package, or the one a developer names in FLOATLLM_LIBRARY.

    No search path is consulted: a library from the current folder would be somebody else's code.
    """
    named = os.environ.get("FLOATLLM_LIBRARY")
    if named:
        return Path(named).absolute()
    name = _NAMES.get(sys.platform, "libfloatllm.so")
    beside = Path(__file__).resolve().parent / name
    # Of an editable installation the environment has all but the modules.
    for site in (sysconfig.get_path("platlib"), getusersitepackages()) if not beside.is_file() else ():
        linked = Path(site, "floatllm", name)
        if linked.is_file() and not linked.with_name("__init__.py").exists():
            return linked
    return beside


# Two threads may come here first.
_loading = threading.Lock()


def library() -> ctypes.CDLL:
    """The loaded library, its ABI version checked and its backends loaded. Raises MissingError."""
    with _loading:
        return _loaded()[0]


def loaded_plugins() -> tuple[Plugin, ...]:
    """What became of each installed plugin."""
    with _loading:
        return _loaded()[1]


@functools.cache
def _loaded() -> tuple[ctypes.CDLL, tuple[Plugin, ...]]:
    path = library_path()
    if not path.is_file():
        msg = f"The engine's library is not at {path}: install it with `floatllm-build install`."
        raise MissingError(msg)
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        said = loader.explained(str(error))
        again = " Install it again with `floatllm-build install`." if said == str(error) else ""
        msg = f"The engine's library could not be loaded: {said}.{again}"
        raise MissingError(msg) from error
    _declare(lib, path)
    folder = os.fsencode(path.parent)
    call(lib, "floatllm_load_backends", folder, len(folder))
    return lib, tuple(_load_plugin(lib, found, path.parent) for found in plugin.discover())


def _load_plugin(lib: ctypes.CDLL, found: plugin.Found, engine: Path) -> Plugin:
    reason = plugin.misfit(plugin.read_manifest(engine), plugin.read_manifest(found.folder))
    if not reason and not found.library:
        reason = "its library is missing; install it again"
    if not reason:
        backend = os.fsencode(found.folder / found.library)
        try:
            call(lib, "floatllm_load_backend", backend, len(backend))
        except MissingError as error:
            reason = loader.explained(str(error))
    if reason:
        note = f"{found.name} {found.version} is installed and not loaded: {reason}".encode()
        lib.floatllm_note_backend(note, len(note))
    return Plugin(name=found.name, version=found.version, loaded=not reason, reason=reason)


def _declare(lib: ctypes.CDLL, path: Path) -> None:
    try:
        lib.floatllm_abi_version.restype = c_uint32
        found = lib.floatllm_abi_version()
        # Only a library of our own version is sure to hold every name below.
        if found == ABI_VERSION:
            for name, (restype, argtypes) in _SIGNATURES.items():
                function = getattr(lib, name)
                function.restype, function.argtypes = restype, argtypes
            return
    except AttributeError as error:
        msg = f"{path} is not the engine's library ({error}): rebuild it with `floatllm-build install`."
        raise MissingError(msg) from error
    msg = (
        f"The engine's library at {path} speaks ABI {found}, this package speaks ABI {ABI_VERSION}: "
        "install both together with `floatllm-build install`."
    )
    raise MissingError(msg)


def call(lib: ctypes.CDLL, name: str, *arguments: Any) -> None:
    """Calls a function that ends in `char **error` and raises what it reports."""
    error = c_void_p()
    status = getattr(lib, name)(*arguments, byref(error))
    if status == 0:
        return
    text = ""
    if error.value:
        text = ctypes.string_at(error.value).decode("utf-8", "replace")
        lib.floatllm_free(error)
    raise _ERRORS.get(status, EngineError)(text or f"{name} failed with status {status} and no message.")


_log_function: Any = None


def set_log(write: Callable[[int, str], None] | None) -> None:
    """Sends log lines of ggml and the engine to `write(level, text)`; None drops them.

    Levels are 1 debug, 2 info, 3 warning, 4 error. Process-wide; lines may come from any thread.
    """
    global _log_function  # noqa: PLW0603 (the library keeps the pointer, so something must keep the object)

    def forward(level: int, text: bytes, _user: Any) -> None:
        if write is not None:
            write(level, text.decode("utf-8", "replace"))

    function = LogFunction(forward) if write is not None else LogFunction()
    library().floatllm_set_log(function, None)
    _log_function = function
