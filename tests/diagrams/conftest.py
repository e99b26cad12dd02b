"""The second method for the series of this part is a module beside its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
