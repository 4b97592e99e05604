"""A pip that is too old for a target without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import PC

from floatllm_build.errors import MissingError
from floatllm_build.pip import install_command
from floatllm_build.system import Completed


class Told:
    """A machine without uv whose own pip has this version, with wheels of pip in some folders."""

    def __init__(self, version: str, *bundles: str) -> None:
        self.version, self.bundles = version, bundles

    def run(self, argv: tuple[str, ...], **_: Any) -> Completed:
        out = f"pip {self.version} from /x" if "--version" in argv else "/target/ensurepip"
        return Completed(rc=0, out=out, err="")

    def which(self, _: str) -> None:
        return None

    def glob(self, pattern: str) -> tuple[str, ...]:
        return tuple(
            f"{folder}/_bundled/pip-23.0.whl" for folder in self.bundles if pattern.startswith(folder)
        )


def command(system: Told) -> tuple[str, ...]:
    assert PC.target
    bare = replace(PC.target, has_pip=False, executable="/t/python")
    return install_command(system, bare, Path("/w.whl"), Path("/cache")).argv  # type: ignore[arg-type]


def test_a_pip_of_before_22_3_does_not_get_an_option_that_it_has_not() -> None:
    assert command(Told("22.3"))[3:6] == ("--python", "/t/python", "install")
    old = command(Told("22.0.2", "/target/ensurepip"))
    assert old[:3] == ("/t/python", "/target/ensurepip/_bundled/pip-23.0.whl/pip", "install")
    with pytest.raises(MissingError, match="/t/python -m ensurepip"):
        command(Told("22.0.2"))
