"""Questions that are asked side by side: most of their time is waiting for a program or a driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

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
        thread.start()
    except RuntimeError:
        ask()

    def answer() -> _T:
        if thread.ident is not None:
            thread.join()
        if errors:
            raise errors[0]
        return answers[0]

    return answer
