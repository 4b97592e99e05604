"""Greedy text beside llama.cpp's, which was recorded on another processor."""

from __future__ import annotations


def assert_as_recorded(found: list[list[int]], recorded: list[list[int]]) -> None:
    """Each text begins with the recorded token, and at least half of them are the recorded ones in whole.

    Kernels of unlike processors add in unlike orders, and where two tokens are nearly as likely the other one
    comes out: seen on a processor whose logits were the same, bit by bit, before and after a change.
    """
    assert [one[0] for one in found] == [one[0] for one in recorded]
    equal = sum(ours == theirs for ours, theirs in zip(found, recorded, strict=True))
    assert 2 * equal >= len(recorded), (found, recorded)
