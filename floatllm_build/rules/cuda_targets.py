"""GPU x CUDA toolkit: what to compile for."""

from __future__ import annotations

from floatllm_build.rules.cuda_fixes import toolkit_fix
from floatllm_build.rules.cuda_index import INDEX_KIT
from floatllm_build.rules.fit import Obstacle, Terms, join
from floatllm_build.tables.cuda import architectures_of
from floatllm_build.values import CudaDevice, CudaToolkit, Host, Reason
from floatllm_build.versions import version_tuple

# The oldest in ggml's own list (read).
OLDEST_CAPABILITY = 50
# Code for these chips runs on nothing else, and code for others does not run on them.
_TEGRA = {"53", "62", "72", "87", "101", "110"}


def kit_name(kit: CudaToolkit) -> str:
    if kit is INDEX_KIT:
        return f"CUDA {kit.version} of the package index"
    return f"CUDA {kit.version} ({kit.nvcc})" if kit.version else kit.nvcc


def known_architectures(kit: CudaToolkit) -> tuple[str, ...]:
    """What the toolkit says it can target, else what its version is known for."""
    if kit.architectures:
        return kit.architectures
    return architectures_of(version_tuple(kit.version))


def target_for(device: CudaDevice, known: tuple[str, ...]) -> str:
    """What to compile for so that the device runs it, empty where the toolkit has nothing for it.

    Code for a capability runs on all later ones of the same major version: 86 runs on an 89. Not so for
    Tegra chips, nor for 12x, which ggml compiles as 12xa.
    """
    capability = device.capability
    if number(capability) < OLDEST_CAPABILITY:
        return ""
    if capability in known:
        return capability
    if capability in _TEGRA or device.integrated or capability.startswith("12"):
        return ""
    family = (
        name
        for name in known
        if name not in _TEGRA
        and name.isdecimal()
        and name[:-1] == capability[:-1]
        and number(name) <= number(capability)
    )
    return max(family, key=number, default="")


def runs(device: CudaDevice, architectures: tuple[str, ...]) -> bool:
    """Whether code for these architectures, 90a included, runs on the device."""
    own_only = {name.removesuffix("a") for name in architectures}
    return device.capability in own_only or bool(target_for(device, architectures))


def number(capability: str) -> int:
    return (version_tuple(capability) or (0,))[0]


def as_asked(host: Host, terms: Terms, kit: CudaToolkit, reasons: list[Reason]) -> tuple[str, ...] | Obstacle:
    known = known_architectures(kit)
    unknown = [name for name in terms.architectures if known and name.rstrip("a") not in known]
    if unknown:
        reason = f"it cannot compile for {join(unknown)}, only for {join(known)}"
        return Obstacle(reason=reason, fix=toolkit_fix(host, terms.architectures))
    text = f"compiled for {join(terms.architectures)}, as was asked, instead of what was found"
    reasons.append(Reason(rule="architectures", text=text))
    return terms.architectures


def for_devices(host: Host, kit: CudaToolkit, reasons: list[Reason]) -> tuple[str, ...] | Obstacle:
    """What to compile for so that every device runs it that can."""
    known = known_architectures(kit)
    targets = {device: target_for(device, known) for device in host.cuda.devices}
    if not any(targets.values()):
        found = join([f"{device.name} ({device.capability})" for device in targets])
        can = f", only for {join(known)}" if known else ""
        return Obstacle(reason=f"it cannot compile for {found}{can}", fix=toolkit_fix(host))
    for device, target in targets.items():
        who = f"{device.name} ({device.capability})"
        if not target:
            old = number(device.capability) < OLDEST_CAPABILITY
            why = "ggml is written for 5.0 and newer" if old else f"{kit_name(kit)} cannot compile for it"
            text = f"{who} is left out: {why}"
            reasons.append(Reason(rule="cuda-device", text=text))
        elif target != device.capability:
            text = f"{kit_name(kit)} does not know {who}, which runs code for {target}"
            reasons.append(Reason(rule="cuda-device", text=text))
    return tuple(sorted(set(filter(None, targets.values())), key=lambda name: (number(name), name)))
