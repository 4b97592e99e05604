"""Which backends this machine can build and run, and how: solved before anything is compiled. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from floatllm_build.rules.cuda import fit_cuda
from floatllm_build.rules.fit import Fit, Obstacle, Terms
from floatllm_build.rules.hip import fit_hip
from floatllm_build.rules.metal import fit_metal
from floatllm_build.rules.vulkan import fit_vulkan
from floatllm_build.values import Backend, Host

FITTERS: Mapping[Backend, Callable[[Host, Terms], Fit | Obstacle]] = {
    "metal": fit_metal,
    "cuda": fit_cuda,
    "hip": fit_hip,
    "vulkan": fit_vulkan,
    "cpu": lambda _host, _terms: Fit(),
}
