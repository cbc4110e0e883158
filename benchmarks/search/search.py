"""Search CLUE's lr, tau, batch-norm mode and stop on validation images; test images are never opened.

Every trial is one eager run at the device's batch. Each --every steps, its accuracy on the validation images
of the forgotten class and of (at most 1,800 of) the retained classes goes to --out, so that one run shows
every stop. Finished trials are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import torch

from clue_mobile import data, methods, models

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="resnet20")
parser.add_argument("--data", required=True)
parser.add_argument("--weights", type=Path, required=True)
parser.add_argument("--forget", type=int, default=0)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--validation", type=int, default=None, help="images per class")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--every", type=int, default=8)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--seconds", type=float, default=240, help="a trial's steps end after this long")
parser.add_argument("--lr", type=float, nargs="+", default=[1e-4, 3e-4])
parser.add_argument("--tau", type=float, nargs="+", default=[1e-3, 3e-3])
parser.add_argument("--batch-norm", nargs="+", default=["frozen", "batch", "batch_keep_running"])
parser.add_argument("--augment", nargs="+", default=["none"])
parser.add_argument("--kl", nargs="+", default=["student_teacher"])
parser.add_argument("--kl-weight", type=float, nargs="+", default=[1.0])
options = parser.parse_args()

torch.set_num_threads(1)
spec = models.resolve_spec(options.model, weights=options.weights)
images = data.load(
    options.data, input_shape=spec.input_shape, classes=spec.classes, validation_per_class=options.validation
)
forget = images.train.of_class(options.forget)
probe_forget = images.validation.of_class(options.forget)
probe_retain = images.validation.without_class(options.forget)
if len(probe_retain) > 1800:
    probe_retain = probe_retain.select(
        np.sort(np.random.default_rng(0).choice(len(probe_retain), 1800, replace=False))
    )


def accuracy(model, state, split) -> float:
    right = 0
    for start in range(0, len(split), 300):
        x = torch.from_numpy(split.images[start : start + 300]).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            right += int(
                (model.predict(state, x).argmax(1).numpy() == split.labels[start : start + 300]).sum()
            )
    return round(100 * right / len(split), 2)


finished = (
    {json.loads(line)["trial"] for line in options.out.read_text().splitlines()}
    if options.out.exists()
    else set()
)
grid = itertools.product(
    options.lr, options.tau, options.batch_norm, options.augment, options.kl, options.kl_weight
)
for lr, tau, batch_norm, augment, kl, kl_weight in grid:
    given = {
        "lr": lr,
        "tau": tau,
        "batch_norm": batch_norm,
        "augment": augment,
        "kl": kl,
        "kl_weight": kl_weight,
        "epochs": options.epochs,
    }
    trial = json.dumps({**given, "batch": options.batch}, sort_keys=True)
    if trial in finished:
        continue
    points: list[list[float]] = []
    began: list[float] = []

    def watch(model, state, row, points=points, began=began) -> bool:
        began = began or began.append(time.monotonic()) or began
        step = int(row["step"] + row["epoch"] * -(-len(forget) // options.batch))
        if step % options.every:
            return False
        points.append(
            [
                step,
                accuracy(model, state, probe_forget),
                accuracy(model, state, probe_retain),
                round(row["density"], 4),
            ]
        )
        _, left, kept, _ = points[-1]
        return kept < 55 or left < 3 or time.monotonic() - began[0] > options.seconds

    module = models.load(spec, options.weights)
    config = methods.configure("clue", given)
    methods.get("clue").unlearn(
        module, spec, forget.images, forget.labels, config, batch=options.batch, watch=watch
    )
    with options.out.open("a") as stream:
        stream.write(json.dumps({"trial": trial, **given, "batch": options.batch, "points": points}) + "\n")
    best = next((p for p in points if p[1] <= 15), None)
    print(
        f"lr {lr} tau {tau} {batch_norm} {augment} {kl} kl_weight {kl_weight}: [step, forget, retain, "
        f"density] at forget <= 15 %: {best}",
        flush=True,
    )
