"""Messages to the tokens that a model's own chat template makes of them.

A template comes with the model file and is code. It is rendered by jinja2's sandbox, which keeps it from the
machine, in a child with limits on time, memory and the length of its text, which alone stop one that loops
for ever or multiplies a string.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floatllm.errors import EngineError, MissingError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from floatllm.model import Model

    Message = Mapping[str, str]

_KEY = "tokenizer.chat_template"
# Real templates take milliseconds and at most some 20 KiB; a phone needs seconds to start Python and jinja2.
_SECONDS = 30
_MEMORY = 512 << 20
_CHARACTERS = 1 << 20
_LONGEST_TEMPLATE = 1 << 20
_BREAKERS = range(0xFDD0, 0xFDF0)


def encode(model: Model, messages: str | Sequence[Message]) -> list[int]:
    """Token ids of `messages` and of the beginning of the model's answer.

    A message is a mapping with `role` ("system", "user", "assistant") and `content`; text alone is one of the
    user's. Control tokens are only those that the template writes: their names inside a content are plain
    text. Raises MissingError without jinja2, ModelError where the model has no template or a broken one, and
    UsageError for messages that are malformed or that the template refuses.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    _check(messages)
    template = model.metadata.get(_KEY)
    if not isinstance(template, str):
        msg = f"{model.path} has no chat template ({_KEY}): give the prompt as raw text, or use another file."
        raise ModelError(msg)
    tokenizer = model.tokenizer
    marks = [mark for mark in tokenizer.control_texts() if len(mark) > 1]
    breaker = _breaker([template, *marks, *(message["content"] for message in messages)])
    variables: dict[str, Any] = {
        **tokenizer.special_texts(),
        "messages": [{**m, "content": _broken_up(m["content"], marks, breaker)} for m in messages],
        "add_generation_prompt": True,
        "tools": None,
        "documents": None,
    }
    tokens = tokenizer.encode(
        render(template, variables), parse_special=True, add_special=False, ignore=breaker
    )
    # Most templates write the token that begins a text themselves; a second one harms.
    if tokenizer.add_bos and tokenizer.bos is not None and tokens[:1] != [tokenizer.bos]:
        tokens.insert(0, tokenizer.bos)
    return tokens


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text that `template` makes of `variables`, which JSON can hold. Raises as encode() does."""
    if len(template) > _LONGEST_TEMPLATE:
        length = f"{len(template)} characters, and at most {_LONGEST_TEMPLATE} are read"
        msg = f"The model's chat template has {length}: give the prompt as raw text."
        raise ModelError(msg)
    request = {
        "template": template,
        "variables": variables,
        "path": _path(),
        "memory": _MEMORY,
        "seconds": _SECONDS,
        "characters": _CHARACTERS,
    }
    answer = _ask(request)
    if "text" in answer:
        return answer["text"]
    if "missing" in answer:
        msg = f"Chat templates need jinja2 ({answer['missing']}): install it with `pip install jinja2`."
        raise MissingError(msg)
    if "refused" in answer:
        msg = f"The model's chat template refuses these messages: {answer['refused']}"
        raise UsageError(msg)
    why = answer["broken"]
    msg = f"The model's chat template cannot be rendered, because {why}: give the prompt as raw text."
    raise ModelError(msg)


def _path() -> list[str]:
    """Where this Python finds modules, without the empty entry of `python -c`: the current folder."""
    found = []
    for entry in filter(None, sys.path):
        with contextlib.suppress(FileNotFoundError):  # one that is relative to a folder that is gone
            found.append(os.path.abspath(entry))  # noqa: PTH100 (a text, as in the path)
    return found


def _ask(request: Mapping[str, Any]) -> dict[str, str]:
    # -I: nothing of the environment or the current folder; the request brings the path along.
    here = Path(__file__).resolve()
    command = [sys.executable, "-I", str(here.with_name("_template.py"))]
    try:
        done = subprocess.run(
            command,
            cwd=here.parent,
            input=json.dumps(request).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"broken": f"it takes longer than {_SECONDS} seconds"}
    except OSError as error:
        msg = f"Python could not be started to render the chat template ({error.strerror}): free some memory."
        raise EngineError(msg) from error
    try:
        answer: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        return {"broken": f"its process ended with {done.returncode} and no text"}
    return answer


def _check(messages: Iterable[Message]) -> None:
    count = 0
    for message in messages:
        count += 1
        if not all(isinstance(message.get(key), str) for key in ("role", "content")):
            msg = f"Message {count} has no role or no content: give both as text."
            raise UsageError(msg)
    if count == 0:
        msg = "There is no message: give at least one of the user's."
        raise UsageError(msg)


def _breaker(texts: Sequence[str]) -> str:
    """A character that none of the texts holds: one that Unicode promises never to use."""
    for code in _BREAKERS:
        if all(chr(code) not in text for text in texts):
            return chr(code)
    all_of_them = f"all of the {len(_BREAKERS)} characters that mean nothing"
    msg = f"The messages or the vocabulary hold {all_of_them}: take one out."
    raise UsageError(msg)


def _broken_up(content: str, marks: Iterable[str], breaker: str) -> str:
    for mark in marks:
        # One replacement can leave another behind, as of "aa" in "aaa".
        while mark in content:
            content = content.replace(mark, mark[0] + breaker + mark[1:])
    return content
