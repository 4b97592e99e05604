"""What the largest units take to compile, with some air: bytes, measured with GCC 12, clang 14 and nvcc 13 on
ggml 0.26.0. The plan and the governor of the build reckon with the same.
"""

from __future__ import annotations

from floatllm_build.sizes import MIB

GCC = 420 * MIB
# With GCC told to collect its garbage early: 157 MiB as Release, 140 as MinSizeRel.
GCC_RECLAIMED = 160 * MIB
CLANG = 200 * MIB
NVCC = 800 * MIB
# A guess after CUDA's.
HIP = 1000 * MIB
# ggml-vulkan.cpp.
VULKAN = 1600 * MIB
# mul_mm.comp.cpp, 85 MiB of shaders as numbers: the same with every optimisation, and with --param ggc-*.
SHADERS_GCC = 3500 * MIB
SHADERS_CLANG = 2800 * MIB

RECLAIM_FLAGS = "--param ggc-min-expand=10 --param ggc-min-heapsize=32768"
"""Makes GCC collect its garbage early: less than half the memory, a third more time."""

SPARING_FLAGS = "--param ggc-min-expand=5 --param ggc-min-heapsize=4096"
"""Another 5 % less for 40 % more time: ggml-rpc.cpp in 142 MB instead of 150 (GCC 12)."""
