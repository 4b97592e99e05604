"""HIP: GPU x rocBLAS x ROCm x ggml."""

from __future__ import annotations

from floatllm_build.rules.fit import Fit, Obstacle, Terms, join, waive
from floatllm_build.rules.packages import install_command
from floatllm_build.values import Host, Reason
from floatllm_build.versions import version_tuple

# ggml-hip's CMake refuses older ones (read).
_OLDEST_ROCM = (6, 1)
# Discrete RDNA 2 GPUs, which run gfx1030's code when they are told to. Integrated ones (1033, 1035, 1036)
# may crash with it (ollama/ollama#6005).
_LIKE_GFX1030 = {"gfx1031", "gfx1032", "gfx1034"}
# Where CMake and ggml look by themselves.
_USUAL_FOLDERS = {"", "/opt/rocm", "/usr"}


def fit_hip(host: Host, terms: Terms) -> Fit | Obstacle:
    if host.os.name != "Linux":
        windows = "use plain cmake with AMD's HIP SDK: cmake --preset hip -S native"
        return Obstacle(
            reason=f"this tool builds HIP on Linux only, and this is {host.os.name or 'none'}",
            fix=windows if host.os.name == "Windows" else "use Linux with an AMD GPU",
        )
    hip = host.hip
    reasons: list[Reason] = []
    deviceless = not hip.targets
    if deviceless:
        fix = "with an AMD GPU in the machine, load its driver: sudo modprobe amdgpu"
        if host.os.container:
            fix = "start the container with --device /dev/kfd --device /dev/dri"
        elif host.os.wsl:
            fix = "use Linux itself: under WSL the kernel lists no AMD GPU"
        absent = "no AMD GPU is listed by the kernel's compute driver (/sys/class/kfd)"
        no_device = Obstacle(reason=absent, fix=fix)
        if not terms.without_device:
            return no_device
        reasons.append(waive(no_device))
    if not hip.hipcc:
        return Obstacle(reason="hipcc was not found", fix=install_command(host.os, "rocm"))
    version = version_tuple(hip.version)
    if version and version < _OLDEST_ROCM:
        return Obstacle(
            reason=f"ROCm is {hip.version}, and ggml needs 6.1 or newer",
            fix="install ROCm 6.1 or newer from AMD",
        )
    targets = _targets(host, terms, reasons)
    if isinstance(targets, Obstacle):
        return targets
    folder = hip.rocm.rstrip("/")
    compiled = {name.partition(":")[0] for name in targets or hip.rocblas}
    return Fit(
        architectures=targets,
        defines=(
            *((f"GPU_TARGETS={';'.join(targets)}",) if targets else ()),
            # Read in CMake's and ggml's files, not run: no machine with ROCm elsewhere was at hand.
            *(
                (f"CMAKE_HIP_COMPILER_ROCM_ROOT={folder}", f"CMAKE_PREFIX_PATH={folder}")
                if folder not in _USUAL_FOLDERS
                else ()
            ),
        ),
        reasons=tuple(reasons),
        device=next((i for i, name in enumerate(hip.targets) if name in compiled), 0),
        proven=not deviceless,
    )


def _targets(host: Host, terms: Terms, reasons: list[Reason]) -> tuple[str, ...] | Obstacle:
    wanted = terms.architectures or tuple(sorted(set(host.hip.targets)))
    if terms.architectures:
        text = f"compiled for {join(wanted)}, as was asked, instead of what was found"
        reasons.append(Reason(rule="architectures", text=text))
    elif terms.portable:
        wanted = ()
    covered = set(host.hip.rocblas)
    if not covered or not wanted:
        return wanted  # nobody says what rocBLAS holds: the proof will
    left_out = tuple(name for name in wanted if name.partition(":")[0] not in covered)
    kept = tuple(name for name in wanted if name not in left_out)
    if not kept:
        return _not_covered(left_out, covered)
    if left_out:
        text = f"{join(left_out)} is left out: the installed rocBLAS has no kernels for it"
        reasons.append(Reason(rule="rocblas", text=text))
    return kept


def _not_covered(targets: tuple[str, ...], covered: set[str]) -> Obstacle:
    reason = f"the installed rocBLAS has no kernels for {join(targets)}, only for {join(sorted(covered))}"
    if "gfx1030" in covered and not _LIKE_GFX1030.isdisjoint(targets):
        return Obstacle(
            reason=f"{reason}; the GPU runs gfx1030's code where HSA_OVERRIDE_GFX_VERSION=10.3.0 is set, "
            "as it must be whenever the engine runs; a newer ROCm may cover it",
            fix="HSA_OVERRIDE_GFX_VERSION=10.3.0 floatllm-build install --architectures gfx1030",
        )
    return Obstacle(reason=reason, fix="install a newer ROCm whose rocBLAS covers this GPU")
