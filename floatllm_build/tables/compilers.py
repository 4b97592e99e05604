"""The oldest compilers that build the engine, and what brings a newer one to systems whose own is older.

The engine is C++17, and ggml and it use std::filesystem, which is what the minimums are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Minimum:
    version: tuple[int, ...]
    why: str


# GCC: std::filesystem is in libstdc++.so from 9 on, in 8 it needs -lstdc++fs (GCC 9's release notes, and
# ggml-org/llama.cpp#12092); 7 and older have it as experimental, and 4.8 knows no C++17 (gcc.gnu.org, C++17
# status). Clang, Apple's clang: libc++'s status pages, 9 and Xcode 11. MSVC: Visual Studio 2017 15.7. Read in
# November 2026.
MINIMUMS: Mapping[str, Minimum] = {
    "gcc": Minimum(version=(9,), why="std::filesystem is part of the C++ library from GCC 9 on"),
    "clang": Minimum(version=(9,), why="std::filesystem and all of C++17 are there from clang 9 on"),
    "appleclang": Minimum(version=(11,), why="std::filesystem is there from Xcode 11 on"),
    "msvc": Minimum(version=(19, 14), why="std::filesystem is there from Visual Studio 2017 15.7 on"),
}
LIBSTDCXX_MINIMUM = 9
"""Of the GCC whose library a clang uses."""


@dataclass(frozen=True, kw_only=True)
class Newer:
    """What brings a newer GCC to a system."""

    family: str
    """ubuntu, debian, rhel, amazon or suse."""
    ids: tuple[str, ...] = ()
    """The row is for these systems of the family alone (ID of os-release); empty: for all of them."""
    releases: tuple[int, int]
    """First and last major release that this is for."""
    own: int
    """Major version of the system's own GCC."""
    command: str
    """With sudo; empty if the system has no package of one."""
    cc: str = ""
    cxx: str = ""


_DEVTOOLSET = "sudo yum install devtoolset-11-gcc-c++"
_DEVTOOLSET_CC = "/opt/rh/devtoolset-11/root/usr/bin/gcc"
_DEVTOOLSET_CXX = "/opt/rh/devtoolset-11/root/usr/bin/g++"
# CentOS 7's mirrors were switched off on 2024-06-30, and all that was on them lies in the vault
# (blog.centos.org, "CentOS Linux 7 End of Life"). The package with the collections' repositories brings new
# files that name the mirrors again.
_TO_THE_VAULT = (
    r"sudo sed -i -e 's/^mirrorlist/#mirrorlist/' -e 's|^#* *baseurl=http://mirror|baseurl=http://vault|' "
    "/etc/yum.repos.d/CentOS-*.repo"
)
# Own compilers and packages as in the distributions' package pages; Software Collections and gcc-toolset as
# in Red Hat's documentation, Oracle's packages in Oracle's (Software Collection Library for Oracle Linux);
# Amazon Linux 2's from its FAQ; the PPA's from its page. Read in November 2026. The first that fits counts.
NEWER: tuple[Newer, ...] = (
    Newer(
        family="rhel",
        ids=("centos",),
        releases=(7, 7),
        own=4,
        command=f"{_TO_THE_VAULT} && sudo yum install centos-release-scl && {_TO_THE_VAULT} && {_DEVTOOLSET} "
        "(the mirrors of CentOS 7 are gone, and its packages are in the vault)",
        cc=_DEVTOOLSET_CC,
        cxx=_DEVTOOLSET_CXX,
    ),
    Newer(
        family="rhel",
        ids=("ol",),
        releases=(7, 7),
        own=4,
        command=f"sudo yum install oracle-softwarecollection-release-el7 && {_DEVTOOLSET}",
        cc=_DEVTOOLSET_CC,
        cxx=_DEVTOOLSET_CXX,
    ),
    Newer(
        family="rhel",
        ids=("rhel",),
        releases=(7, 7),
        own=4,
        command="sudo subscription-manager repos --enable rhel-server-rhscl-7-rpms "
        f"--enable rhel-7-server-optional-rpms && {_DEVTOOLSET}",
        cc=_DEVTOOLSET_CC,
        cxx=_DEVTOOLSET_CXX,
    ),
    # Devtoolset 11 was not made for 6, and rebuilds have no package of the collections.
    Newer(family="rhel", releases=(5, 7), own=4, command=""),
    Newer(
        family="rhel",
        releases=(8, 8),
        own=8,
        command="sudo dnf install gcc-toolset-13-gcc-c++",
        cc="/opt/rh/gcc-toolset-13/root/usr/bin/gcc",
        cxx="/opt/rh/gcc-toolset-13/root/usr/bin/g++",
    ),
    Newer(
        family="amazon",
        releases=(2, 2),
        own=7,
        command="sudo yum install gcc10 gcc10-c++",
        cc="gcc10-gcc",
        cxx="gcc10-g++",
    ),
    Newer(
        family="ubuntu",
        releases=(18, 19),
        own=7,
        command="sudo add-apt-repository ppa:ubuntu-toolchain-r/test && sudo apt install g++-11",
        cc="gcc-11",
        cxx="g++-11",
    ),
    # The PPA's newest for it.
    Newer(
        family="ubuntu",
        releases=(16, 17),
        own=5,
        command="sudo add-apt-repository ppa:ubuntu-toolchain-r/test && sudo apt install g++-9",
        cc="gcc-9",
        cxx="g++-9",
    ),
    Newer(
        family="suse",
        releases=(15, 15),
        own=7,
        command="sudo zypper install gcc13-c++",
        cc="gcc-13",
        cxx="g++-13",
    ),
    Newer(family="suse", releases=(12, 12), own=4, command=""),
    Newer(family="debian", releases=(8, 8), own=4, command=""),
    Newer(family="debian", releases=(9, 9), own=6, command=""),
    Newer(family="debian", releases=(10, 10), own=8, command=""),
)
CONDA = "conda install -c conda-forge gxx, in the environment that is active then (conda sets CC and CXX)"
"""Anywhere, without an administrator."""
