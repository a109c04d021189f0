"""The benchmarks are scripts in a folder of their own; their modules are imported from there, as the scripts do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
