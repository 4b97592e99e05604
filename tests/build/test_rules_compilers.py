"""Compilers that are there and will not do, and what brings better ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import machines
import pytest
from machines import CLANG, GCC, PC

from floatllm_build.preflight import find_lacks
from floatllm_build.rules.cpu import cpu_defines
from floatllm_build.rules.tool_wheels import why_no_tool_wheel
from floatllm_build.values import Compiler, Host, Lack, Note

APPLE = Compiler(command="c++", kind="appleclang", version="16.0.0")
MSVC = Compiler(command="cl", kind="msvc", version="19.41.34120", target="x64")


def with_cxx(
    cxx: Compiler, *, others: tuple[Compiler, ...] = (), libstdcxx: int = 0, **os_facts: Any
) -> Host:
    chain = replace(PC.toolchain, c=replace(cxx, command="cc"), cxx=cxx, others=others, libstdcxx=libstdcxx)
    return machines.pc(os=replace(PC.os, **os_facts), toolchain=chain)


def lack_of(host: Host) -> Lack | None:
    lacks = [lack for lack in find_lacks(host) if "compiler" in lack.what]
    return lacks[0] if lacks else None


def gcc(version: str) -> Compiler:
    return replace(GCC, version=version)


@pytest.mark.parametrize(
    "host",
    [
        with_cxx(gcc("9.1.0")),
        with_cxx(gcc("16.0.1")),
        with_cxx(replace(CLANG, version="9.0.1")),
        with_cxx(replace(CLANG, version="14.0.6"), libstdcxx=12),
        with_cxx(replace(GCC, kind="unknown", version="")),
        with_cxx(replace(APPLE, version="11.0.0"), name="Darwin"),
        with_cxx(replace(MSVC, version="19.14.26428"), name="Windows"),
        # Its library is its own.
        with_cxx(replace(CLANG, command="clang++ -stdlib=libc++"), libstdcxx=7),
        # Red Hat's clang takes a toolset's library, wherever that lies.
        with_cxx(replace(CLANG, version="17.0.6"), version="CentOS Linux 8"),
    ],
)
def test_these_build_the_engine(host: Host) -> None:
    assert lack_of(host) is None


@pytest.mark.parametrize(
    ("host", "why", "fix"),
    [
        (with_cxx(gcc("8.5.0"), version="Rocky Linux 8.10"), "GCC 8.5.0", "gcc-toolset-13"),
        (
            with_cxx(gcc("4.8.5"), version="CentOS Linux 7 (Core)"),
            "GCC 4.8.5",
            "sudo yum install centos-release-scl",
        ),
        (with_cxx(gcc("8.3.0"), version="Debian GNU/Linux 10 (buster)"), "GCC 8.3.0", "conda-forge gxx"),
        (with_cxx(gcc("7.5.0"), version="Ubuntu 18.04.6 LTS"), "GCC 7.5.0", "ppa:ubuntu-toolchain-r/test"),
        (with_cxx(gcc("7.5.0"), version="openSUSE Leap 15.5"), "GCC 7.5.0", "sudo zypper install gcc13-c++"),
        (with_cxx(gcc("7.5.0"), version="Plan 9"), "GCC 7.5.0", "conda-forge gxx"),
        (
            with_cxx(gcc("8.5.0"), version="Rocky Linux 8.10", container="docker"),
            "GCC 8.5.0",
            "dnf install gcc-t",
        ),
        # A newer one is here already, and only has to be named.
        (
            with_cxx(gcc("7.5.0"), others=(replace(GCC, command="g++-11", version="11.4.0"),)),
            "GCC 7.5.0",
            "set CC=gcc-11 and CXX=g++-11",
        ),
        (
            with_cxx(
                gcc("8.5.0"),
                others=(replace(GCC, command="/opt/rh/gcc-toolset-14/root/usr/bin/g++", version="14.2.1"),),
            ),
            "GCC 8.5.0",
            "CC=/opt/rh/gcc-toolset-14/root/usr/bin/gcc and CXX=/opt/rh/gcc-toolset-14/root/usr/bin/g++",
        ),
        (with_cxx(replace(CLANG, version="6.0.0")), "clang 6.0.0", "newer release"),
        (with_cxx(CLANG, libstdcxx=8), "C++ library of GCC 8", "conda-forge"),
        (with_cxx(CLANG, version="Ubuntu 18.04.6 LTS"), "C++ library of GCC 7", "g++-11"),
        (
            with_cxx(replace(APPLE, version="10.0.1"), name="Darwin", version="macOS 10.14"),
            "10.0.1",
            "newer macOS",
        ),
        (with_cxx(replace(MSVC, version="19.00.24215.1"), name="Windows"), "19.00", "winget install"),
        (with_cxx(replace(MSVC, target="x86"), name="Windows"), "32-bit", "x64 Native Tools"),
        (
            with_cxx(replace(CLANG, target="i686-pc-windows-msvc"), name="Windows"),
            "32-bit",
            "64-bit programs",
        ),
    ],
)
def test_these_do_not_and_this_brings_better_ones(host: Host, why: str, fix: str) -> None:
    lack = lack_of(host)
    assert lack
    assert why in lack.why
    assert fix in lack.fix


@pytest.mark.parametrize(
    ("system", "has", "lacks"),
    [
        ("CentOS Linux 7 (Core)", "vault", "subscription-manager"),
        ("Oracle Linux Server 7.9", "oracle-softwarecollection-release-el7", "centos-release-scl"),
        (
            "Red Hat Enterprise Linux Server 7.9 (Maipo)",
            "--enable rhel-server-rhscl-7-rpms",
            "centos-release",
        ),
        ("Scientific Linux 7.9 (Nitrogen)", "conda-forge gxx", "yum install"),
        ("CentOS release 6.10 (Final)", "conda-forge gxx", "yum install"),
    ],
)
def test_each_red_hat_7_has_the_collections_by_another_way(system: str, has: str, lacks: str) -> None:
    lack = lack_of(with_cxx(gcc("4.8.5"), version=system))
    assert lack
    assert has in lack.fix
    assert lacks not in lack.fix


@pytest.mark.parametrize(
    ("system", "own"),
    [
        ("Debian GNU/Linux 8 (jessie)", 4),
        ("Debian GNU/Linux 9 (stretch)", 6),
        ("Debian GNU/Linux 10 (buster)", 8),
        ("Ubuntu 16.04.7 LTS", 5),
        ("Ubuntu 18.04.6 LTS", 7),
    ],
)
def test_the_library_that_clang_takes_is_that_of_the_systems_own_gcc(system: str, own: int) -> None:
    lack = lack_of(with_cxx(CLANG, version=system))
    assert lack
    assert f"the C++ library of GCC {own}, " in lack.why


def test_arm_is_not_taken_for_32_bits_where_64_are_in_its_name() -> None:
    for target in ("arm64-apple-darwin24.0.0", "aarch64-unknown-linux-gnu", "arm64ec"):
        assert lack_of(with_cxx(replace(CLANG, target=target))) is None
    assert lack_of(with_cxx(replace(CLANG, target="armv7-unknown-linux-gnueabihf")))


def test_a_compiler_that_does_not_answer_is_named_once() -> None:
    note = Note(source="cl", said="exit 1: no words")
    host = machines.pc(
        os=replace(PC.os, name="Windows"),
        toolchain=replace(PC.toolchain, c=None, cxx=None),
        notes=(note, note),
    )
    lack = lack_of(host)
    assert lack
    assert lack.fix.startswith("see why `cl` will not answer")
    assert lack.why == "cl: exit 1: no words"


# ---- what the processor or the compiler lacks of ggml's options ------------------------------------


def board(arch: str, *features: str, cxx: Compiler = GCC) -> Host:
    chain = replace(PC.toolchain, cxx=cxx)
    return machines.pc(cpu=replace(PC.cpu, arch=arch, features=features), toolchain=chain)


GCC_14 = gcc("14.2.0")


@pytest.mark.parametrize(
    ("host", "defines", "rules"),
    [
        (board("riscv64", "v", "zfh", "zvfh", cxx=GCC_14), (), set()),
        (board("riscv64", "zba", cxx=GCC_14), ("GGML_RVV=OFF", "GGML_RV_ZFH=OFF"), {"cpu-lacks"}),
        (board("riscv64", "v", cxx=GCC_14), ("GGML_RV_ZFH=OFF", "GGML_RV_ZVFH=OFF"), {"cpu-lacks"}),
        # Nothing is known of it: what it may lack is left out.
        (board("riscv64", cxx=GCC_14), ("GGML_RVV=OFF", "GGML_RV_ZFH=OFF"), {"cpu-lacks"}),
        (board("riscv64", "v", "zfh", "zvfh", cxx=gcc("13.3.0")), ("GGML_RVV=OFF",), {"old-compiler"}),
        (
            board("riscv64", "zfh", cxx=replace(CLANG, version="14.0.6")),
            ("GGML_RVV=OFF", "GGML_RV_ZICBOP=OFF", "GGML_RV_ZIHINTPAUSE=OFF"),
            {"cpu-lacks", "old-compiler"},
        ),
        (board("loongarch64", "lsx", "lasx", cxx=GCC_14), (), set()),
        (board("loongarch64", "lsx", cxx=GCC_14), ("GGML_LASX=OFF",), {"cpu-lacks"}),
        (board("loongarch64", "fpu", cxx=GCC_14), ("GGML_LASX=OFF", "GGML_LSX=OFF"), {"cpu-lacks"}),
        (
            board("loongarch64", "lsx", "lasx", cxx=gcc("13.2.0")),
            ("GGML_LASX=OFF", "GGML_LSX=OFF"),
            {"old-compiler"},
        ),
        (board("ppc64le", "vsx"), (), set()),
    ],
)
def test_options_that_ggml_has_on_whatever_the_processor_has(
    host: Host, defines: tuple[str, ...], rules: set[str]
) -> None:
    told, reasons = cpu_defines(host)
    assert told == defines
    assert {reason.rule for reason in reasons} == rules


# ---- wheels of cmake and ninja ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("os_facts", "why"),
    [
        ({}, ""),
        ({"machine": "riscv64", "libc": "glibc 2.31"}, ""),
        ({"machine": "riscv64", "libc": "musl 1.2.5"}, ""),
        ({"libc": ""}, ""),
        ({"name": "Darwin", "machine": "arm64", "libc": ""}, ""),
        ({"machine": "loongarch64"}, "loongarch64"),
        ({"machine": "loongarch64", "libc": "musl 1.2.5"}, "loongarch64 and musl"),
        ({"libc": "glibc 2.12"}, "needs glibc 2.17"),
        ({"libc": "musl 1.1.24"}, "needs musl 1.2"),
        ({"name": "FreeBSD", "libc": ""}, "FreeBSD"),
        ({"name": "Android", "libc": "bionic"}, "Android"),
        ({"id": "nixos", "version": "NixOS 25.05"}, "does not start on NixOS"),
    ],
)
def test_which_machines_have_wheels_of_cmake(os_facts: dict[str, Any], why: str) -> None:
    told = why_no_tool_wheel(machines.pc(os=replace(PC.os, **os_facts)))
    assert bool(told) == bool(why)
    assert why in told


def test_a_python_of_msys2_takes_no_wheels() -> None:
    python = replace(PC.python, platform="mingw_x86_64_ucrt")
    host = machines.pc(os=replace(PC.os, name="Windows"), python=python)
    assert "mingw" in why_no_tool_wheel(host)
    assert why_no_tool_wheel(replace(host, python=replace(python, platform="win-amd64"))) == ""
