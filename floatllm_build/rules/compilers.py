"""Compilers that are there and cannot build the engine: too old, or for another kind of programs."""

from __future__ import annotations

import re

from floatllm_build.rules.packages import as_root, install_command
from floatllm_build.rules.systems import debian_of, ids_of, numbers_of, rhel_of, ubuntu_of
from floatllm_build.tables.compilers import CONDA, LIBSTDCXX_MINIMUM, MINIMUMS, NEWER, Newer
from floatllm_build.values import Compiler, Host, Lack
from floatllm_build.versions import version_tuple

_WHAT = "a C and C++ compiler"
_32_BIT = re.compile(r"x86|arm|(?:i[3-6]86|arm|armv[4-7]\w*)-.*", re.IGNORECASE)


def compiler_lack(host: Host) -> Lack | None:
    """Why the compilers that were found cannot build the engine, and what to do; None if they can."""
    found = [one for one in (host.toolchain.cxx, host.toolchain.c) if one]
    if wrong := next((one for one in found if _32_BIT.fullmatch(one.target)), None):
        return _for_32_bits(host, wrong)
    for one in found:
        minimum = MINIMUMS.get(one.kind)
        version = version_tuple(one.version)
        if minimum and () < version < minimum.version:
            why = f"`{one.command}` is {_NAMES[one.kind]} {one.version}, and {minimum.why}"
            return Lack(what=_WHAT, why=why, fix=_newer(host))
    cxx = host.toolchain.cxx
    if cxx and cxx.kind == "clang" and 0 < _libstdcxx_of_clang(host, cxx) < LIBSTDCXX_MINIMUM:
        why = f"`{cxx.command}` takes the C++ library of GCC {_libstdcxx_of_clang(host, cxx)}, and "
        return Lack(what=_WHAT, why=why + MINIMUMS["gcc"].why, fix=_newer(host))
    return None


_NAMES = {"gcc": "GCC", "clang": "clang", "appleclang": "Apple's clang", "msvc": "MSVC"}


def _for_32_bits(host: Host, compiler: Compiler) -> Lack:
    why = f"`{compiler.command}` compiles for {compiler.target}, which is 32-bit, and this Python is 64-bit"
    if compiler.kind == "msvc":
        studio = f" of {host.toolchain.msvc[0].path}" if host.toolchain.msvc else ""
        return Lack(what=_WHAT, why=why, fix=f"run this from the `x64 Native Tools Command Prompt`{studio}")
    fix = "set CC and CXX to compilers for 64-bit programs"
    return Lack(what=_WHAT, why=why, fix=fix)


def _libstdcxx_of_clang(host: Host, cxx: Compiler) -> int:
    """Major version of the GCC whose C++ library this clang takes; 0 if nothing is known, or it is libc++."""
    if host.os.name != "Linux" or "libc++" in cxx.command:
        return 0
    if host.toolchain.libstdcxx:
        return host.toolchain.libstdcxx
    # Red Hat's own clang takes a toolset's.
    known = _of_system(host)
    others = (version_tuple(one.version)[:1] for one in host.toolchain.others if one.kind == "gcc")
    return (
        max([known.own, *(number for numbers in others for number in numbers)])
        if known and known.family != "rhel"
        else 0
    )


def _newer(host: Host) -> str:
    """What brings a compiler that is new enough, or names one that is there already."""
    if host.os.name == "Darwin":
        return "install newer command line tools (softwareupdate --list), which may need a newer macOS"
    if host.os.name == "Windows":
        return install_command(host.os, "c++")
    there = next((one for one in host.toolchain.others if _is_new_enough(one)), None)
    if there:
        c = re.sub(r"g\+\+(?=[^/]*$)", "gcc", there.command)
        return f"set CC={c} and CXX={there.command}, which are here"
    known = _of_system(host)
    if known is None:
        return f"{install_command(host.os, 'c++')} in a newer release of this system, or {CONDA}"
    if not known.command:
        return f"this system has no package of a newer one: {CONDA}, or use a newer release of the system"
    return f"{as_root(host.os, known.command)}, then set CC={known.cc} and CXX={known.cxx}; or {CONDA}"


def _is_new_enough(compiler: Compiler) -> bool:
    # The library that another clang takes is the same as before.
    return compiler.kind == "gcc" and version_tuple(compiler.version) >= MINIMUMS["gcc"].version


def _of_system(host: Host) -> Newer | None:
    ids = ids_of(host.os)
    major = next(iter(numbers_of(host.os)), 0)
    releases = {
        "ubuntu": ubuntu_of(host.os)[0],
        "debian": debian_of(host.os),
        "rhel": rhel_of(host.os),
        "amazon": major if ids[:1] == ("amzn",) else 0,
        "suse": major if {"suse", "opensuse", "opensuse-leap", "sles", "sled"} & set(ids) else 0,
    }
    fitting = (
        row
        for row in NEWER
        if row.releases[0] <= releases[row.family] <= row.releases[1] and (not row.ids or ids[0] in row.ids)
    )
    return next(fitting, None)
