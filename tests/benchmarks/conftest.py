from __future__ import annotations

import sys
from pathlib import Path

for _name in ("conformance", "fuzz", "instructions", "methods", "roofline", "step"):
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / _name))
