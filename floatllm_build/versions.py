"""Version numbers, and the oldest ones that will do."""

from __future__ import annotations

import re

CMAKE_MINIMUM = (3, 25)
NINJA_MINIMUM = (1, 10)
PYTHON_MINIMUM = (3, 10)
# The first that leaves libraries out by pattern (pypa/auditwheel#508), and the patchelf that it asks for.
AUDITWHEEL_MINIMUM = (6, 2)
PATCHELF_MINIMUM = (0, 14, 5)
DELOCATE_MINIMUM = (0, 12)


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers, whatever the text holds: `3.25.1-rc2` is (3, 25, 1); () where there are none."""
    numbers = re.match(r"[0-9]{1,6}(?:\.[0-9]{1,6})*", text)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()
