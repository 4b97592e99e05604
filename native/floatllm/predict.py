"""How long a token will take, and what limits it, measured on this machine before anything is run."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floatllm import _lib

if TYPE_CHECKING:
    from floatllm.plan import Plan


@dataclass(frozen=True)
class Prediction:
    """One token of a plan: a pass of one position over all weights.

    `seconds` is the longer of reading (`read_seconds`) and computing (`compute_seconds`) where one goes on
    beside the other, else their sum; `limit` names the longer: "disk", "link" (to a device with memory of its
    own) or "compute". `streamed` bytes are read in each pass, at `read_rate` bytes per second; `computed`
    bytes of weights go through the processor, at `compute_rate`.
    """

    seconds: float
    limit: str
    read_seconds: float
    compute_seconds: float
    streamed: int
    computed: int

    @property
    def read_rate(self) -> float:
        """Bytes per second; 0 where nothing is read."""
        return self.streamed / self.read_seconds if self.read_seconds else 0.0

    @property
    def compute_rate(self) -> float:
        """Bytes of weights per second."""
        return self.computed / self.compute_seconds if self.compute_seconds else 0.0


def predict(plan: Plan) -> Prediction:
    """Measures for about half a second, in no more memory than the plan grants to chunks.

    Raises UsageError for a plan of mode "map" and EngineError where the model cannot be read.
    """
    found = _lib.Prediction()
    _lib.call(_lib.library(), "floatllm_plan_predict", plan.handle, ctypes.byref(found))
    reads = found.read_seconds > found.compute_seconds
    return Prediction(
        seconds=found.seconds,
        limit="compute" if not reads else "disk" if plan.device == "CPU" else "link",
        read_seconds=found.read_seconds,
        compute_seconds=found.compute_seconds,
        streamed=found.streamed_bytes,
        computed=found.computed_bytes,
    )
