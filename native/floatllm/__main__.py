"""`python -m floatllm` is the `floatllm` command."""

import sys

from floatllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
