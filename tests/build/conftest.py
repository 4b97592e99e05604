"""What tests of the tool share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import Place, make_place
from tool_environment import Environment


@pytest.fixture(scope="session")
def place(tool_env: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An engine with a cache of its own, to be killed, interrupted and starved; each test leaves it whole.

    Afterwards the tool's sources are as they were.
    """
    place = make_place(tool_env, tmp_path_factory.mktemp("place"))
    place.change("0")
    done = place.install()
    assert done.returncode == 0, done.stderr
    yield place
    place.change_back()
