"""How well the estimate of a form's time (clue_mobile/kernel_costs/estimate.py) orders the forms, against the
measured costs of a table.

    python benchmarks/kernels/compare_estimate.py costs.json --gflops 44 --gbytes 12
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import exporters
from clue_mobile.kernel_costs import candidates
from clue_mobile.kernel_costs.estimate import Processor, milliseconds, traffic
from clue_mobile.lowering.forms import Geometry
from pi_runtime.kernel_costs import read_records


def main() -> None:
    """Print, for each product, the measured and the estimated best, and what the estimate's choice costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("costs", type=Path)
    parser.add_argument("--gflops", type=float, required=True, help="of a matrix product on this machine")
    parser.add_argument("--gbytes", type=float, required=True, help="a second, of a copy on this machine")
    options = parser.parse_args()
    processor = Processor(options.gflops * 1e9, options.gbytes * 1e9)
    exporter = exporters.get("onnx")
    losses, ratios = [], []
    for record in read_records(options.costs):
        if record.runtime != "onnx" or record.kind != "measured":
            continue
        for key, entry in sorted(record.costs.items()):
            product, _, shape = key.partition(" ")
            each = candidates.Product(product, Geometry.parse(shape))
            guesses = {}
            for name in entry["ms"]:
                traced = candidates.trace(each, name, exporter)
                guesses[name] = milliseconds(traced.flops, traffic(traced.graph), processor)
                ratios.append(guesses[name] / entry["ms"][name])
            best, guess = min(entry["ms"], key=entry["ms"].__getitem__), min(guesses, key=guesses.__getitem__)
            losses.append(entry["ms"][guess] / entry["ms"][best])
            print(
                f"{key}: measured best {best} {entry['ms'][best]:.2f} ms; estimated best {guess} "
                f"{guesses[guess]:.2f} ms, measured {entry['ms'][guess]:.2f} ms"
            )
    print(
        f"{len(losses)} products: the estimated best is the measured one in "
        f"{sum(loss == 1 for loss in losses)}, within 10 % of it in {sum(loss <= 1.1 for loss in losses)}; "
        f"median of estimated over measured time {statistics.median(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
