"""The answers to: can this backend be built and run here?"""

from __future__ import annotations

from dataclasses import dataclass

from floatllm_build.values import Download, PlannedToolkit, Reason


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the request says about one backend."""

    named: bool = False
    """The user asked for this backend, and for no other."""
    portable: bool = False
    """The result is for any machine of the platform, not for this one."""
    plugin: str = ""
    """Name of the wheel of its own that the backend's library gets: vulkan, cuda13."""
    architectures: tuple[str, ...] = ()
    """Of the device, instead of what was probed: 86, 90a, gfx1100; checked, and of this backend."""
    without_device: bool = False
    """A wheel for other machines: that the device is not here is no obstacle."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """It can, and so."""

    architectures: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    environment: tuple[str, ...] = ()
    """`NAME=VALUE` that a program needs to see the device."""
    device: int = 0
    """Number, in ggml's order, of the first device that the result is compiled for."""
    proven: bool = True
    """False where no device here can run the result."""
    toolkit: PlannedToolkit | None = None
    downloads: tuple[Download, ...] = ()
    """Of its own, beside what every build fetches."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """It cannot: why, and the command or sentence that changes it."""

    reason: str
    fix: str
    near: bool = False
    """Little is missing: of several obstacles this one's fix is the one to show."""


def waive(obstacle: Obstacle) -> Reason:
    """That the device is not here, or not one that would do, is no obstacle to a wheel for others."""
    text = f"{obstacle.reason}: the wheel is built for other machines and cannot be proven here"
    return Reason(rule="no-device", text=text)


def join(words: tuple[str, ...] | list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = words or ("",)
    return f"{', '.join(first)} and {last}" if first else last
