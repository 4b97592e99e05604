"""Facts about GPUs, their drivers, and the toolkits that build for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from floatllm_build.values.basics import Program


@dataclass(frozen=True, kw_only=True)
class CudaDevice:
    name: str
    capability: str
    """Compute capability without the dot: 86, 90, 120."""
    memory: int
    """Bytes in all; 0 where the driver does not say."""
    integrated: bool
    """Shares the machine's memory (Jetson)."""
    mig: bool
    """A slice of a GPU (Multi-Instance GPU), or a GPU that is cut into slices."""


@dataclass(frozen=True, kw_only=True)
class CudaToolkit:
    nvcc: str
    version: str
    """12.4, 13.0."""
    architectures: tuple[str, ...]
    """What nvcc can compile for: 75, 80, ... (`--list-gpu-arch`)."""
    newest_gcc: int
    """Newest major version of the host compiler that the toolkit takes (crt/host_config.h), 0 unknown."""
    newest_clang: int
    newest_msvc: int
    """Newest _MSC_VER (1944) that the toolkit takes by the same header, 0 unknown."""
    newest_glibc: str
    """Newest glibc whose math.h agrees with the toolkit's: 2.40, 2.41 or `any`; empty where nobody says."""
    cublas: bool
    """cuBLAS's header lies beside the toolkit's own, or these could not be found."""
    layout: Literal["toolkit", "wheels"]
    """`wheels`: from the package index, where libraries lie elsewhere and have names with a version only."""


@dataclass(frozen=True, kw_only=True)
class CudaFacts:
    library: str
    """The libcuda that answered."""
    driver: str
    """580.65.06; empty where only the library's own interface answered."""
    supports: str
    """The newest CUDA that the driver runs: 13.0."""
    devices: tuple[CudaDevice, ...]
    toolkits: tuple[CudaToolkit, ...]
    """In the order of the search: CUDACXX, CUDA_PATH, PATH, /usr/local/cuda*, newest first."""
    jetson: str
    """L4T release where this is a Jetson."""
    init_error: int
    """What cuInit returned (a CUresult: 803) if no library offered a device; 0 if none failed so."""
    smi_error: int
    """Exit status of nvidia-smi if it was asked for the GPUs and failed (9, 18); else 0."""
    vector_math: Literal["", "bare", "guarded"]
    """On Arm, how glibc's bits/math-vector.h uses GCC's vector types: `guarded` if nvcc does not see them."""


@dataclass(frozen=True, kw_only=True)
class VulkanDevice:
    name: str
    type: Literal["discrete", "integrated", "virtual", "cpu", "other"]
    api: str
    """1.3.289."""
    driver: str
    storage_16_bit: bool | None
    """storageBuffer16BitAccess; None if nobody says."""
    shared_memory: int
    """maxComputeSharedMemorySize in bytes, 0 unknown."""


@dataclass(frozen=True, kw_only=True)
class VulkanFacts:
    library: str
    """The loader that answered."""
    devices: tuple[VulkanDevice, ...]
    """In the loader's order; software devices (type cpu) are among them."""
    headers: int
    """VK_HEADER_VERSION, 0 where there are none."""
    include: str
    """The folder that holds vulkan/vulkan_core.h."""
    glslc: Program | None
    spirv_headers: str
    """SPIRV-HeadersConfig.cmake, or empty."""
    closed: str
    """A GPU's file in /dev/dri that this user may not open, if no GPU answered; else empty."""


@dataclass(frozen=True, kw_only=True)
class MetalDevice:
    name: str
    working_set: int
    """recommendedMaxWorkingSetSize in bytes, 0 unknown."""


@dataclass(frozen=True, kw_only=True)
class MetalFacts:
    devices: tuple[MetalDevice, ...]


@dataclass(frozen=True, kw_only=True)
class HipFacts:
    targets: tuple[str, ...]
    """gfx names of the GPUs, as the kernel lists them."""
    rocm: str
    """ROCm's folder."""
    version: str
    hipcc: str
    rocblas: tuple[str, ...]
    """gfx names that the installed rocBLAS has kernels for."""
    missing: tuple[str, ...]
    """Of hip, hipblas and rocblas, those whose CMake files are not there."""
    kfd: str
    """How /dev/kfd opens: `yes`, or the error's name (EACCES, ENOENT); empty if nobody says."""
    override: str
    """gfx name that HSA_OVERRIDE_GFX_VERSION makes the runtime take the GPUs for; empty if it is unset."""
