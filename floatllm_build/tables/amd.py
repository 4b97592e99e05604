"""AMD's GPUs: which of them run code that was compiled for another."""

from __future__ import annotations

from collections.abc import Mapping

# Chip -> the chips whose code it is known to run. One generation is not enough: gfx1030's code has
# instructions (dot products) that gfx1010 lacks, and gfx90a's is for matrix cores that gfx900 lacks.
# gfx103x are alike; gfx90x, gfx101x and gfx12 run their oldest one's code (ggml-org/llama.cpp#18633, by a
# maintainer of ggml's HIP). From gfx1102 on it is only reported to work: llama.cpp's docs/build.md (11.0.0 on
# RDNA 3), ollama/ollama#15482 (gfx1103), ggml-org/llama.cpp#14734 (gfx1151). Read in December 2026.
_RUNS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("gfx902", "gfx906", "gfx908", "gfx90c"), frozenset({"gfx900"})),
    **dict.fromkeys(("gfx1011", "gfx1012", "gfx1013"), frozenset({"gfx1010"})),
    **dict.fromkeys(
        ("gfx1031", "gfx1032", "gfx1033", "gfx1034", "gfx1035", "gfx1036", "gfx1037"), frozenset({"gfx1030"})
    ),
    **dict.fromkeys(
        ("gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1152"), frozenset({"gfx1100"})
    ),
    "gfx1201": frozenset({"gfx1200"}),
}


def runs_code_of(chip: str, other: str) -> bool:
    """Whether the chip is known to run code for the other one, if the runtime is told that it is that one."""
    return chip == other or other in _RUNS.get(chip, ())
