"""Names for what is built, made from everything that decides it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import scikit_build_core

from floatllm_build import __version__
from floatllm_build.build_folder import NOT_INHERITED
from floatllm_build.files import sha256_file
from floatllm_build.start import which
from floatllm_build.values import Backend, Host, Plan, Program, ToolchainFacts

# Variables that cmake and compilers read by themselves; and all whose names start with CMAKE_.
_READ_BY_TOOLS = (
    *("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "ASMFLAGS"),
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"),
    *("MACOSX_DEPLOYMENT_TARGET", "SDKROOT", "ARCHFLAGS"),
    *("OBJC", "OBJCXX", "OBJCFLAGS", "OBJCXXFLAGS", "OBJC_INCLUDE_PATH", "DEVELOPER_DIR", "LD_RUN_PATH"),
    *("CL", "_CL_", "LINK", "_LINK_", "INCLUDE", "LIB", "LIBPATH", "RC", "RCFLAGS"),
    *("ANDROID_NDK_HOME", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR"),
)

# And those that are read for one backend: the wheel of the engine, beside a plugin's, stays what it was.
_READ_FOR: Mapping[Backend, tuple[str, ...]] = {
    "cuda": (
        *("CUDAFLAGS", "CUDAHOSTCXX", "CUDAARCHS", "CUDACXX", "CUDA_PATH", "CUDA_HOME", "CUDA_ROOT"),
        *("CUDAToolkit_ROOT", "CUDA_INC_PATH", "CUDA_LIB_PATH"),
        *("NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS", "NVCC_CCBIN"),
    ),
    "hip": (
        *("HIPFLAGS", "HIPARCHS", "HIPCXX", "HIP_PATH", "HIP_CLANG_PATH", "HIP_DEVICE_LIB_PATH"),
        *("HIP_PLATFORM", "HIPCC_COMPILE_FLAGS_APPEND", "HIPCC_LINK_FLAGS_APPEND", "HSA_PATH", "ROCM_PATH"),
    ),
    "vulkan": ("VULKAN_SDK", "Vulkan_ROOT"),
}


def digest(inputs: Mapping[str, Any]) -> str:
    """A SHA-256 over the inputs' canonical JSON."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def plan_inputs(
    plan: Plan, variables: Mapping[str, str], host: Host, toolchain: ToolchainFacts, ggml_folder: str
) -> dict[str, Any]:
    """What makes two builds two folders: CMake cannot change these in a folder that it configured.

    `variables` are the preset's: one that a later preset leaves out would stay in the folder's cache.
    """
    compilers = [
        [c.command, c.kind, c.version, program_paths(c.command)] if c else None
        for c in (toolchain.c, toolchain.cxx)
    ]
    kits: dict[str, Any] = {
        "cuda": [[kit.nvcc, kit.version] for kit in host.cuda.toolkits],
        "hip": [host.hip.hipcc, host.hip.version],
        "vulkan": [_identity(host.vulkan.glslc), host.vulkan.include, host.vulkan.headers],
    }
    programs = [_identity(toolchain.cmake), _identity(toolchain.ninja)]
    return {
        "cmake": list(plan.cmake),
        "variables": dict(variables),
        "cpu": plan.cpu,
        "compilers": compilers,
        "kit": kits.get(plan.backend),
        "programs": programs,
        "ggml": ggml_folder,
        "environment": {
            name: value for name, value in os.environ.items() if value and _is_read(name, plan.backend)
        },
    }


def _identity(program: Program | None) -> list[str] | None:
    return [program.path, program.version] if program else None


def program_paths(command: str) -> list[list[str]]:
    """Where PATH finds each program in `ccache gcc` and where links lead from there."""
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError:
        words = [command]
    found = (which(word) for word in words if not word.startswith("-"))
    return [[path, os.path.realpath(path)] for path in found if path]


def tool_digest() -> str:
    """A SHA-256 over this tool's own modules: any of them may decide how a wheel is packed and proven."""
    home = Path(__file__).resolve().parents[1]
    # A checkout has the engine's sources beside the package, an installation below data/.
    modules = sorted(path.relative_to(home) for path in home.rglob("*.py"))
    return digest({path.as_posix(): sha256_file(home / path) for path in modules if path.parts[0] != "data"})


def _is_read(name: str, backend: Backend) -> bool:
    if name in _READ_BY_TOOLS or name in _READ_FOR.get(backend, ()):
        return True
    return name.startswith("CMAKE_") and name not in NOT_INHERITED


def wheel_inputs(
    folder_inputs: Mapping[str, Any], sources: Mapping[str, str], ggml_tree: str, platform: str
) -> dict[str, Any]:
    """Everything that can change the wheel: the folder's inputs, each source file, ggml, packer and tool."""
    # Where ggml lies leaves no trace in a wheel: another cache makes the same.
    inputs = {name: value for name, value in folder_inputs.items() if name != "ggml"}
    return {
        **inputs,
        "sources": dict(sources),
        "ggml_tree": ggml_tree,
        "platform": platform,
        "packer": scikit_build_core.__version__,
        "tool": [__version__, tool_digest()],
    }
