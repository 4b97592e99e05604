"""What a failed build can say, what it means and what to do: one table."""

from __future__ import annotations

from floatllm_build.remedies.compilers import CACHES, COMPILERS
from floatllm_build.remedies.machine import MACHINE, SILENT
from floatllm_build.remedies.pieces import PIECES
from floatllm_build.remedies.sign import COMPILER_CACHE, OUT_OF_MEMORY, Remedy, Sign
from floatllm_build.remedies.versions import VERSIONS

__all__ = ["COMPILER_CACHE", "MACHINE_KINDS", "OUT_OF_MEMORY", "REMEDIES", "SILENT", "Remedy", "Sign"]

MACHINE_KINDS = {remedy.kind for remedy in (*CACHES, *MACHINE)}
"""What no flag of the user's can be the cause of."""

# In order: what explains the others stands first. A full disk makes compilers and linkers say many things, a
# compiler that was killed leaves a FAILED as any other does, and one that lacks a library "does not work". A
# compiler cache speaks of its own folder, not of the build's.
REMEDIES = (*CACHES, *MACHINE, *VERSIONS, *PIECES, *COMPILERS)
