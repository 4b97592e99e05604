"""The devices that ggml sees in this process."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from floatllm import _lib
from floatllm.plugin import Plugin

_KINDS = {0: "cpu", 1: "gpu", 2: "integrated gpu", 3: "accelerator"}


@dataclass(frozen=True)
class Device:
    """A device by ggml's name; memory in bytes; `maps_host` where it computes on host memory in place."""

    name: str
    description: str
    kind: str
    memory_free: int
    memory_total: int
    maps_host: bool


def devices() -> tuple[Device, ...]:
    """Every device, in ggml's order."""
    lib = _lib.library()
    info = _lib.DeviceInfo()
    out = []
    for index in range(lib.floatllm_device_count()):
        _lib.call(lib, "floatllm_device", index, ctypes.byref(info))
        out.append(
            Device(
                name=info.name.decode("utf-8", "replace"),
                description=info.description.decode("utf-8", "replace"),
                kind=_KINDS.get(info.type, f"type {info.type}"),
                memory_free=info.memory_free,
                memory_total=info.memory_total,
                maps_host=bool(info.maps_host),
            )
        )
    return tuple(out)


def plugins() -> tuple[Plugin, ...]:
    """Installed backends from packages of their own, with the reason where one is not loaded."""
    return _lib.loaded_plugins()


@dataclass(frozen=True)
class Versions:
    """Of the loaded library: its own, its ABI's, the ggml inside it, and the llama.cpp that this is from.

    `cpu_variant` names the kernels of the CPU that were chosen as it was loaded (haswell); empty in an engine
    that holds one set of them.
    """

    engine: str
    abi: int
    ggml: str
    llama_release: str
    cpu_variant: str


def versions() -> Versions:
    """The loaded library's versions."""
    lib = _lib.library()
    return Versions(
        engine=lib.floatllm_version().decode(),
        abi=lib.floatllm_abi_version(),
        ggml=lib.floatllm_ggml_version().decode(),
        llama_release=lib.floatllm_llama_release().decode(),
        cpu_variant=lib.floatllm_cpu_variant().decode(),
    )
