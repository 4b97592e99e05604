"""The shape of a recorded host, and the reading of one from a file that nobody vouches for."""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from floatllm_build.errors import UsageFaultError

RECORD_VERSION = 1
LARGEST_RECORD = 4 << 20
"""Bytes. A machine's answers are some 100 KiB; whatever JSON fits in here is read in a moment and in little
memory."""

# ---- the shape ----------------------------------------------------------------------------------
#
# JSON schema in the few keywords that `find_fault` knows; docs/schema/ publishes it. Whatever is not named
# here is refused: a misspelt name would mean "not there" and give a wrong plan without a word, and what a
# later tool adds comes with a later version.

_TEXT = {"type": "string"}
# What goes to the system as a name ends at a NUL there.
_NAME = {"type": "string", "pattern": r"^[^\u0000]*$"}
_NAME_OR_NOTHING = {**_NAME, "type": ["string", "null"]}
_SIZE = {"type": "integer", "minimum": 0, "maximum": (1 << 64) - 1}
_SIZE_OR_NOTHING = {**_SIZE, "type": ["integer", "null"]}


def _object(properties: dict[str, Any], kinds: Any = "object", **more: Any) -> dict[str, Any]:
    return {"type": kinds, "properties": properties, "additionalProperties": False, **more}


def _sizes_or_nothing(*names: str) -> dict[str, Any]:
    return _object(dict.fromkeys(names, _SIZE), ["object", "null"], required=list(names))


def _answers(description: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "propertyNames": _NAME,
        "additionalProperties": answer,
    }


_FILE = _object(
    {"text": _TEXT, "errno": {"type": "string", "pattern": "^E[A-Z0-9]{1,20}$"}},
    minProperties=1,
    maxProperties=1,
)
_COMPLETED = _object(
    {"rc": {"type": "integer", "minimum": -(1 << 31), "maximum": (1 << 32) - 1}, "out": _TEXT, "err": _TEXT},
    required=["rc", "out", "err"],
)
_IDENTITY = (
    *("system", "system_version", "sys_platform", "release", "machine", "libc"),
    *("executable", "prefix", "version", "platform", "byteorder"),
)
_KINDS = {
    "files": _answers("Path: its text (or the lines that were asked for), or how it was refused.", _FILE),
    "commands": _answers("Command line: how it ended. 127: not started; 124: too slow.", _COMPLETED),
    "asked": _answers("Question and subject, answered by a child: how that ended.", _COMPLETED),
    "environ": _answers("Variable: its value, null where unset.", _NAME_OR_NOTHING),
    "which": _answers("Program: its path, null where there is none.", _NAME_OR_NOTHING),
    "globs": _answers("Pattern: sorted paths that match.", {"type": "array", "items": _NAME}),
    "native": _object(
        {
            "identity": _object(
                {**dict.fromkeys(_IDENTITY, _TEXT), "bits": {**_SIZE, "maximum": 128}},
                ["object", "null"],
            ),
            "cpu_count": _SIZE_OR_NOTHING,
            "affinity": _SIZE_OR_NOTHING,
            "hwcaps": _sizes_or_nothing("hwcap", "hwcap2"),
            "rlimit_as": _SIZE_OR_NOTHING,
            "euid": _SIZE_OR_NOTHING,
            "usr_flags": _SIZE_OR_NOTHING,
            "disk": _object(
                {
                    **dict.fromkeys(("free", "inodes", "held", "noexec", "temp"), _SIZE),
                    "kept": {"type": "object", "propertyNames": _NAME, "additionalProperties": _SIZE},
                    "refusal": _TEXT,
                },
                ["object", "null"],
            ),
            "limits_met": {
                "type": ["array", "null"],
                "items": _object({"name": _TEXT, "value": _SIZE}, required=["name", "value"]),
            },
            "windows_memory": _sizes_or_nothing("total", "available", "commit_limit", "commit_room"),
        },
        description="What the running Python says of itself and its limits.",
    ),
}
RECORD_KINDS = tuple(_KINDS)
RECORD_SHAPE = _object(
    {
        "schema_version": {"type": "integer", "const": RECORD_VERSION},
        "about": {"description": "What machine this is, in words.", "type": "string"},
        "expected": {"description": "What a test demands of this host. No probe sees it.", "type": "object"},
        **_KINDS,
    },
    required=["schema_version"],
)
"""A kind of answers that is left out has none: what was never asked is not there."""

# ---- the check ----------------------------------------------------------------------------------

_CALLED = {
    "object": (dict, "an object"),
    "array": (list, "a list"),
    "string": (str, "text"),
    "integer": (int, "a whole number"),
    "null": (type(None), "null"),
}


def find_fault(record: Any) -> str:
    """What is wrong with a record, in words; empty where nothing is."""
    return _fault(record, RECORD_SHAPE, "")


def _fault(value: Any, shape: dict[str, Any], where: str) -> str:
    kinds = shape["type"] if isinstance(shape["type"], list) else [shape["type"]]
    here = where or "the whole"
    # True is an int to Python.
    if isinstance(value, bool) or not isinstance(value, tuple(_CALLED[kind][0] for kind in kinds)):
        return f"{here} is not {' or '.join(_CALLED[kind][1] for kind in kinds)}"
    if isinstance(value, int):
        low, high = shape.get("minimum", value), shape.get("maximum", value)
        if not low <= value <= high or value != shape.get("const", value):
            return f"{here} is a number that cannot be"
    if isinstance(value, str):
        return _text_fault(value, shape, here)
    if isinstance(value, list):
        faults = (_fault(item, shape["items"], f"an item of {here}") for item in value)
        return next(filter(None, faults), "")
    return _object_fault(value, shape, where) if isinstance(value, dict) else ""


def _text_fault(text: str, shape: dict[str, Any], here: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{here} holds half a character (a lone surrogate)"
    if not re.search(shape.get("pattern", ""), text):
        return f"{here} holds what cannot stand there"
    return ""


def _object_fault(value: dict[str, Any], shape: dict[str, Any], where: str) -> str:
    here = where or "the whole"
    names, known, others = map(shape.get, ("propertyNames", "properties", "additionalProperties"))
    missing = [name for name in shape.get("required", ()) if name not in value]
    if missing:
        return f"{here} has no `{missing[0]}`"
    if not shape.get("minProperties", 0) <= len(value) <= shape.get("maxProperties", len(value)):
        return f"{here} must hold one of {' and '.join(f'`{name}`' for name in known or ())}"
    for name, item in value.items():
        below = f"`{_plain(name)}`" + (f" in {where}" if where else "")
        inner = (known or {}).get(name, others)
        if inner is False:
            return f"{below} is nothing that a recording of version {RECORD_VERSION} holds"
        fault = (names and _text_fault(name, names, f"the name {below}")) or (
            inner and _fault(item, inner, below)
        )
        if fault:
            return str(fault)
    return ""


def _plain(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80])


# ---- the file -----------------------------------------------------------------------------------


def load_record(path: Path) -> dict[str, Any]:
    """A record that has the right shape. Raises UsageFaultError for whatever else `path` is."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UsageFaultError(
                f"{path} is no recorded host, for it is no ordinary file. Name what `detect --save` wrote."
            )
        with path.open("rb") as file:
            # One more, because some systems' files say that they are empty.
            data = file.read(LARGEST_RECORD + 1) if found.st_size <= LARGEST_RECORD else None
    except OSError as error:
        raise UsageFaultError(
            f"{path} cannot be read: {error.strerror}. Name what `detect --save` wrote."
        ) from error
    if data is None or len(data) > LARGEST_RECORD:
        raise UsageFaultError(
            f"{path} is no recorded host: it is larger than {LARGEST_RECORD >> 20} MiB, and no machine says "
            "so much. Make one with `detect --save`."
        )
    try:
        record = parse_record(data)
    except (ValueError, RecursionError) as error:
        said = "lists in lists without end" if isinstance(error, RecursionError) else error
        raise UsageFaultError(
            f"{path} is no recorded host, or was cut short: {said}. Make one with `detect --save`."
        ) from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if type(version) is int and version > RECORD_VERSION:
        raise UsageFaultError(
            f"{path} has schema version {version}; this floatllm-build reads {RECORD_VERSION}. "
            "Take a newer floatllm-build, or record the host again with this one."
        )
    if isinstance(record, dict) and "toolchain" in record:
        raise UsageFaultError(
            f"{path} is what `detect --json` prints, and holds conclusions only. "
            "Name what `detect --save` wrote."
        )
    fault = find_fault(record)
    if fault:
        raise UsageFaultError(
            f"{path} is a damaged recording: {fault}. Record the host again with `detect --save`, or mend it "
            "by docs/schema/host-record.schema.json."
        )
    return dict(record)


def parse_record(data: bytes) -> Any:
    """JSON in UTF-8 whose numbers are whole and whose names are unique. Raises ValueError, RecursionError."""
    # Editors on Windows put a byte order mark before it.
    return json.loads(
        data.decode("utf-8-sig"),
        parse_int=_whole_number,
        parse_float=_no_number,
        parse_constant=_no_number,
        object_pairs_hook=_unique,
    )


def _whole_number(digits: str) -> int:
    # Early, because long numbers cost Python the square of their length.
    if len(digits) > len(str(1 << 64)):
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_number(word: str) -> None:
    raise ValueError(f"{word[:20]} is no whole number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"`{_plain(twice)}` stands there twice")
    return found
