"""Loops over steps and choices, which several files of this part use, are a module beside its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
