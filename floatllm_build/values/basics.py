"""What travels between the steps. Frozen dataclasses that become JSON, and nothing else.

Sizes are bytes unless a name says otherwise; paths are text.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 1

Backend = Literal["metal", "cuda", "hip", "vulkan", "cpu"]
"""In the order of preference."""
BACKENDS: tuple[Backend, ...] = ("metal", "cuda", "hip", "vulkan", "cpu")


def to_json(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, nested ones included, below `schema_version`."""
    return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(value)}


@dataclass(frozen=True, kw_only=True)
class Program:
    path: str
    version: str
