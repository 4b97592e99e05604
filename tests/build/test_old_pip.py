"""A pip that is too old for a target without one, and the signs of a full disk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from machines import PC

from floatllm_build import pip
from floatllm_build.errors import MissingError
from floatllm_build.pip import disk_is_full, install_command
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


@pytest.mark.parametrize(
    "words",
    ["OSError: [Errno 28] No space left on device", "OSError: [WinError 112] Es steht zu wenig Platz bereit"],
)
def test_a_full_disk_is_known_by_words_or_by_the_disk(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Completed(rc=1, out="", err="refused")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    assert not disk_is_full(plain)
    assert words in disk_is_full(replace(plain, err=words))
    monkeypatch.setattr(pip.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert "0 bytes left" in disk_is_full(plain)
    assert not disk_is_full(replace(plain, rc=0))
