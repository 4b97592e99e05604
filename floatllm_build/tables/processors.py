"""Options of ggml that are on whatever the processor has, and from which compilers on they can be used.

The options: CMakeLists.txt and ggml-cpu/CMakeLists.txt of ggml 0.26.0. Names of features: Linux'
/proc/cpuinfo, `isa` on RISC-V and `Features` on LoongArch. Compilers: the release notes of GCC and LLVM. GCC
14 and LLVM 17 have version 1.0 of the vector intrinsics, and half floats in them; GCC 14 and LLVM 18 have LSX
and LASX. clang 14 refuses Zvfh, Zicbop and Zihintpause, and takes V and Zfh (measured). November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Option:
    name: str
    feature: str
    """Linux' name of what the code needs; empty for a hint, which every processor may leave out."""
    called: str
    gcc: tuple[int, ...] = ()
    clang: tuple[int, ...] = ()
    below: str = ""
    """Option without which this one changes nothing."""


OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "riscv64": (
        Option(name="GGML_RVV", feature="v", called="V 1.0", gcc=(14,), clang=(17,)),
        Option(name="GGML_RV_ZFH", feature="zfh", called="Zfh", gcc=(13,)),
        Option(name="GGML_RV_ZVFH", feature="zvfh", called="Zvfh", gcc=(14,), clang=(17,), below="GGML_RVV"),
        Option(name="GGML_RV_ZICBOP", feature="", called="Zicbop", gcc=(12,), clang=(16,)),
        Option(name="GGML_RV_ZIHINTPAUSE", feature="", called="Zihintpause", gcc=(12,), clang=(16,)),
    ),
    "loongarch64": (
        Option(name="GGML_LASX", feature="lasx", called="LASX", gcc=(14,), clang=(18,)),
        Option(name="GGML_LSX", feature="lsx", called="LSX", gcc=(14,), clang=(18,)),
    ),
}
