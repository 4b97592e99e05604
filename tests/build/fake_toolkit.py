"""A CUDA toolkit of a few kilobytes, in wheels named and laid out as the package index's are."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from floatllm_build.rules.cuda_index import INDEX_KIT
from floatllm_build.values import PlannedToolkit

NVCC = f"#!{sys.executable}\nprint('Cuda compilation tools, release 13.4, V13.4.92')\n"
KIT = "13.4.3"
PACKAGES: Mapping[str, str] = {
    "nvidia_cublas": "13.8.0.4",
    "nvidia_cuda_cccl": "13.3.4",
    "nvidia_cuda_crt": "13.4.92",
    "nvidia_cuda_nvcc": "13.4.92",
    "nvidia_cuda_nvrtc": "13.4.92",
    "nvidia_cuda_runtime": "13.4.92",
}
FILES: Mapping[str, Mapping[str, str]] = {
    "nvidia_cublas": {"lib/libcublas.so.13": "blas", "lib/libcublasLt.so.13": "light"},
    "nvidia_cuda_cccl": {"include/cccl/one.h": "header"},
    "nvidia_cuda_crt": {"include/crt/host_config.h": "header"},
    "nvidia_cuda_nvcc": {"bin/nvcc": NVCC},
    "nvidia_cuda_nvrtc": {"lib/libnvrtc.so.13": "compiler"},
    "nvidia_cuda_runtime": {"lib/libcudart.so.13": "runtime"},
}


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str], requires: tuple[str, ...] = ()
) -> Path:
    """A wheel that pip takes; programs in `bin` can be run."""
    info = f"{name}-{version}.dist-info"
    extras = "".join(f"Provides-Extra: {one}\n" for one in ("nvcc", "cccl", "cublas", "crt", "cudart"))
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{extras}{lines}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_hash(text)},{len(text.encode())}" for path, text in content.items()]
    content[f"{info}/RECORD"] = "\n".join((*rows, f"{info}/RECORD,,")) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in content.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = (0o100755 if "/bin/" in path else 0o100644) << 16
            archive.writestr(member, text)
    return wheel


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def make_index(folder: Path, versions: Mapping[str, str] = PACKAGES) -> dict[str, str]:
    """All its wheels in a folder; returns the settings that lead pip there and nowhere else."""
    for name, version in versions.items():
        files = {f"nvidia/cu13/{path}": text for path, text in FILES[name].items()}
        requires = ("nvidia-cuda-nvrtc",) if name == "nvidia_cublas" else ()
        make_wheel(folder, name, version, files, requires)
    parts = tuple(f"{name}=={version}" for name, version in versions.items())
    make_wheel(folder, "cuda_toolkit", KIT, {}, parts)
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
    }


def planned_in(cache: Path, *, download: int = 1) -> PlannedToolkit:
    return PlannedToolkit(
        nvcc=INDEX_KIT.nvcc.replace("{cache}", str(cache)),
        version="13.4",
        download=download,
        requires=("nvidia-cublas>=13,<14", "nvidia-cuda-runtime>=13.4,<14"),
    )
