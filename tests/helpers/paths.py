"""Where the repository and the data for development are."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SHARED = Path(os.environ.get("DOTS_ZOO_DATA", ROOT.parent / "shared" / "data"))
