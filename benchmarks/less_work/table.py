"""The table of results.jsonl: mean over the seeds, and the spread between them.

python benchmarks/less_work/table.py benchmarks/less_work/results.jsonl
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def shown(values: list[float], digits: int = 1) -> str:
    """Mean ± standard deviation of the population; the mean alone of one value."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.pstdev(values):.{digits}f}" if len(values) > 1 else mean


rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
for line in Path(sys.argv[1]).read_text().splitlines():
    row = json.loads(line)
    rows[row["row"]].append(row)
print(
    "| request | seeds | CPU s | saliency and mask s | teacher s | steps and stops s | steps | UA | RA | TA |"
)
print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
for name, found in rows.items():
    phases = [
        shown([row["phases"][phase]["cpu_s"] for row in found]) for phase in ("saliency", "teacher", "step")
    ]
    steps = shown([row["phases"]["step"]["steps"] for row in found])
    scores = [shown([row[key] for row in found]) for key in ("UA", "RA", "TA")]
    cells = [name, str(len(found)), shown([row["cpu_s"] for row in found]), *phases, steps, *scores]
    print(f"| {' | '.join(cells)} |")
