"""`python -m patchatlas.cli` is `patchatlas`."""

import sys

from patchatlas.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
