"""Compilers that are not there, not whole, or that crash."""

from __future__ import annotations

from floatllm_build.remedies.sign import Remedy, Sign

_COMPILER = (
    "install one (Debian: apt install g++; Fedora: dnf install gcc-c++; Termux: pkg install clang; macOS: "
    "xcode-select --install; Windows: Visual Studio's Build Tools), or correct CC and CXX"
)

COMPILERS = (
    Remedy(
        "no-compiler",
        (
            Sign("COMPILER could be found", r"^No CMAKE_C(?:XX)?_COMPILER could be found"),
            Sign("Could not find compiler set in environment variable", r"variable C(?:C|XX):$"),
            Sign("_COMPILER:", r"^The CMAKE_C(?:XX)?_COMPILER:$"),
            Sign(
                "cannot execute",
                r"fatal error: cannot execute ['\"`\u2018](?P<what>[^'\"\u2019]{1,200}).{0,9}: exec",
            ),
            Sign("cannot find", r"^collect2: fatal error: cannot find ['\"`\u2018](?P<what>ld\w{0,9})"),
            Sign("is not able to compile a simple test program"),
        ),
        "there is no C and C++ compiler that works",
        _COMPILER,
    ),
    Remedy(
        "compiler-crash",
        (
            Sign("internal compiler error: "),
            Sign(
                "frontend command failed",
                r"clang frontend command failed (?:due to signal|with exit code 13[49])",
            ),
            Sign("[code=139]", r"^FAILED: \[code=139\]"),
            Sign("died due to signal 11"),
            Sign("C1001", r"fatal error C1001\b"),
        ),
        "the compiler itself crashed, which is a fault of its own or of this machine's memory",
        "run this again, which goes on where it stopped; where it crashes again, take another compiler "
        "(CC, CXX)",
    ),
)
