"""The way in, for `python -m` and the console script: an interrupt ends well from the first import on."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from floatllm_build.cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
