"""Names for what is built, made from everything that decides it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from floatllm_build.values import Host, Plan, ToolchainFacts

# Variables that cmake and compilers read by themselves.
_READ_BY_TOOLS = (
    *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDAFLAGS", "CUDAHOSTCXX", "HIPFLAGS", "ASMFLAGS"),
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"),
    *("MACOSX_DEPLOYMENT_TARGET", "SDKROOT", "ARCHFLAGS", "VULKAN_SDK", "CUDA_PATH", "ROCM_PATH"),
    *("ANDROID_NDK_HOME", "CMAKE_PREFIX_PATH"),
)


def digest(inputs: Mapping[str, Any]) -> str:
    """A SHA-256 over the inputs' canonical JSON."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def plan_inputs(plan: Plan, host: Host, toolchain: ToolchainFacts, ggml_folder: str) -> dict[str, Any]:
    """What makes two builds two folders: CMake cannot change these in a folder that it configured."""
    compilers = [[c.command, c.kind, c.version] if c else None for c in (toolchain.c, toolchain.cxx)]
    kits: dict[str, Any] = {
        "cuda": host.cuda.nvcc and [host.cuda.nvcc.path, host.cuda.nvcc.version],
        "hip": host.hip.hipcc,
        "vulkan": [host.vulkan.glslc, host.vulkan.headers],
    }
    programs = [[p.path, p.version] if p else None for p in (toolchain.cmake, toolchain.ninja)]
    return {
        "cmake": list(plan.cmake),
        "cpu": plan.cpu,
        "compilers": compilers,
        "kit": kits.get(plan.backend),
        "programs": programs,
        "ggml": ggml_folder,
        "environment": {name: os.environ[name] for name in _READ_BY_TOOLS if os.environ.get(name)},
    }


def wheel_inputs(
    folder_inputs: Mapping[str, Any], sources: Mapping[str, str], ggml_tree: str, platform: str
) -> dict[str, Any]:
    """Everything that can change the wheel: the folder's inputs, each source file, ggml, the packer."""
    return {
        **folder_inputs,
        "sources": dict(sources),
        "ggml_tree": ggml_tree,
        "platform": platform,
        "packer": version("scikit-build-core"),
    }
