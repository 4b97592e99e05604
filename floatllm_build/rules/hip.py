"""HIP: GPU x rocBLAS x ROCm x ggml."""

from __future__ import annotations

from floatllm_build.rules.containers import hand_through
from floatllm_build.rules.cuda_apt import packages_of
from floatllm_build.rules.fit import Fit, Obstacle, Terms, join, waive
from floatllm_build.rules.packages import as_root, install_command, manager
from floatllm_build.tables.amd import runs_code_of
from floatllm_build.values import Host, Reason
from floatllm_build.versions import version_tuple

# ggml-hip's CMake refuses older ones (read).
_OLDEST_ROCM = (6, 1)
# Discrete RDNA 2 GPUs, which run gfx1030's code when they are told to. Integrated ones (1033, 1035, 1036)
# may crash with it (ollama/ollama#6005).
_LIKE_GFX1030 = {"gfx1031", "gfx1032", "gfx1034"}
_CALLED = {"hip": "HIP's runtime", "hipblas": "hipBLAS", "rocblas": "rocBLAS"}
# AMD's own packages, which lie in /opt/rocm (its installation guide for Linux, November 2026).
_OF_AMD = {
    "apt": "sudo apt install hip-dev hipblas-dev rocblas-dev",
    "dnf": "sudo dnf install hip-devel hipblas-devel rocblas-devel",
    "zypper": "sudo zypper install hip-devel hipblas-devel rocblas-devel",
}
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
    no_device = _absent_device(host)
    if no_device and not terms.without_device:
        return no_device
    if no_device:
        reasons.append(waive(no_device))
    if not hip.hipcc:
        return Obstacle(reason="hipcc was not found", fix=_rocm_fix(host))
    version = version_tuple(hip.version)
    if version and version < _OLDEST_ROCM:
        return Obstacle(
            reason=f"ROCm is {hip.version}, and ggml needs 6.1 or newer",
            fix="install ROCm 6.1 or newer from AMD",
        )
    if hip.missing:
        names = join([_CALLED.get(name, name) for name in hip.missing])
        reason = f"{names}, which ggml is built with, cannot be found next to hipcc (no CMake files)"
        return Obstacle(reason=reason, fix=_libraries_fix(host), near=True)
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
        device=next((i for i, name in enumerate(_as_taken(host)) if name in compiled), 0),
        proven=no_device is None,
    )


def _absent_device(host: Host) -> Obstacle | None:
    hip = host.hip
    if not hip.targets:
        fix = "with an AMD GPU in the machine, load its driver: sudo modprobe amdgpu"
        if host.os.wsl:
            fix = "use Linux itself: under WSL the kernel lists no AMD GPU"
        elif host.os.container:
            fix = hand_through(host, "amd")
        return Obstacle(
            reason="no AMD GPU is listed by the kernel's compute driver (/sys/class/kfd)", fix=fix
        )
    listed = f"the kernel lists {join(tuple(dict.fromkeys(hip.targets)))}"
    if hip.kfd in {"", "yes"}:
        return None
    denied = hip.kfd in {"EACCES", "EPERM"}
    why = "this user may not open" if denied else "programs cannot open"
    reason = f"{listed}, and {why} /dev/kfd, by which they reach it ({hip.kfd})"
    if denied and not host.os.container:
        return Obstacle(reason=reason, fix="sudo usermod -aG render,video $USER, then log in again")
    if hip.kfd == "EACCES":
        fix = f"{hand_through(host, 'amd')}, and with the group of /dev/kfd (docker: --group-add video "
        fix += "--group-add render)"
        return Obstacle(reason=reason, fix=fix)
    if host.os.container:
        return Obstacle(reason=reason, fix=hand_through(host, "amd"))
    return Obstacle(reason=reason, fix="load the driver again (sudo modprobe amdgpu), or reboot")


def _rocm_fix(host: Host) -> str:
    own = packages_of(host.os)
    if own and own.rocm < _OLDEST_ROCM:
        return "install ROCm 6.1 or newer with hipBLAS and rocBLAS from AMD; this system's own is older"
    return install_command(host.os, "rocm")


def _libraries_fix(host: Host) -> str:
    """In /opt ROCm is AMD's, whose packages have names of their own."""
    if not host.hip.rocm.startswith("/opt/") or manager(host.os) not in _OF_AMD:
        return install_command(host.os, "rocm")
    command = as_root(host.os, _OF_AMD[manager(host.os)])
    distribution = " (the distribution's own ROCm has them as libhipblas-dev and librocblas-dev)"
    return f"{command} from AMD's repository{distribution if manager(host.os) == 'apt' else ''}"


def _as_taken(host: Host) -> tuple[str, ...]:
    """What the runtime takes the GPUs for: HSA_OVERRIDE_GFX_VERSION is for all of them."""
    override = host.hip.override
    return tuple(override for _ in host.hip.targets) if override else host.hip.targets


def _targets(host: Host, terms: Terms, reasons: list[Reason]) -> tuple[str, ...] | Obstacle:
    wanted = terms.architectures or tuple(sorted(set(_as_taken(host))))
    if host.hip.override and not terms.architectures and not terms.portable:
        overridden = _overridden(host, reasons)
        if overridden:
            return overridden
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


def _overridden(host: Host, reasons: list[Reason]) -> Obstacle | None:
    """The runtime refuses code for the real GPUs then (ggml-org/llama.cpp#4762, #14734)."""
    hip = host.hip
    override, real = hip.override, tuple(sorted(set(hip.targets)))
    said = f"HSA_OVERRIDE_GFX_VERSION makes ROCm take {join(real)} for {override}"
    # Whatever the runtime is told: another chip may lack instructions or registers that the code uses.
    others = [name for name in real if not runs_code_of(name, override)]
    if others:
        runs = "is not known to run" if len(others) == 1 else "are not known to run"
        return Obstacle(
            reason=f"{said}, whose code {join(others)} {runs}", fix="unset HSA_OVERRIDE_GFX_VERSION"
        )
    if hip.rocblas and override not in hip.rocblas:
        return Obstacle(
            reason=f"{said}, and the installed rocBLAS has no kernels for {override}",
            fix="unset HSA_OVERRIDE_GFX_VERSION",
        )
    text = f"{said}: it is compiled for {override}, and runs only while that is set"
    if not hip.rocblas or set(real) <= set(hip.rocblas):
        text += f"; to compile for {join(real)} itself, unset it"
    reasons.append(Reason(rule="hsa-override", text=text))
    return None


def _not_covered(targets: tuple[str, ...], covered: set[str]) -> Obstacle:
    reason = f"the installed rocBLAS has no kernels for {join(targets)}, only for {join(sorted(covered))}"
    if "gfx1030" in covered and not _LIKE_GFX1030.isdisjoint(targets):
        return Obstacle(
            reason=f"{reason}; the GPU runs gfx1030's code if HSA_OVERRIDE_GFX_VERSION=10.3.0 is set, now "
            "and whenever the engine runs; a newer ROCm may cover it",
            fix="HSA_OVERRIDE_GFX_VERSION=10.3.0 floatllm-build install --architectures gfx1030",
        )
    return Obstacle(reason=reason, fix="install a newer ROCm whose rocBLAS covers this GPU")
