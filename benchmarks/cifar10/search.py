"""Search CLUE's lr, tau, batch-norm mode and stop on validation images of CIFAR-10; test images are never opened.

Every trial is one eager run at the device's batch; each --every steps its accuracy on the validation images of the forgotten class and
of the retained classes goes to --out as one JSON line, so that one run shows every stop. Finished trials are not repeated.
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
parser.add_argument("--data", default="../shared/data/cifar10_images.zip")
parser.add_argument("--weights", type=Path, default=Path("../shared/models/resnet20_cifar10.safetensors"))
parser.add_argument("--forget", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path(__file__).with_name("search.jsonl"))
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--every", type=int, default=8)
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--seconds", type=float, default=240, help="a trial ends after this long")
parser.add_argument("--lr", type=float, nargs="+", default=[3e-5, 1e-4, 3e-4, 1e-3])
parser.add_argument("--tau", type=float, nargs="+", default=[1e-3, 3e-3])
parser.add_argument("--batch-norm", nargs="+", default=["frozen", "batch", "batch_keep_running"])
parser.add_argument("--augment", nargs="+", default=["none"])
parser.add_argument("--kl", nargs="+", default=["student_teacher"])
parser.add_argument("--kl-weight", type=float, nargs="+", default=[1.0])
options = parser.parse_args()

torch.set_num_threads(1)
spec = models.resolve_spec("resnet20", weights=options.weights)
images = data.load(options.data, input_shape=spec.input_shape, classes=spec.classes, validation_per_class=500)
forget = images.train.of_class(options.forget)
probe_forget = images.validation.of_class(options.forget)
probe_retain = images.validation.without_class(options.forget)
rng = np.random.default_rng(0)
chosen = np.sort(rng.choice(len(probe_retain), 1800, replace=False))
probe_retain = probe_retain.select(chosen)


def accuracy(model, state, split) -> float:
    right = 0
    for start in range(0, len(split), 300):
        x = torch.from_numpy(split.images[start : start + 300]).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            right += int((model.predict(state, x).argmax(1).numpy() == split.labels[start : start + 300]).sum())
    return 100 * right / len(split)


finished = {json.loads(line)["trial"] for line in options.out.read_text().splitlines()} if options.out.exists() else set()
grid = itertools.product(options.lr, options.tau, options.batch_norm, options.augment, options.kl, options.kl_weight)
for lr, tau, batch_norm, augment, kl, kl_weight in grid:
    given = {
        "lr": lr, "tau": tau, "batch_norm": batch_norm, "augment": augment, "kl": kl, "kl_weight": kl_weight, "epochs": options.epochs,
    }  # fmt: skip
    trial = json.dumps({**given, "batch": options.batch}, sort_keys=True)
    if trial in finished:
        continue
    begin, points = time.monotonic(), []

    def watch(model, state, row, begin=begin, points=points) -> bool:
        number = len(points) * options.every
        done = row["step"] + row["epoch"] * -(-len(forget) // options.batch)
        if done < number + options.every:
            return False
        points.append([int(done), accuracy(model, state, probe_forget), accuracy(model, state, probe_retain), row["density"]])
        collapsed = points[-1][2] < 55
        finished_forgetting = points[-1][1] < 2
        return collapsed or finished_forgetting or time.monotonic() - begin > options.seconds

    module = models.load(spec, options.weights)
    methods.get("clue").unlearn(
        module, spec, forget.images, forget.labels, methods.configure("clue", given), batch=options.batch, watch=watch
    )
    line = {"trial": trial, **given, "batch": options.batch, "seconds": round(time.monotonic() - begin, 1), "points": points}
    with options.out.open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    best = [p for p in points if p[1] <= 15]
    print(given, "first stop with forget validation <= 15 %:", best[:1], flush=True)
