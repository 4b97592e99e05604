"""The proof of a device, operation by operation: what it computes, against the CPU or against plain sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from floatllm import _lib
from floatllm.interrupt import noted

_DIFFERS, _UNSUPPORTED = 1, 2


@dataclass(frozen=True)
class Check:
    """One operation on inputs of one type (ggml's name), for a number of positions at once.

    `nmse` is the normalised mean squared error, more where a single number is far off, infinite where one is
    not finite, and None where the device does not support the operation; `needed` where no model runs without
    it.
    """

    operation: str
    type: str
    positions: int
    nmse: float | None
    allowed: float
    needed: bool

    @property
    def ok(self) -> bool:
        return self.nmse is None or self.nmse <= self.allowed

    @property
    def name(self) -> str:
        return f"{self.operation} of {self.type}"


def prove(device: str = "") -> tuple[Check, ...]:
    """Every check on a device by ggml's name; empty: the first GPU, else the CPU.

    Other devices are compared with the CPU, the CPU with plain sums. Raises MissingError where there is no
    such device, and EngineError where it gives no memory or fails.
    """
    lib = _lib.library()
    found: list[Check] = []

    def take(info: Any, _user: Any) -> int:
        if note.came:
            return 1
        check = info.contents
        found.append(
            Check(
                operation=check.operation.decode(),
                type=check.type.decode(),
                positions=check.positions,
                nmse=None if check.outcome == _UNSUPPORTED else check.nmse,
                allowed=check.allowed,
                needed=bool(check.needed),
            )
        )
        return 0

    name = device.encode()
    with noted() as note:
        _lib.call(lib, "floatllm_prove", name, len(name), _lib.CheckFunction(take), None)
    return tuple(found)


def fault(device: str, checks: tuple[Check, ...]) -> str:
    """What stands against the device, in one sentence; empty where all that it computes agrees."""
    wrong = [check for check in checks if not check.ok]
    lacking = [check for check in checks if check.nmse is None and check.needed]
    more = len(wrong) + len(lacking) - 1
    rest = "" if more < 1 else " 1 more check fails." if more == 1 else f" {more} more checks fail."
    if wrong:
        first = wrong[0]
        far = "infinite" if first.nmse is None or math.isinf(first.nmse) else f"{first.nmse:.2g}"
        return (
            f"{device} computes {first.name} wrongly at {first.positions} positions: NMSE {far}, "
            f"{first.allowed:.2g} is allowed.{rest}"
        )
    if lacking:
        return f"{device} does not support {lacking[0].name}, which every model needs.{rest}"
    return ""
