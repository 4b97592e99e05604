"""A plan: the budget and the chunks that a model was cut into."""

from __future__ import annotations

import ctypes
import json
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from floatllm import _lib
from floatllm.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from floatllm.model import Model

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Memory:
    """Where the budget goes, in bytes.

    `source` is the option, or the limit of the machine, that set `limit`; `total` is the sum of what follows;
    `staging` holds file bytes on their way to a device with memory of its own, `pinned` the chunks that stay,
    `host` those that stay in the host's memory and are uploaded to such a device in each pass, `ring` the
    slots that streamed chunks pass through.
    """

    limit: int
    source: str
    total: int
    metadata: int
    kv: int
    activations: int
    graph: int
    staging: int
    pinned: int
    host: int
    ring: int


@dataclass(frozen=True)
class DevicePlan:
    """What one device does: `chunks` of the plan follow each other there.

    Of the memory that it computes in, the host's unless it has `own_memory`, at most `limit` bytes are taken,
    for `kv`, `activations`, `pinned` and `ring`; `host` bytes are taken of the host's memory in all. It
    `overlaps` where it computes while the next weights are uploaded. Of the weights that are uploaded in each
    pass the CPU computes `cpu_share` instead where passes are narrow.
    """

    name: str
    own_memory: bool
    overlaps: bool
    limit: int
    kv: int
    activations: int
    pinned: int
    ring: int
    host: int
    chunks: int
    cpu_share: float


@dataclass(frozen=True)
class Part:
    """Rows [row_begin, row_end) of one tensor; `rows` is how many it has in all."""

    tensor: str
    row_begin: int
    row_end: int
    rows: int
    bytes: int

    @property
    def sliced(self) -> bool:
        """Whether other chunks hold the rest of the tensor."""
        return self.row_end - self.row_begin < self.rows


@dataclass(frozen=True)
class Chunk:
    """Parts that are mapped together; `bytes` of weights, `mapped` after rounding to pages.

    A `pinned` chunk is loaded once and kept; the others pass through the ring of slots. A `hosted` one comes
    from the host's memory instead of the disk, and the CPU computes a `shared` one there in narrow passes.
    """

    index: int
    device: str
    bytes: int
    mapped: int
    pinned: bool
    hosted: bool
    shared: bool
    parts: tuple[Part, ...]

    @property
    def kept(self) -> str:
        """Where it stays: "pinned", "hosted", "shared" (hosted too), or nowhere: "streamed"."""
        if self.pinned:
            return "pinned"
        return "shared" if self.shared else "hosted" if self.hosted else "streamed"


@dataclass(frozen=True)
class Plan:
    """What the engine will do, and the native plan that an Engine opens."""

    mode: str
    device: str
    device_note: str
    devices: tuple[DevicePlan, ...]
    architecture: str
    memory: Memory
    ctx: int
    width: int
    sequences: int
    outputs: int
    uniform: bool
    grain: int
    kv: str
    threads: int
    io: str
    io_note: str
    slots: int
    weights_tensors: int
    weights_bytes: int
    weights_repacked: int
    chunks: tuple[Chunk, ...]
    json: str = field(repr=False, compare=False)
    model: Model = field(repr=False, compare=False)
    handle: ctypes.c_void_p = field(repr=False, compare=False)

    @classmethod
    def from_handle(cls, handle: ctypes.c_void_p, model: Model) -> Plan:
        """Takes over `handle` and frees it when the plan is no longer used."""
        lib = _lib.library()
        length = ctypes.c_size_t()
        address = lib.floatllm_plan_json(handle, ctypes.byref(length))
        text = ctypes.string_at(address, length.value).decode("utf-8", "replace")
        try:
            plan = cls(**_fields(json.loads(text)), json=text, model=model, handle=handle)
        except (ValueError, KeyError, TypeError) as error:
            lib.floatllm_plan_close(handle)
            msg = f"The engine's plan could not be read ({error!r}): install package and library together."
            raise EngineError(msg) from error
        weakref.finalize(plan, lib.floatllm_plan_close, handle)
        return plan


def _fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw["schema_version"] != SCHEMA_VERSION:
        msg = f"schema version {raw['schema_version']} instead of {SCHEMA_VERSION}"
        raise ValueError(msg)
    memory = raw["memory"]
    return {
        "mode": raw["mode"],
        "device": raw["device"],
        "device_note": raw["device_note"],
        "devices": tuple(
            DevicePlan(**{name: device[name] for name in DevicePlan.__dataclass_fields__})
            for device in raw["devices"]
        ),
        "architecture": raw["architecture"],
        "memory": Memory(**{name: memory[name] for name in Memory.__dataclass_fields__}),
        "ctx": raw["ctx"],
        "width": raw["width"],
        "sequences": raw["sequences"],
        "outputs": raw["outputs"],
        "uniform": raw["uniform"],
        "grain": raw["grain"],
        "kv": raw["kv"],
        "threads": raw["threads"],
        "io": raw["io"],
        "io_note": raw["io_note"],
        "slots": raw["slots"],
        "weights_tensors": raw["weights"]["tensors"],
        "weights_bytes": raw["weights"]["bytes"],
        "weights_repacked": raw["weights"]["repacked"],
        "chunks": tuple(_chunk(chunk) for chunk in raw["chunks"]),
    }


def _chunk(raw: Mapping[str, Any]) -> Chunk:
    parts = tuple(Part(**{name: part[name] for name in Part.__dataclass_fields__}) for part in raw["parts"])
    own = {name: raw[name] for name in Chunk.__dataclass_fields__ if name != "parts"}
    return Chunk(**own, parts=parts)
