"""Compilers that are not there, not whole, or that crash."""

from __future__ import annotations

from floatllm_build.remedies.sign import COMPILER_CACHE, Remedy, Sign

_COMPILER = (
    "install one (Debian: apt install g++; Fedora: dnf install gcc-c++; Termux: pkg install clang; macOS: "
    "xcode-select --install; Windows: Visual Studio's Build Tools), or correct CC and CXX"
)

CACHES = (
    Remedy(
        COMPILER_CACHE,
        (
            Sign("ccache: error: ", r"^(?:\S{0,300}/)?(?P<what>s?ccache): error: "),
            Sign("ccache: FATAL: ", r"^(?:\S{0,300}/)?(?P<what>s?ccache): FATAL: "),
            Sign("sccache: caused by: ", r"^(?P<what>sccache): caused by: "),
        ),
        "{what}, the compiler cache, fails",
        "name a folder that can be written in CCACHE_DIR (for sccache in SCCACHE_DIR), or leave it out: set "
        "CCACHE_DISABLE=1, and take it out of CC, CXX and CMAKE_CXX_COMPILER_LAUNCHER",
    ),
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
        ),
        "there is no C and C++ compiler that works",
        _COMPILER,
    ),
    Remedy(
        "compiler-test",
        (Sign("is not able to compile a simple test program"),),
        "the compiler could not compile a small test program with the flags that it gets",
        f"read what it says; if it is broken, {_COMPILER}",
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
