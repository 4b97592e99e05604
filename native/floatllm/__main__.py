"""`python -m floatllm` is the `floatllm` command."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    # `python -m` looks for modules in the current folder first, and most are not imported yet.
    with suppress(FileNotFoundError):  # of a folder that is gone
        if sys.path[0] in {"", os.getcwd()}:  # noqa: PTH109 (a text, as in the path)
            del sys.path[0]

from floatllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
