"""The command line: `vbss separate`, `localize` and `batch` for recordings, `vbss simulate` and `demo` for scenes.

Each command is a module with a function `add`, which describes its arguments, and one that runs it. Heavy imports stand
inside the latter, so that `vbss --help` answers at once.
"""

from vbss.cli.main import console as console
from vbss.cli.main import main as main
