"""Renders a chat template: run as a script by chat.py, in a child, because a template is somebody's code.

Reads one JSON request from standard input and writes one JSON answer: `text`; or `refused`, what the template
says against the messages; or `broken`, why it cannot be rendered; or `missing`, without jinja2.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib
import json
import sys
from typing import Any, NoReturn


class _RefusedError(Exception):
    """raise_exception() of a template."""


def main() -> None:
    """Answers the request on standard input."""
    request = json.load(sys.stdin)
    sys.path[:] = request["path"]
    _limit(request["memory"], request["seconds"])
    try:
        answer = _answer(request)
    except MemoryError:
        answer = {"broken": f"it needs more than {request['memory'] >> 20} MiB of memory"}
    except _RefusedError as error:
        answer = {"refused": str(error)[:500]}
    except Exception as error:  # noqa: BLE001 (whatever a template does is the template's fault)
        answer = {"broken": f"{type(error).__name__}: {error}"[:500]}
    sys.stdout.write(json.dumps(answer))


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        sandbox = importlib.import_module("jinja2.sandbox")
        extensions = importlib.import_module("jinja2.ext")
    except ImportError as error:
        return {"missing": str(error)}
    # Blocks that only training needs; what they hold is text like any other.
    generation = type(
        "Generation", (extensions.Extension,), {"tags": {"generation"}, "parse": _parse_generation}
    )
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    parts = []
    length = 0
    for part in environment.from_string(request["template"]).generate(**request["variables"]):
        parts.append(part)
        length += len(part)
        if length > request["characters"]:
            return {"broken": f"it makes a text of more than {request['characters']} characters"}
    return {"text": "".join(parts)}


def _parse_generation(_self: Any, parser: Any) -> Any:
    next(parser.stream)
    return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Templates want plain JSON; jinja2's own filter escapes it for HTML. No option takes code to call."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: object) -> NoReturn:
    raise _RefusedError(str(message))


def _now(format_: str) -> str:
    return dt.datetime.now().astimezone().strftime(format_)


def _limit(memory: int, seconds: int) -> None:
    """The system's own limits, where it has them; the parent ends a child that takes too long."""
    for name, most in (("RLIMIT_AS", memory), ("RLIMIT_CPU", seconds)):
        # Windows has neither, and macOS may refuse the first.
        with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
            resource = importlib.import_module("resource")
            kind = getattr(resource, name)
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))


if __name__ == "__main__":
    main()
