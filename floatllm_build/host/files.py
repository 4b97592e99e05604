"""Reading what may not be there, and naming folders in patterns."""

from __future__ import annotations

import re

from floatllm_build.host.findings import Findings
from floatllm_build.system import System


def read_if_there(system: System, path: str, findings: Findings, only: str = "") -> str | None:
    """The text of a file, or its lines with `only`. None where there is none, and where it is refused; a note
    says so then.
    """
    try:
        return system.read(path, only)
    except FileNotFoundError:
        return None
    except OSError as error:
        findings.note(path, error.strerror or str(error))
        return None


def read_text(system: System, path: str, findings: Findings, only: str = "") -> str:
    """As read_if_there(), where an empty file says as much as none."""
    return read_if_there(system, path, findings, only) or ""


def literal(folder: str) -> str:
    """A pattern for System.glob that means this very folder, whatever letters are in its name."""
    return re.sub(r"[*?[]", r"[\g<0>]", folder)
