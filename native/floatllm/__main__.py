"""`python -m floatllm` is the `floatllm` command."""

# With `python -m`, modules come from the current folder first. Python has loaded these two before; any other
# could be somebody's file, until that folder is off the path.
import os
import sys

if __name__ == "__main__":
    try:
        if sys.path[0] in {"", os.getcwd()}:  # noqa: PTH109 (a text, as in the path)
            del sys.path[0]
    except FileNotFoundError:  # of a folder that is gone
        pass

from floatllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
