"""What files and commands say about the processor, and what we make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from machines import PC
from recorded_answers import BOARD, CPUS, PHONE, done, machine

from floatllm_build.host.arm import arm_features
from floatllm_build.host.cpu import parse_cpu_list, probe_cpu
from floatllm_build.host.cpuinfo import parse_cpuinfo, parse_isa
from floatllm_build.host.findings import Findings
from floatllm_build.host.power import power_features
from floatllm_build.values import CpuFacts, OsFacts


def cpu_of(os_facts: OsFacts, **kinds: dict[str, Any]) -> CpuFacts:
    return probe_cpu(machine(**kinds), os_facts, Findings())


X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) N100\nflags\t\t: fpu avx avx2\n"
A53_A73 = (
    "processor\t: 0\nFeatures\t: fp asimd crc32\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n\n"
    "processor\t: 4\nFeatures\t: fp asimd crc32 asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd09\n\n"
)


@pytest.mark.parametrize(
    ("text", "vendor", "name", "features"),
    [
        (X86, "GenuineIntel", "Intel(R) N100", ("avx", "avx2", "fpu")),
        (A53_A73, "ARM", "Cortex-A53 + Cortex-A73", ("asimd", "crc32", "fp")),
        (
            A53_A73 + "Hardware\t: Qualcomm Technologies, Inc SDM660\n",
            "ARM",
            "Qualcomm Technologies, Inc SDM660 (Cortex-A53 + Cortex-A73)",
            ("asimd", "crc32", "fp"),
        ),
        ("CPU implementer : 0x99\nCPU part : 0x1\nFeatures : fp\n", "", "", ("fp",)),
        ("CPU implementer : 0x51\nCPU part : 0x001\n", "Qualcomm", "Oryon", ()),
        ("CPU implementer : 0xc0\nCPU part : 0xac3\n", "Ampere", "Ampere-1", ()),
        ("", "", "", ()),
    ],
)
def test_cpuinfo(text: str, vendor: str, name: str, features: tuple[str, ...]) -> None:
    found = parse_cpuinfo(text)
    assert (found.vendor, found.name, found.features) == (vendor, name, features)


def test_only_the_lines_that_count_are_read_from_cpuinfo() -> None:
    text = X86 + "Serial\t\t: 10000000abcdef01\nbugs\t\t: avx512f\n"
    facts = cpu_of(PC.os, files={"/proc/cpuinfo": text}, native={"cpu_count": 4})
    assert (facts.name, facts.features) == ("Intel(R) N100", ("avx", "avx2", "fpu"))


# Bits by the kernel's documentation of arm64's hwcaps: ASIMDDP is bit 20 of the first word, and so on.
@pytest.mark.parametrize(
    ("first", "second", "features"),
    [
        (1 << 1, 0, ("asimd",)),
        (1 << 10, 0, ("asimdhp",)),
        (1 << 20, 0, ("asimddp",)),
        (1 << 22, 0, ("sve",)),
        (1 << 23, 0, ("asimdfhm",)),
        (1 << 31, 0, ("pacg",)),
        (0, 1 << 1, ("sve2",)),
        (0, 1 << 9, ("svei8mm",)),
        (0, 1 << 13, ("i8mm",)),
        (0, 1 << 14, ("bf16",)),
        (0, 1 << 23, ("sme",)),
        (0, 1 << 37, ("sme2",)),
        (1 << 63, 1 << 63, ()),
    ],
)
def test_hardware_capabilities(first: int, second: int, features: tuple[str, ...]) -> None:
    assert arm_features(first, second) == features


def test_the_kernels_word_counts_more_than_cpuinfo_on_arm() -> None:
    caps = {"hwcap": 0b11 | 1 << 20, "hwcap2": 1 << 13}
    found = cpu_of(PHONE, files={"/proc/cpuinfo": A53_A73}, native={"hwcaps": caps, "cpu_count": 8})
    assert found.features == ("asimd", "asimddp", "fp", "i8mm")


@pytest.mark.parametrize("caps", [None, [], {"hwcap": 0}, {"hwcap": "3"}, {"hwcap": -1}, {"hwcap": 1 << 70}])
def test_without_it_counts_what_all_cores_share(caps: object) -> None:
    findings = Findings()
    system = machine(files={"/proc/cpuinfo": A53_A73}, native={"hwcaps": caps, "cpu_count": 8})
    assert probe_cpu(system, PHONE, findings).features == ("asimd", "crc32", "fp")
    assert "getauxval" in {note.source for note in findings.notes}


def test_to_a_32_bit_program_the_bits_mean_something_else() -> None:
    system = machine(files={"/proc/cpuinfo": A53_A73}, native={"hwcaps": {"hwcap": 1 << 22, "hwcap2": 0}})
    assert "sve" not in probe_cpu(system, replace(PHONE, bits=32), Findings()).features


def test_a_board_has_a_name() -> None:
    name = "/sys/firmware/devicetree/base/model"
    cores = "CPU implementer : 0x41\nCPU part : 0xd42\n"
    files = {name: "NVIDIA Jetson AGX Orin Developer Kit\0", "/proc/cpuinfo": cores}
    assert cpu_of(BOARD, files=files).name == "NVIDIA Jetson AGX Orin Developer Kit (Cortex-A78AE)"
    pi = "Raspberry Pi 4 Model B Rev 1.4"
    both = {name: f"{pi}\0", "/proc/cpuinfo": f"CPU implementer : 0x41\nCPU part : 0xd08\nModel : {pi}\n"}
    assert cpu_of(BOARD, files=both).name == f"{pi} (Cortex-A72)"


def _frequencies(*values: int) -> dict[str, Any]:
    folder = "/sys/devices/system/cpu"
    return {f"{folder}/cpu{i}/cpufreq/cpuinfo_max_freq": f"{value}\n" for i, value in enumerate(values)}


@pytest.mark.parametrize(
    ("files", "big"),
    [
        ({}, 0),
        (_frequencies(1800000, 1800000, 2200000, 2200000), 2),
        (_frequencies(1785600, 1785600, 2496000, 2995200), 2),
        (_frequencies(1800000, 1800000), 0),
        # One small core with a large core's clock: the kernel's measure decides.
        (
            {
                **_frequencies(2000000, 2000000),
                f"{CPUS}/cpu0/cpu_capacity": "400\n",
                f"{CPUS}/cpu1/cpu_capacity": "1024\n",
            },
            1,
        ),
    ],
)
def test_big_cores(files: dict[str, Any], big: int) -> None:
    assert cpu_of(PHONE, files=files, native={"cpu_count": 4}).big_cores == big


def test_clocks_that_are_denied_are_one_note() -> None:
    files = {f"{CPUS}/cpu{i}/cpufreq/cpuinfo_max_freq": {"errno": "EACCES"} for i in range(8)}
    findings = Findings()
    assert probe_cpu(machine(files=files, native={"cpu_count": 8}), PHONE, findings).big_cores == 0
    assert [note.source for note in findings.notes if "freq" in note.source] == [
        f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq"
    ]


def test_a_hybrid_pc_counts_cores_and_not_threads() -> None:
    files = {"/sys/devices/cpu_core/cpus": "0-3\n", "/sys/devices/cpu_atom/cpus": "4-7\n"}
    files |= {f"{CPUS}/cpu{i}/topology/thread_siblings_list": f"{i & ~1}-{i | 1}\n" for i in range(4)}
    assert cpu_of(PC.os, files=files, native={"cpu_count": 8}).big_cores == 2


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8\n", (0, 1, 2, 3, 8)), ("", ()), ("x", ()), ("1022-9999", (1022, 1023))]
)
def test_cpu_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


def test_a_mac() -> None:
    commands = {
        "sysctl -n machdep.cpu.brand_string": done("Apple M4\n"),
        "sysctl hw.optional": done("hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\n"),
        "sysctl -n hw.perflevel0.physicalcpu": done("4\n"),
        "sysctl -n hw.perflevel1.physicalcpu": done("6\n"),
    }
    facts = cpu_of(
        replace(PC.os, name="Darwin", machine="arm64"), commands=commands, native={"cpu_count": 10}
    )
    assert (facts.arch, facts.vendor, facts.name) == ("arm64", "Apple", "Apple M4")
    assert (facts.features, facts.big_cores) == (("FEAT_DotProd",), 4)


def test_windows_names_the_processor_in_a_variable() -> None:
    environ = {"PROCESSOR_IDENTIFIER": "Intel64 Family 6 Model 154 Stepping 3, GenuineIntel"}
    facts = cpu_of(replace(PC.os, name="Windows", machine="AMD64"), environ=environ)
    assert (facts.arch, facts.vendor) == ("x86_64", "GenuineIntel")
    assert facts.name == "Intel64 Family 6 Model 154 Stepping 3"


# ---- other processors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isa", "features"),
    [
        ("rv64imafdc_zicsr_zfh", {"i", "m", "a", "f", "d", "c", "zicsr", "zfh"}),
        ("rv64gcv_zvfh", {"g", "i", "m", "a", "f", "d", "c", "v", "zvfh"}),
        ("rv64imafdcvsu", {"i", "m", "a", "f", "d", "c", "v", "s", "u"}),
        ("rv64", set()),
        ("?_", set()),
    ],
)
def test_extensions_of_risc_v(isa: str, features: set[str]) -> None:
    assert parse_isa(isa) == features


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("mvendorid : 0x5b7\nmarchid : 0x0\n", False),
        ("mvendorid : 0x5b7\nmarchid : 0x8d143000\nuarch : thead,c920\n", True),
        ("mvendorid : 0x710\nmarchid : 0x0\n", True),
        ("uarch : thead,c906\n", False),
        ("model name : T-HEAD C910\n", False),
        ("uarch : spacemit,x60\n", True),
        ("mvendorid : 0x5b7\nmarchid : what\n", True),
    ],
)
def test_vectors_of_a_draft_are_none(text: str, has: bool) -> None:
    assert ("v" in parse_cpuinfo(f"isa : rv64imafdcv\n{text}", "riscv64").features) == has


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("cpu\t\t: POWER9, altivec supported", "POWER9"),
        ("cpu\t\t: POWER8E (raw), altivec supported", "POWER8E"),
        ("cpu\t\t: POWER10 (architected), altivec supported", "POWER10"),
        ("Model Name\t\t: Loongson-3A5000", "Loongson-3A5000"),
        ("uarch\t\t: sifive,u74-mc", "sifive,u74-mc"),
        ("mvendorid\t: 0x489\nmarchid\t\t: 0x7", "0x489 0x7"),
        ("machine\t\t: 8561", "8561"),
    ],
)
def test_names_of_other_processors(line: str, name: str) -> None:
    assert parse_cpuinfo(f"{line}\n").name == name


def test_features_of_power() -> None:
    assert power_features(0x10000080, 0x80820000) == ("altivec", "arch_2_07", "arch_3_00", "mma", "vsx")
    assert power_features(0, 0) == ()


def test_two_generations_of_power_have_two_build_keys() -> None:
    nine, ten = (
        cpu_of(
            replace(PC.os, machine="ppc64le"),
            files={"/proc/cpuinfo": f"cpu\t\t: POWER{generation}, altivec supported\n"},
            native={"hwcaps": {"hwcap": 0x10000080, "hwcap2": caps}, "cpu_count": 8},
        )
        for generation, caps in ((9, 0x00800000), (10, 0x00860000))
    )
    assert (nine.name, ten.name) == ("POWER9", "POWER10")
    assert nine.features != ten.features


ARM = "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\nFeatures\t: fp asimd\n"


@pytest.mark.parametrize(
    ("machine_name", "text", "emulator", "below"),
    [
        ("x86_64", X86, "", ""),
        ("aarch64", ARM, "", ""),
        ("armv7l", ARM, "", ""),
        ("x86_64", ARM, "QEMU", "arm64"),
        ("aarch64", X86, "QEMU", "x86_64"),
        ("riscv64", X86, "QEMU", "x86_64"),
        (
            "x86_64",
            "vendor_id : VirtualApple\nmodel name : VirtualApple @ 2.50GHz\nflags : sse\n",
            "Rosetta",
            "arm64",
        ),
        ("x86_64", "model name : Box64 on Cortex-A76 @2400 MHz\nflags : sse\n", "box64", "arm64"),
        ("x86_64", "model name : Box64 on Loongson-3A6000\nflags : sse\n", "box64", "loongarch64"),
        ("x86_64", "model name : FEX-2503 Cortex-X4\nflags : sse\n", "FEX", "arm64"),
        ("x86_64", "model name : Neoverse-N1\nflags : sse\n", "an emulator", "arm64"),
        ("x86_64", "model name : QEMU Virtual CPU version 2.5+\nflags : sse\n", "", ""),
        ("e2k", X86, "", ""),
        ("x86_64", "", "", ""),
    ],
)
def test_emulated_programs(machine_name: str, text: str, emulator: str, below: str) -> None:
    found = parse_cpuinfo(text, machine_name)
    assert (found.emulator, found.emulated_on) == (emulator, below)


@pytest.mark.parametrize(
    ("identifier", "machine_name", "platform", "emulator"),
    [
        ("ARMv8 (64-bit) Family 8 Model 1 Revision 201, Qualcomm", "AMD64", "win-amd64", "Windows"),
        ("ARMv8 (64-bit) Family 8 Model 1 Revision 201, Qualcomm", "ARM64", "win-amd64", "Windows"),
        ("ARMv8 (64-bit) Family 8 Model 1 Revision 201, Qualcomm", "ARM64", "win-arm64", ""),
        ("Intel64 Family 6 Model 154 Stepping 3, GenuineIntel", "AMD64", "win-amd64", ""),
    ],
)
def test_emulated_on_windows(identifier: str, machine_name: str, platform: str, emulator: str) -> None:
    facts = cpu_of(
        replace(PC.os, name="Windows", machine=machine_name),
        environ={"PROCESSOR_IDENTIFIER": identifier},
        native={"identity": {"platform": platform, "machine": machine_name}},
    )
    assert facts.emulator == emulator


@pytest.mark.parametrize(
    ("machine_name", "text", "bits"),
    [
        ("armv7l", "CPU implementer : 0x41\nCPU architecture: 7\nCPU part : 0xd03\n", 64),
        ("armv7l", "CPU implementer : 0x41\nCPU architecture: 7\nCPU part : 0xc07\n", 32),
        ("armv7l", "CPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xfff\n", 64),
        # A Cortex-A32 is of the eighth architecture and has 32 bits.
        ("armv7l", "CPU implementer : 0x41\nCPU architecture: 7\nCPU part : 0xd01\n", 32),
        ("i686", "flags : fpu lm sse2\n", 64),
        ("i686", "flags : fpu sse2\n", 32),
        ("armv7l", "", 0),
        ("x86_64", "", 64),
    ],
)
def test_bits_of_the_processor_whatever_the_system_has(machine_name: str, text: str, bits: int) -> None:
    facts = cpu_of(replace(PC.os, machine=machine_name, bits=32), files={"/proc/cpuinfo": text})
    assert facts.bits == bits
