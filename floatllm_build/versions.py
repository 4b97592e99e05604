"""Version numbers, and the oldest ones that will do."""

from __future__ import annotations

CMAKE_MINIMUM = (3, 25)
NINJA_MINIMUM = (1, 10)
PYTHON_MINIMUM = (3, 10)


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers: `3.25.1-rc2` is (3, 25, 1)."""
    numbers = []
    for part in text.split("."):
        digits = "".join(c for i, c in enumerate(part) if part[: i + 1].isdigit())
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
