"""The way in, for `python -m` and the console script: an interrupt ends well from the first import on."""

from __future__ import annotations

import sys


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
    main()
