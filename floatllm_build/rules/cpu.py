"""How the CPU backend is told what this CPU can do, where ggml must not find out by itself."""

from __future__ import annotations

from floatllm_build.values import Host, Reason

# Linux' word for what ggml has an option for; without GGML_NATIVE it takes all of them for granted, and
# none where SOURCE_DATE_EPOCH is set.
_X86_OPTIONS = (
    ("sse4_2", "GGML_SSE42"),
    ("avx", "GGML_AVX"),
    ("avx2", "GGML_AVX2"),
    ("bmi2", "GGML_BMI2"),
    ("fma", "GGML_FMA"),
    ("f16c", "GGML_F16C"),
)


def cpu_defines(host: Host) -> tuple[tuple[str, ...], tuple[Reason, ...]]:
    """Defines of a build for this machine, and why.

    There are none but on Android: elsewhere the presets' GGML_NATIVE=ON is right, and because they say so
    themselves, ggml's default (off where SOURCE_DATE_EPOCH is set, and AVX2 and FMA with it) is never asked.

    On Android -mcpu=native derives features from the CPU's name, and the kernel may have some of them off.
    """
    if host.os.name != "Android":
        return (), ()
    if host.cpu.arch == "x86_64":
        has = set(host.cpu.features)
        options = (f"{option}={'ON' if flag in has else 'OFF'}" for flag, option in _X86_OPTIONS)
        text = "what every core of this device can do is named one by one"
        return ("GGML_NATIVE=OFF", *options), (Reason(rule="x86-features", text=text),)
    if host.cpu.arch != "arm64":
        return ("GGML_NATIVE=OFF",), ()
    arch = arm_arch(host.cpu.features)
    text = f"{arch}: what every core of this phone can do"
    return ("GGML_NATIVE=OFF", f"GGML_CPU_ARM_ARCH={arch}"), (Reason(rule="arm-arch", text=text),)


def arm_arch(features: tuple[str, ...]) -> str:
    """-march for what Linux reports: asimddp is dotprod, asimdhp is fp16.

    SVE is never part of it: some phones list it where it cannot be used.
    """
    has = set(features)
    if "asimddp" not in has:
        return "armv8-a"
    extensions = [name for flag, name in (("asimdhp", "fp16"), ("i8mm", "i8mm")) if flag in has]
    return "+".join(("armv8.2-a", "dotprod", *extensions))
