"""The way in, for `python -m` and the console script: an interrupt ends well from the first import on."""

# With `python -m`, modules come from the current folder first. Python has loaded these two before; any other
# could be somebody's file, until that folder is off the path.
import os
import sys


def main() -> None:
    try:
        from floatllm_build.cli import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:  # before the command began, or after it
        from floatllm_build.interrupts import INTERRUPTED, say_interrupted  # noqa: PLC0415

        say_interrupted()
        sys.exit(INTERRUPTED)
    except MemoryError:
        sys.stderr.write(
            "floatllm-build: there is too little memory to run in. `ulimit -a` shows the limits of this "
            "shell, and `ulimit -v unlimited` lifts the one on address space.\n"
        )
        sys.exit(3)


if __name__ == "__main__":
    try:
        if sys.path[0] in {"", os.getcwd()}:  # noqa: PTH109  a text, as in the path
            del sys.path[0]
    except FileNotFoundError:  # of a folder that is gone
        pass
    main()
