"""`python -m patchatlas.cli` is `patchatlas`."""

import sys

from patchatlas.cli.main import main

sys.exit(main())
