from __future__ import annotations

import pytest
from floatllm import UsageError, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4096B", 4096),
        ("48M", 48 * 2**20),
        ("48MiB", 48 * 2**20),
        ("512m", 512 * 2**20),
        ("2GiB", 2 * 2**30),
        ("1.5G", 3 * 2**29),
        (" 3 K ", 3072),
        ("1T", 2**40),
    ],
)
def test_sizes_are_powers_of_two(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "0", "-1", "0.1", "48MB", "1e9", "five", "8388608T", "٣M", "1 2"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (98362432, "93.8 MiB"), (2**40, "1.0 TiB")],
)
def test_sizes_are_shown_in_the_largest_unit(size: int, text: str) -> None:
    assert format_size(size) == text
