"""GGUF metadata, decoded when asked for: a vocabulary costs its own bytes plus four for each entry."""

from __future__ import annotations

import ctypes
import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, overload

from floatllm import _lib
from floatllm.errors import ModelError

_STRING, _ARRAY, _BOOL = 8, 9, 7
# GGUF value type -> (name, struct code, bytes); https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_SCALARS = {
    0: ("u8", "B", 1),
    1: ("i8", "b", 1),
    2: ("u16", "H", 2),
    3: ("i16", "h", 2),
    4: ("u32", "I", 4),
    5: ("i32", "i", 4),
    6: ("f32", "f", 4),
    _BOOL: ("bool", "B", 1),
    10: ("u64", "Q", 8),
    11: ("i64", "q", 8),
    12: ("f64", "d", 8),
}
_LENGTH = struct.Struct("<Q")


class StringArray(Sequence[str]):
    """An array of strings, kept in the file's own encoding and decoded one at a time."""

    __slots__ = ("_starts", "data")

    def __init__(self, data: bytes, count: int) -> None:
        """`data` holds `count` strings, each a little-endian u64 length and its bytes."""
        starts = array("I" if len(data) < 2**32 else "Q")
        position = 0
        try:
            for _ in range(count):
                (length,) = _LENGTH.unpack_from(data, position)
                position += 8
                starts.append(position)
                position += length
        except (struct.error, OverflowError) as error:
            raise ModelError(_broken("an array of strings")) from error
        if position != len(data):
            raise ModelError(_broken("an array of strings"))
        # One more, so that the end of entry i is 8 before the start of entry i + 1.
        starts.append(position + 8)
        #: Each string behind its length, as in the file.
        self.data = data
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def raw(self, index: int) -> bytes:
        """The bytes of entry `index`, 0 <= index < len(self)."""
        return self.data[self._starts[index] : self._starts[index + 1] - 8]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.raw(index % len(self)).decode("utf-8", "replace")


Value = Union[int, float, bool, str, "array[Any]", StringArray, "list[Any]"]


@dataclass(frozen=True)
class Entry:
    """What the header says of one key; `count` and `element_type` describe an array."""

    index: int
    key: str
    type: str
    element_type: str
    count: int
    size: int


class Metadata(Mapping[str, Value]):
    """Key to value, read from the file at each access.

    Arrays of numbers come as `array.array`, arrays of strings as StringArray, arrays of bool and of
    arrays as lists.
    """

    def __init__(self, open_handle: Callable[[], ctypes.c_void_p]) -> None:
        """`open_handle` gives the model's handle and raises where the model was closed."""
        lib, handle = _lib.library(), open_handle()
        self._open_handle = open_handle
        self.entries: dict[str, Entry] = {}
        info = _lib.MetaInfo()
        self._codes: list[tuple[int, int]] = []
        for index in range(lib.floatllm_model_meta_count(handle)):
            _lib.call(lib, "floatllm_model_meta", handle, index, ctypes.byref(info))
            key = info.key.decode("utf-8", "replace")
            self._codes.append((info.type, info.element_type))
            self.entries[key] = Entry(
                index, key, type_name(info.type), type_name(info.element_type), info.count, info.size
            )

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __getitem__(self, key: str) -> Value:
        entry = self.entries[key]
        kind, element = self._codes[entry.index]
        buffer = bytearray(entry.size)
        if entry.size:
            view = (ctypes.c_char * entry.size).from_buffer(buffer)
            read = "floatllm_model_meta_read"
            _lib.call(_lib.library(), read, self._open_handle(), entry.index, view, entry.size)
            del view
        data = bytes(buffer)
        if kind == _ARRAY:
            return _decode_array(key, element, entry.count, data)
        return _decode_scalar(key, kind, data)


def type_name(code: int) -> str:
    """GGUF value type as a word: `u32`, `string`, `array`."""
    if code in _SCALARS:
        return _SCALARS[code][0]
    return {_STRING: "string", _ARRAY: "array"}.get(code, f"type {code}")


def _decode_scalar(key: str, kind: int, data: bytes) -> Value:
    if kind == _STRING:
        return StringArray(data, 1)[0]
    if kind not in _SCALARS or len(data) != _SCALARS[kind][2]:
        raise ModelError(_broken(f"the value of {key!r}"))
    value: int | float = struct.unpack("<" + _SCALARS[kind][1], data)[0]
    return bool(value) if kind == _BOOL else value


def _decode_array(key: str, element: int, count: int, data: bytes) -> Value:
    if element == _STRING:
        return StringArray(data, count)
    if element not in _SCALARS or len(data) != count * _SCALARS[element][2]:
        raise ModelError(_broken(f"the value of {key!r}"))
    values = array(_SCALARS[element][1], data)
    if sys.byteorder == "big":
        values.byteswap()
    return [bool(v) for v in values] if element == _BOOL else values


def _broken(what: str) -> str:
    return f"The model's metadata is damaged ({what} does not fit its own length): fetch the file again."
