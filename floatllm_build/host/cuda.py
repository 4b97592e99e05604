"""NVIDIA GPUs and their toolkit. Rough: what nvidia-smi says, and the nvcc that is found first."""

from __future__ import annotations

import re

from floatllm_build.system import System
from floatllm_build.values import CudaDevice, CudaFacts, Note, Program

_QUERY = ("--query-gpu=driver_version,compute_cap,memory.total,name", "--format=csv,noheader,nounits")


def probe_cuda(system: System, notes: list[Note]) -> CudaFacts:
    driver = ""
    devices: tuple[CudaDevice, ...] = ()
    smi = system.which("nvidia-smi")
    if smi:
        answer = system.run((smi, *_QUERY), timeout=4.0)
        driver, devices = parse_query(answer.out) if answer.rc == 0 else ("", ())
        if not devices:
            said = (answer.err.strip() or answer.out.strip())[:200] or f"exit {answer.rc}"
            notes.append(Note(source="nvidia-smi", said=said))
    return CudaFacts(driver=driver, devices=devices, nvcc=_nvcc(system, notes))


def parse_query(text: str) -> tuple[str, tuple[CudaDevice, ...]]:
    """Driver version and devices from nvidia-smi's table; a row that makes no sense is left out."""
    driver, devices = "", []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) == 4 and re.fullmatch(r"\d+\.\d+", cells[1]):
            driver = cells[0]
            # Jetson prints [N/A] for memory: it shares the machine's.
            memory = int(cells[2]) << 20 if cells[2].isdigit() else 0
            devices.append(CudaDevice(name=cells[3], capability=cells[1].replace(".", ""), memory=memory))
    return driver, tuple(devices)


def _nvcc(system: System, notes: list[Note]) -> Program | None:
    cuda_path = system.getenv("CUDA_PATH")
    candidates = [
        system.getenv("CUDACXX"),
        f"{cuda_path}/bin/nvcc" if cuda_path else None,
        system.which("nvcc"),
        *reversed(system.glob("/usr/local/cuda*/bin/nvcc")),
    ]
    for path in dict.fromkeys(filter(None, candidates)):
        answer = system.run((path, "--version"), timeout=10.0)
        if match := re.search(r"release (\d+\.\d+)", answer.out):
            return Program(path=path, version=match[1])
        notes.append(Note(source=f"{path} --version", said=answer.err.strip()[:200] or f"exit {answer.rc}"))
    return None
