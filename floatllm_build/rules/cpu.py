"""How the CPU backend is told what this CPU can do, where ggml must not find out by itself."""

from __future__ import annotations

from floatllm_build.rules.fit import join
from floatllm_build.tables.processors import OPTIONS, Option
from floatllm_build.values import Host, Reason
from floatllm_build.versions import version_tuple

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

    On most machines the presets' GGML_NATIVE=ON is right, and because they say so themselves, ggml's default
    (off if SOURCE_DATE_EPOCH is set, and AVX2 and FMA with it) is never asked. On RISC-V and LoongArch ggml
    does not look at it: its options there are on, whatever the processor has.

    On Android -mcpu=native derives features from the CPU's name, and the kernel may have some of them off.
    """
    if host.cpu.arch in OPTIONS:
        return _without_what_lacks(host, OPTIONS[host.cpu.arch])
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


def _without_what_lacks(
    host: Host, options: tuple[Option, ...]
) -> tuple[tuple[str, ...], tuple[Reason, ...]]:
    """Switches off what this processor cannot run, and what the compiler does not know."""
    has = set(host.cpu.features)
    lacking = [option for option in options if option.feature and option.feature not in has]
    unknown = [option for option in options if option not in lacking and not _is_known(host, option)]
    off = {option.name for option in (*lacking, *unknown)}
    lacking, unknown = ([one for one in part if one.below not in off] for part in (lacking, unknown))
    reasons = []
    if lacking:
        names = join([f"no {option.called}" if has else option.called for option in lacking])
        why = "has" if has else "does not say whether it has"
        text = (
            f"this processor {why} {names}, and ggml uses it by default: such an engine would crash at once"
        )
        reasons.append(Reason(rule="cpu-lacks", text=text))
    if unknown:
        names = join([option.called for option in unknown])
        compiler = host.toolchain.cxx
        which = f"{compiler.kind} {compiler.version}" if compiler else "the compiler"
        text = f"{which} is too old for {names}: the engine works without, and a newer one makes it faster"
        reasons.append(Reason(rule="old-compiler", text=text))
    defines = (f"{option.name}=OFF" for option in options if option in lacking or option in unknown)
    return tuple(defines), tuple(reasons)


def _is_known(host: Host, option: Option) -> bool:
    compiler = host.toolchain.cxx
    first = {"gcc": option.gcc, "clang": option.clang}.get(compiler.kind, ()) if compiler else ()
    version = version_tuple(compiler.version) if compiler else ()
    return not version or version >= first


def arm_arch(features: tuple[str, ...]) -> str:
    """-march for what Linux reports: asimddp is dotprod, asimdhp is fp16.

    SVE is never part of it: some phones list it where it cannot be used.
    """
    has = set(features)
    if "asimddp" not in has:
        return "armv8-a"
    extensions = [name for flag, name in (("asimdhp", "fp16"), ("i8mm", "i8mm")) if flag in has]
    return "+".join(("armv8.2-a", "dotprod", *extensions))
