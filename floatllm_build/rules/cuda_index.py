"""The CUDA toolkit of the package index: what it can do, what it costs, and on which machines it will do.

The tool brings it into its cache where CUDA was asked for. Pure: the facts were read in the toolkit itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from floatllm_build.rules.machine import glibc
from floatllm_build.sizes import show_size
from floatllm_build.values import CudaToolkit, Download, Host, PlannedToolkit
from floatllm_build.versions import version_tuple

_VERSION = "13.4.3"
INDEX_REQUIREMENT = f"cuda-toolkit[nvcc,cccl,cublas,crt,cudart]=={_VERSION}"
INDEX_KIT = CudaToolkit(
    nvcc=f"{{cache}}/cuda/{_VERSION}/toolkit/nvidia/cu13/bin/nvcc",
    version="13.4",
    # nvcc --list-gpu-arch, crt/host_config.h and crt/math_functions.h of 13.4.92.
    architectures=("75", "80", "86", "87", "88", "89", "90", "100", "103", "107", "110", "120", "121"),
    newest_gcc=16,
    newest_clang=22,
    newest_msvc=0,
    newest_glibc="any",
    cublas=True,
    layout="wheels",
)
# Of the seven wheels, as pip names them (to 0.1 MB); by the CPU.
_SIZES: Mapping[str, int] = {"x86_64": 619_500_000, "arm64": 720_500_000}
# First major version of which the index has a compiler; its driver is 580.
_MAJOR = 13
INSTALL = "floatllm-build install --backend cuda"


def index_download(host: Host) -> Download:
    """What fetching it costs."""
    return Download(what=f"CUDA toolkit {_VERSION}", size=_SIZES[host.cpu.arch])


def index_hint(host: Host) -> str:
    """That it can be had, for who did not ask."""
    return f"`--backend cuda` brings it from the package index ({show_size(index_download(host).size)})"


def index_will_do(host: Host, asked: tuple[str, ...] = (), *, without_device: bool = False) -> bool:
    """Whether it compiles here, for what was `asked` for or else for a GPU that is here, and that runs.

    Its wheels are for glibc (2.27 and newer). Those for Windows are untried, and a Jetson's libraries are its
    own.
    """
    if host.os.name != "Linux" or host.cpu.arch not in _SIZES or host.cuda.jetson:
        return False
    if not glibc(host):
        return False
    if asked and not all(name.rstrip("a") in INDEX_KIT.architectures for name in asked):
        return False
    if without_device:
        return True
    runs = version_tuple(host.cuda.supports) >= (_MAJOR,)
    return runs and (bool(asked) or any(_knows(device.capability) for device in host.cuda.devices))


def _knows(capability: str) -> bool:
    """Whether it can compile for the capability, or for an older one of its major version."""
    known = INDEX_KIT.architectures
    same = (name for name in known if name[:-1] == capability[:-1] and int(name) <= int(capability))
    return capability.isdecimal() and any(same)


def planned(host: Host, kit: CudaToolkit, *, plugin: bool = False) -> PlannedToolkit:
    """The toolkit as a plan has it. Of a `plugin` nobody knows which machines it gets to: it brings its own
    libraries there, whatever it was compiled with.
    """
    return PlannedToolkit(
        nvcc=kit.nvcc,
        version=kit.version,
        download=index_download(host).size if kit is INDEX_KIT else 0,
        requires=_requires(kit) if (plugin or kit.layout == "wheels") and host.os.name == "Linux" else (),
    )


def _requires(kit: CudaToolkit) -> tuple[str, ...]:
    """What brings its libraries where no toolkit is.

    The compiler's own code may want a runtime as new as itself. Of cuBLAS, which is large and which PyTorch
    pins, ggml takes functions that CUDA 11 had (read in its objects).
    """
    major = (version_tuple(kit.version) or (_MAJOR,))[0]
    below = f"<{major + 1}"
    return (f"nvidia-cublas>={major},{below}", f"nvidia-cuda-runtime>={kit.version},{below}")
