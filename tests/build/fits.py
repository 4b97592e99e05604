"""Asks the rules about one backend of a machine, and makes machines with NVIDIA GPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
from machines import CUDA_12_4, NVIDIA, RTX_3060

from floatllm_build.rules import FITTERS
from floatllm_build.rules.fit import Fit, Obstacle, Terms
from floatllm_build.values import Backend, Compiler, CudaDevice, CudaToolkit, Host

CUDA_13 = replace(
    CUDA_12_4,
    nvcc="/usr/local/cuda-13.0/bin/nvcc",
    version="13.0",
    architectures=("75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121"),
    newest_gcc=15,
    newest_clang=20,
    newest_glibc="2.41",
)
CUDA_11_5 = replace(
    CUDA_12_4,
    nvcc="/usr/bin/nvcc",
    version="11.5",
    architectures=("50", "61", "70", "75", "80", "86", "87"),
    newest_gcc=11,
    newest_clang=12,
)


def gpu(capability: str, name: str = "GPU", **facts: Any) -> CudaDevice:
    return replace(RTX_3060, capability=capability, name=name, **facts)


def nvidia(
    *devices: CudaDevice, kits: tuple[CudaToolkit, ...] = (CUDA_12_4,), supports: str = "12.4", **facts: Any
) -> Host:
    cuda = replace(NVIDIA, devices=devices or (RTX_3060,), toolkits=kits, supports=supports)
    return machines.pc(cuda=cuda, **facts)


def gcc(version: str, command: str = "c++") -> Compiler:
    return Compiler(command=command, kind="gcc", version=version)


def with_compiler(host: Host, cxx: Compiler, *others: Compiler) -> Host:
    return replace(host, toolchain=replace(host.toolchain, cxx=cxx, others=others))


def fit(backend: Backend, host: Host, **terms: Any) -> Fit:
    answer = FITTERS[backend](host, Terms(**terms))
    assert isinstance(answer, Fit), answer
    return answer


def obstacle(backend: Backend, host: Host, **terms: Any) -> Obstacle:
    answer = FITTERS[backend](host, Terms(**terms))
    assert isinstance(answer, Obstacle), answer
    assert answer.reason
    assert answer.fix
    return answer


def rules(answer: Fit) -> set[str]:
    return {reason.rule for reason in answer.reasons}
