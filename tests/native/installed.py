"""The engine as the tests start it, and what they share beside fixtures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Installed:
    """A Python that has the engine, and the environment to start it with."""

    python: str
    env: dict[str, str]

    def script(self, code: str, *arguments: object) -> Any:
        """Runs Python code in a child and returns the JSON it prints."""
        done = subprocess.run(
            [self.python, "-c", code, *map(str, arguments)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def command(self, *arguments: object) -> list[str]:
        """The command line of `floatllm` with `arguments`."""
        return [self.python, "-m", "floatllm", *map(str, arguments)]

    def run(
        self, *arguments: object, under: Sequence[str] = (), stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs `floatllm` to its end, `under` a program that starts another; `stdin` is what it can read."""
        return subprocess.run(
            [*under, *self.command(*arguments)],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )
