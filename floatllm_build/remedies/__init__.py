"""What a failed build can say, what it means and what to do: one table."""

from __future__ import annotations

from floatllm_build.remedies.compilers import COMPILERS
from floatllm_build.remedies.machine import MACHINE, SILENT
from floatllm_build.remedies.pieces import PIECES
from floatllm_build.remedies.sign import OUT_OF_MEMORY, Remedy, Sign
from floatllm_build.remedies.versions import VERSIONS

__all__ = ["OUT_OF_MEMORY", "REMEDIES", "SILENT", "Remedy", "Sign"]

# In order: what explains the others stands first. A full disk makes compilers and linkers say many things, a
# compiler that was killed leaves a FAILED as any other does, and one that lacks a library "does not work".
REMEDIES = (*MACHINE, *VERSIONS, *PIECES, *COMPILERS)
