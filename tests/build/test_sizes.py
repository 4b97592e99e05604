"""Sizes as people write them."""

from __future__ import annotations

import pytest

from floatllm_build.errors import UsageFaultError
from floatllm_build.sizes import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("2GiB", 2 << 30), ("1.5g", 3 << 29), ("48 m", 48 << 20), ("7", 7), ("1kib", 1024)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1M", "1X", "1e9", "0.1", "nan", "M", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageFaultError):
        parse_size(text)


def test_sizes_are_shown_in_the_largest_unit() -> None:
    assert [show_size(size) for size in (512, 1 << 20, 1500 << 20, 23 << 30)] == [
        *("512 B", "1.0 MiB", "1.5 GiB", "23.0 GiB")
    ]
