"""Where the saliency mask begins, by tau: whether a cut point could ever be taken.

    python benchmarks/less_work/masks.py --model resnet20 --weights resnet20_cifar10.safetensors
        --data cifar10_images.zip --validation 500 --forget 0 --out benchmarks/less_work/masks.jsonl

One pass over `--count` images of the class, in eager PyTorch, with the weights before the request: an epoch's
mask is the OR over saliency batches of 256, so it begins where the largest saliency of any batch exceeds tau.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clue_mobile import cuts, data, models
from clue_mobile.flat import FlatModel
from clue_mobile.methods import clue
from clue_mobile.methods.batches import Batches

TAUS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 6e-2, 0.1, 0.2)


def largest(model: FlatModel, batches: Batches, group: int, part: int) -> torch.Tensor:
    """The largest saliency of each weight over the epoch's saliency batches, [P]."""
    state = model.pack()
    found = torch.zeros_like(state["params"])
    for positions in batches.cut(0, group):
        total = torch.zeros_like(found)
        for rows in np.split(positions, range(part, group, part)):
            leaves = model.leaves(state)
            logits, _ = model.forward(leaves, state, batches.x(0, rows))
            total += model.gradient(clue.cross_entropy_sum(logits, batches.onehot(rows)), leaves)
        found = torch.maximum(found, clue.saliency(state["params"], total, group))
    return found


def told(model: FlatModel, saliency: torch.Tensor, tau: float) -> dict[str, Any]:
    """What the mask of this tau looks like; `skipped`: percent of the forward FLOPs below the last boundary
    that it leaves empty, so of the backward pass that the best possible cut would save."""
    on = torch.nonzero(saliency > tau).flatten()
    first = int(on[0]) if len(on) else len(saliency)
    entries = [entry for entry in model.entries if entry.value == "params"]
    pieces = [saliency[entry.offset : entry.offset + entry.numel] for entry in entries]
    shares = cuts.boundaries(model)
    return {
        "tau": tau,
        "density_percent": round(100 * len(on) / len(saliency), 4),
        "begins_in": next((e.name for e in reversed(entries) if e.offset <= first < len(saliency)), None),
        "empty_tensors": sum(not bool((piece > tau).any()) for piece in pieces),
        "tensors": len(entries),
        "skipped_percent": round(100 * max(share for offset, share in shares.items() if offset <= first), 1),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--validation", type=int)
    parser.add_argument("--forget", type=int, required=True)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--augment", default="none")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    spec = models.resolve_spec(given.model)
    model = FlatModel(models.load(spec, given.weights), spec)
    found = data.load(
        given.data,
        input_shape=spec.input_shape,
        classes=None if given.data == "digits" else spec.classes,
        validation_per_class=given.validation,
    ).train
    rows = np.flatnonzero(found.labels == given.forget)
    rows = np.sort(np.random.default_rng(0).permutation(rows)[: given.count])
    batches = Batches(found.images[rows], found.labels[rows], spec.num_classes, 0, given.augment)
    saliency = largest(model, batches, min(256, len(rows)), 32)
    for tau in TAUS:
        row = {"model": given.model, "data": given.data.rpartition("/")[2], "forget": given.forget}
        row |= {"images": len(rows), "augment": given.augment, **told(model, saliency, tau)}
        with given.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row))


if __name__ == "__main__":
    main()
