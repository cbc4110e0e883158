"""A cost table as Markdown: for each product every form in GFLOP/s, the fastest first.

python benchmarks/kernels/table.py costs.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pi_runtime.kernel_costs import read_records


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("costs", type=Path)
    for record in read_records(parser.parse_args().costs):
        where = f"{record.machine}, {record.threads} thread(s), {record.kind}"
        print(f"\n{record.runtime} {record.version}, {where}\n")
        print("| product | shape | forms, GFLOP/s (the product's own FLOPs over the time) |")
        print("|---|---|---|")
        for key, entry in sorted(record.costs.items()):
            product, _, shape = key.partition(" ")
            rates = ", ".join(f"{name} {entry['flops'] / ms / 1e6:.1f}" for name, ms in entry["ms"].items())
            print(f"| {product} | {shape} | {rates} |")


if __name__ == "__main__":
    main()
