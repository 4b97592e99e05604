"""The way in, for `python -m` and the console script: an interrupt ends well from the first import on."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main() -> None:
    try:
        from floatllm_build.cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:
        sys.stderr.write(
            "floatllm-build: there is too little memory to run in. `ulimit -a` shows the limits of this "
            "shell, and `ulimit -v unlimited` lifts the one on address space.\n"
        )
        sys.exit(3)


if __name__ == "__main__":
    # `python -m` looks for modules in the current folder first, and most are not imported yet.
    with suppress(FileNotFoundError):  # of a folder that is gone
        if sys.path[0] in {"", os.getcwd()}:  # noqa: PTH109  a text, as in the path
            del sys.path[0]
    main()
