"""`python -m vbss` is the command `vbss`."""

import sys

from vbss.cli import console

sys.exit(console())
