"""A GGUF file: its metadata, its tensors, its tokenizer and the plans made from it."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floatllm import _lib
from floatllm.errors import ModelError, UsageError
from floatllm.metadata import Metadata
from floatllm.plan import Plan
from floatllm.sizes import as_bytes
from floatllm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from types import TracebackType

_MODES = {"run": _lib.MODE_RUN, "map": _lib.MODE_MAP}
_IO = {"auto": 0, "mmap": 1, "direct": 2}
_KV = {"f16": 0, "q8_0": 1}
_MOST_THREADS = 512


@dataclass(frozen=True)
class Tensor:
    """A tensor as the header names it; `shape` is ne0..ne3 with ne0 contiguous, the rest in bytes."""

    name: str
    type: str
    shape: tuple[int, int, int, int]
    offset: int
    size: int


class Model:
    """An open model file. No tensor data is held; closing it leaves its plans and engines working."""

    def __init__(self, handle: ctypes.c_void_p, path: str) -> None:
        self._handle = handle
        self._finalizer = weakref.finalize(self, _lib.library().floatllm_model_close, handle)
        self.path = path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Model:
        """Opens and checks the file at `path`. Raises ModelError where it is refused."""
        lib = _lib.library()
        handle = ctypes.c_void_p()
        encoded = os.fsencode(path)
        _lib.call(lib, "floatllm_model_open", encoded, len(encoded), ctypes.byref(handle))
        return cls(handle, os.fspath(path))

    def close(self) -> None:
        """Frees the file. Safe to call again."""
        self._finalizer()

    def __enter__(self) -> Model:  # noqa: PYI034 (Self needs Python 3.11)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_handle(self) -> ctypes.c_void_p:
        if not self._finalizer.alive:
            msg = f"{self.path} was closed: open it again to use it."
            raise UsageError(msg)
        return self._handle

    @functools.cached_property
    def metadata(self) -> Metadata:
        """Every key of the file; values are read when asked for, while the model is open."""
        return Metadata(self._open_handle)

    @functools.cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, in the file's order."""
        lib, handle = _lib.library(), self._open_handle()
        info = _lib.TensorInfo()
        out = []
        for index in range(lib.floatllm_model_tensor_count(handle)):
            _lib.call(lib, "floatllm_model_tensor", handle, index, ctypes.byref(info))
            name = info.name.decode("utf-8", "replace")
            ne0, ne1, ne2, ne3 = info.ne
            out.append(Tensor(name, info.type.decode(), (ne0, ne1, ne2, ne3), info.offset, info.size))
        return tuple(out)

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        """The paths of all files of a split model, the first first; of any other, the one."""
        count = self.metadata.get("split.count", 1)
        if not isinstance(count, int) or count <= 1:
            return (self.path,)
        # The engine opened them by these names.
        name = self.path.removesuffix(f"-00001-of-{count:05}.gguf")
        return tuple(f"{name}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1))

    @functools.cached_property
    def architecture(self) -> str:
        """`general.architecture`, or the empty text where the file has none."""
        if "general.architecture" not in self.metadata:
            return ""
        value = self.metadata["general.architecture"]
        if not isinstance(value, str):
            msg = f"{self.path} gives its architecture as {type(value).__name__}, not as text."
            raise ModelError(msg)
        return value

    @functools.cached_property
    def trained_context(self) -> int | None:
        """Positions that the model was trained on, or None where the file does not tell."""
        told = self.metadata.get(f"{self.architecture}.context_length")
        return told if isinstance(told, int) and told > 0 else None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer. Raises ModelError for a kind that is not supported, by name."""
        self._open_handle()
        return Tokenizer.from_metadata(self.metadata)

    def plan(
        self,
        memory: int | str | None = None,
        device: str | None = None,
        ctx: int | None = None,
        *,
        mode: str = "run",
        chunk: int | str | None = None,
        width: int | None = None,
        threads: int | None = None,
        io: str = "auto",
        sequences: int | None = None,
        outputs: int | None = None,
        uniform: bool = False,
        kv: str = "f16",
        device_memory: int | str | None = None,
        cpu_share: float | None = None,
    ) -> Plan:
        """Cuts the model into chunks.

        `memory` bounds all that the engine maps or allocates (default: what is safely free), `chunk` one
        chunk; both are bytes or text such as "2GiB". `device` is ggml's name (default: the first GPU, else
        the CPU); `ctx` and `width` are positions, of the KV cache and of one pass. `mode` is "run" for
        the forward pass, "map" to map and sum every tensor of any architecture. `io` is how weights come
        from the file: "mmap" windows, "direct" reads past the page cache, or "auto". `sequences` have a
        context each (default: 1); `outputs` is how many positions of a pass give logits (default: one for
        each sequence). `uniform` pads passes, so that the numbers of a sequence do not depend on what runs
        beside it, as long as one call of append() asks for no more than a pass holds. `kv` is the type of
        the KV cache: "f16", or "q8_0" in about half of the bytes.
        Raises UsageError, MissingError, ModelError, or EngineError naming the smallest memory that works.
        """
        if mode not in _MODES:
            msg = f"{mode!r} is not a mode: use 'run' or 'map'."
            raise UsageError(msg)
        if device == "":
            msg = "The name of the device is empty: leave it out for the first GPU, else the CPU."
            raise UsageError(msg)
        if io not in _IO:
            msg = f"{io!r} is not an I/O mode: use 'auto', 'mmap' or 'direct'."
            raise UsageError(msg)
        if kv not in _KV:
            msg = f"{kv!r} is not a type of KV cache: use 'f16' or 'q8_0'."
            raise UsageError(msg)
        params = _lib.PlanParams(
            struct_size=ctypes.sizeof(_lib.PlanParams),
            mode=_MODES[mode],
            memory=as_bytes(memory),
            chunk=as_bytes(chunk),
            ctx=_count("ctx", ctx),
            width=_count("width", width),
            sequences=_count("sequences", sequences),
            outputs=_count("outputs", outputs),
            threads=_count("threads", threads, _MOST_THREADS),
            io=_IO[io],
            uniform=int(uniform),
            kv=_KV[kv],
            device=None if device is None else os.fsencode(device),
            device_memory=as_bytes(device_memory),
            cpu_share=-1.0 if cpu_share is None else _share(cpu_share),
        )
        lib = _lib.library()
        handle = ctypes.c_void_p()
        _lib.call(
            lib, "floatllm_plan_create", self._open_handle(), ctypes.byref(params), ctypes.byref(handle)
        )
        return Plan.from_handle(handle, self)


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        msg = f"cpu_share is {value}, but it must be a number from 0 to 1."
        raise UsageError(msg)
    return value


def _count(name: str, value: int | None, most: int = 2**31 - 1) -> int:
    if value is None:
        return 0
    if not 0 < value <= most:
        msg = f"{name} is {value}, but it must be a whole number from 1 to {most}."
        raise UsageError(msg)
    return value
