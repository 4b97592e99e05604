"""The shape of a recorded host. Pure: checks what a file says before anything is answered from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

RECORD_VERSION = 1


def find_fault(record: Any) -> str:
    """What is wrong with a record, in words; empty where nothing is.

    Kinds of answers that are not known are let be: nobody will ask for them.
    """
    if not isinstance(record, dict):
        return "it is no JSON object"
    for kind, fits in _ANSWERS.items():
        answers = record.get(kind, {})
        if not isinstance(answers, dict):
            return f"`{kind}` is no JSON object"
        for key, answer in answers.items():
            if not fits(key, answer):
                return f"the answer to `{key[:80]}` in `{kind}` has not the shape that a recording has"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64


def _is_file(_path: str, answer: Any) -> bool:
    if not isinstance(answer, dict):
        return False
    error = answer.get("errno")
    known = isinstance(error, str) and bool(re.fullmatch(r"E[A-Z0-9]{1,20}", error))
    return isinstance(answer.get("text"), str) or known


def _is_command(_argv: str, answer: Any) -> bool:
    return (
        isinstance(answer, dict)
        and _is_number(answer.get("rc"))
        and all(isinstance(answer.get(name), str) for name in ("out", "err"))
    )


def _is_text_or_nothing(_name: str, answer: Any) -> bool:
    return answer is None or isinstance(answer, str)


def _is_list_of_text(_pattern: str, answer: Any) -> bool:
    return isinstance(answer, list) and all(isinstance(path, str) for path in answer)


def _is_native(question: str, answer: Any) -> bool:
    if answer is None:
        return True
    if question == "identity":
        return isinstance(answer, dict) and all(
            _is_number(value) if name == "bits" else isinstance(value, str) for name, value in answer.items()
        )
    if question == "windows_memory":
        names = ("total", "available", "commit_limit", "commit_room")
        return isinstance(answer, dict) and all(_is_number(answer.get(name)) for name in names)
    return _is_number(answer) if question in {"cpu_count", "affinity", "rlimit_as"} else True


_ANSWERS: dict[str, Callable[[str, Any], bool]] = {
    "files": _is_file,
    "commands": _is_command,
    "environ": _is_text_or_nothing,
    "which": _is_text_or_nothing,
    "globs": _is_list_of_text,
    "native": _is_native,
}
