"""Machines that the package index has wheels of cmake and ninja for.

As the index lists those of cmake 4.4.4 and ninja 1.13.2, December 2026. Where the two differ, what both have.
"""

from __future__ import annotations

from collections.abc import Mapping

# Machine -> oldest glibc.
GLIBC: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("x86_64", "i686", "aarch64", "ppc64le", "s390x"), (2, 17)),
    **dict.fromkeys(("armv7l", "riscv64"), (2, 31)),
}
MUSL_OLDEST = (1, 2)
MUSL = ("x86_64", "i686", "aarch64", "armv7l", "ppc64le", "riscv64", "s390x")
# What sysconfig.get_platform() begins with; a Python of MSYS2 says mingw and takes no wheels of these.
WINDOWS = ("win32", "win-amd64", "win-arm64")
# Foreign programs find no loader on these.
NOT_ON = ("nixos", "guix")
