"""Questions that are asked side by side: most of their time is waiting for a program or a driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from floatllm_build.limits import allows_threads, remember_refusal

_T = TypeVar("_T")


def beside(question: Callable[..., _T], *subject: Any) -> Callable[[], _T]:
    """Starts to ask; what is returned waits for the answer, and raises what asking raised.

    Where the system gives no further thread, as under a tight limit, the question is asked here and now.
    """
    answers: list[_T] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question(*subject))
        except BaseException as error:  # noqa: BLE001  raised again where the answer is wanted
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    try:
        if allows_threads():
            thread.start()
        else:
            ask()
    except RuntimeError as error:
        remember_refusal(error)
        ask()

    def answer() -> _T:
        if thread.ident is not None:
            thread.join()
        if errors:
            raise errors[0]
        return answers[0]

    return answer
