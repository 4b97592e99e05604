"""What a child of `System.ask` answered, taken apart without trust: drivers break, records can be made up."""

from __future__ import annotations

import json
from typing import Any

from floatllm_build.host.findings import Findings
from floatllm_build.system import System

_LONGEST = 200


def ask(
    system: System, question: str, subject: str, findings: Findings, *, timeout: float
) -> dict[str, Any] | None:
    """The child's JSON object, None where it gave none; either way a note tells what went wrong."""
    done = system.ask(question, subject, timeout=timeout)
    if done.rc != 0:
        findings.failed(subject, done)
        return None
    try:
        found = json.loads(done.out)
    except (ValueError, RecursionError) as error:
        findings.note(subject, f"the answer is no JSON ({error}): {text(done.out)}")
        return None
    if not isinstance(found, dict):
        findings.note(subject, f"the answer is no JSON object: {text(done.out)}")
        return None
    if "error" in found:
        findings.note(subject, text(found["error"]) or "an error without words")
    return found


def rows(found: dict[str, Any] | None, key: str, source: str, findings: Findings) -> list[dict[str, Any]]:
    """The objects listed under `key`; what is none, or says that it failed, is noted and left out."""
    listed = (found or {}).get(key, [])
    if not isinstance(listed, list):
        findings.note(source, f"{key} should be a list and is a {type(listed).__name__}")
        return []
    good = []
    for row in listed:
        if isinstance(row, dict) and "error" not in row:
            good.append(row)
        else:
            findings.note(source, text(row["error"]) if isinstance(row, dict) else f"an odd entry in {key}")
    return good


def whole(value: object, most: int = 2**63 - 1) -> int:
    """A whole number from 0 to `most`; 0 for everything else."""
    return value if type(value) is int and 0 <= value <= most else 0


def text(value: object) -> str:
    """Text in one line, of a bearable length and without what a terminal would obey; empty for no text."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value[: _LONGEST * 4].split())[:_LONGEST]
    return "".join(letter for letter in line if letter.isprintable())


def first_line(words: str) -> str:
    return text(next((line for line in words.splitlines() if line.strip()), ""))
