"""The presets of the checkout and plans made from them, because much of the tool starts from a plan."""

from __future__ import annotations

from typing import Any

from tool_environment import ROOT

from floatllm_build.presets import load_presets
from floatllm_build.select import make_plan
from floatllm_build.sizes import GIB, MIB
from floatllm_build.values import Download, Host, Plan, Reason, Rejection, Request

PRESETS = load_presets(ROOT)
PARSED_ONLY = {
    "metal": "a Mac",
    "wheel-metal": "a Mac",
    "android-ndk-arm64": "the Android NDK",
}
"""What no test configures, and what it would take."""
PLAN = Plan(
    preset="cuda",
    backend="cuda",
    device="CUDA0",
    portable=False,
    plugin="",
    low_mem=False,
    jobs=8,
    jobs_limit=8,
    memory_rung=12 * GIB,
    memory_per_job=800 * MIB,
    memory_peak=6 * GIB,
    architectures=("86", "89"),
    downloads=(Download(what="ggml", size=3 * MIB), Download(what="cmake", size=28 * MIB)),
    toolkit=None,
    proof="device",
    environment=(),
    defines=(),
    cmake=(
        *("cmake", "--preset", "cuda", "-S", "{build}/src/native", "-B", "{build}/out"),
        *("-DGGML_DIR={ggml}", "-DCMAKE_CUDA_ARCHITECTURES=86-real;89-real", "-DCMAKE_CXX_FLAGS=-Os -g0"),
    ),
    cc="cc",
    cxx="c++",
    cpu="",
    reasons=(
        Reason(rule="best-backend", text="the RTX 3060 can be used"),
        Reason(rule="jobs", text="8 usable CPUs, 12.0 GiB to plan with"),
    ),
    rejections=(
        Rejection(backend="metal", reason="this is no Mac", fix="use a Mac"),
        Rejection(backend="vulkan", reason="the headers are old", fix="sudo apt install libvulkan-dev"),
    ),
)
"""Made by hand, for a machine with an NVIDIA GPU."""


def plan(host: Host, **request: Any) -> Plan:
    return make_plan(host, Request(**request), PRESETS)


def rules(made: Plan) -> set[str]:
    return {reason.rule for reason in made.reasons}


def rejected(made: Plan) -> dict[str, str]:
    return {no.backend: no.reason for no in made.rejections}
