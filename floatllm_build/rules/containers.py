"""How a GPU gets into the container that this is."""

from __future__ import annotations

import re
from typing import Literal

from floatllm_build.tables.containers import ALSO_CALLED, AMD, NVIDIA, OTHER, OUT_OF_REACH
from floatllm_build.values import Host

# Kernels of the virtual machines in which Docker Desktop, OrbStack and the like keep their containers, on a
# Mac and on Linux. On Windows it is WSL, which reaches NVIDIA's GPUs.
_IN_A_VM = re.compile(r"linuxkit|orbstack")


def reaches_none(host: Host) -> bool:
    """Nothing brings a GPU into this container."""
    return bool(_IN_A_VM.search(host.os.release)) or host.os.container in OUT_OF_REACH


def hand_through(host: Host, gpu: Literal["nvidia", "amd", "other"]) -> str:
    """What brings a GPU into the container."""
    if _IN_A_VM.search(host.os.release):
        machine = "the Mac itself" if host.cpu.arch == "arm64" else "the machine itself"
        return (
            f"install on {machine}: this container's virtual machine ({host.os.release}) reaches no GPU, "
            "whatever it is started with"
        )
    table = {"nvidia": NVIDIA, "amd": AMD, "other": OTHER}[gpu]
    kind = host.os.container
    return table.get(kind) or table.get(ALSO_CALLED.get(kind, "")) or table[""]
