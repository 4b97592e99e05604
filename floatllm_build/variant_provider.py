"""Tells installers which variants of the engine fit this machine. Experimental: PEP 817 is a draft.

They call this module's functions by the names that the draft gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from floatllm_build import flow
from floatllm_build.matrix import FEATURE, plugins
from floatllm_build.rules.cuda_index import INDEX_KIT
from floatllm_build.rules.cuda_start import no_start
from floatllm_build.rules.vulkan import runs_unnamed
from floatllm_build.symbols import Door, Symbols
from floatllm_build.system import LiveSystem
from floatllm_build.values import BACKENDS, Backend, Host, Request
from floatllm_build.versions import version_tuple

# An installer waits for it.
_SECONDS = 4.0


@dataclass(frozen=True)
class Feature:
    """As variantlib wants it."""

    name: str
    values: list[str]
    """The one to prefer first."""
    multi_value: bool = False


def get_all_configs() -> list[Feature]:
    """Every backend that a variant is made for."""
    return [Feature(FEATURE, list(_backends()))]


def get_supported_configs() -> list[Feature]:
    """Those whose devices and drivers are here; none where the plain wheel is the right one."""
    host = flow.detect(Door(LiveSystem(), Symbols.of_this_user(), _SECONDS), Request()).host
    found = [backend for backend in _backends() if runs_here(host, backend)]
    return [Feature(FEATURE, list(found))] if found else []


def runs_here(host: Host, backend: Backend) -> bool:
    """Whether the plugin of this backend would find a device that it can compute on."""
    return _RULES[backend](host)


def _backends() -> tuple[Backend, ...]:
    made = plugins(flow.wheel_matrix())
    return tuple(backend for backend in BACKENDS if backend in made)


def _cuda(host: Host) -> bool:
    if no_start(host):
        return False
    oldest = int(INDEX_KIT.architectures[0])
    known = (device.capability for device in host.cuda.devices)
    # A driver runs what was compiled with any toolkit of its own major version.
    driver = version_tuple(host.cuda.supports) >= version_tuple(INDEX_KIT.version)[:1]
    return driver and any(one.isdecimal() and int(one) >= oldest for one in known)


_RULES: Mapping[Backend, Callable[[Host], bool]] = {"cuda": _cuda, "vulkan": runs_unnamed}
