"""Runs that collapse and runs that do not: what the retain-free signal of pi_runtime/probes.py says of them.

CLUE in eager PyTorch forgets a class of CIFAR-10 with few images, at a rate that ruins the model and at one
that does not. At some steps: UA (accuracy on the forget images), RA (on 200 validation images of each other
class), the signal, and what 8 guard images of each other class would show. A line of JSON for each such step
goes to --out; a run whose lines are there is not repeated. `--table` prints what is in --out, and how each
limit would have decided.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data", help="folder or archive of the CIFAR-10 images")
parser.add_argument("--weights", type=Path)
parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.jsonl"))
parser.add_argument("--classes", type=int, nargs="+", default=[0, 3, 8, 5])
parser.add_argument("--images", type=int, nargs="+", default=[256, 512, 1024], help="taken in turn")
parser.add_argument("--lr", type=float, nargs="+", default=[0.01, 0.001])
parser.add_argument("--batch-norm", nargs="+", default=["frozen", "batch"])
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--probes", type=int, default=320)
parser.add_argument("--table", action="store_true")
options = parser.parse_args()

# Steps at which to measure: with the running statistics fixed a model collapses sooner.
OTHERS, GUARD = 200, 8
STEPS = {
    ("frozen", True): (1, 2, 4),
    ("frozen", False): (3, 5, 8),
    ("batch", True): (4, 8, 12),
    ("batch", False): (10, 16, 24),
}


def rows() -> list[dict[str, Any]]:
    if not options.out.exists():
        return []
    return [json.loads(line) for line in options.out.read_text().splitlines()]


def table() -> None:
    found = sorted(rows(), key=lambda row: row["ra"] - row["ra_before"])
    columns = ("class", "images", "lr", "batch_norm", "step", "ua", "ra_before", "ra", "kept")
    columns += ("largest_share_after", "guard_drop")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in found:
        print(f"| {' | '.join(str(row[name]) for name in columns)} |")
    half = [row for row in found if row["ra"] < row["ra_before"] / 2]
    fine = [row for row in found if row["ra"] >= row["ra_before"] - 10]
    print(
        f"\nRefused of the {len(half)} that lost more than half of RA, and of the {len(fine)} that lost "
        "at most 10 points:"
    )
    for limit in range(10, 55, 5):
        refused = [sum(row["kept"] < limit for row in some) for some in (half, fine)]
        print(f"- kept below {limit} %: {refused[0]}, {refused[1]}")
    for limit in (10, 15, 20, 25, 30):
        refused = [sum(row["guard_drop"] > limit for row in some) for some in (half, fine)]
        print(f"- guard images lost more than {limit} points: {refused[0]}, {refused[1]}")
    if half and fine:
        for name, of_half, of_fine in (("kept", max, min), ("guard_drop", min, max)):
            values = [[row[name] for row in some] for some in (half, fine)]
            print(f"- {name}: nearest of the former {of_half(values[0])}, of the latter {of_fine(values[1])}")


def run_all() -> None:
    import torch

    from clue_mobile import data, methods, models
    from clue_mobile.flat import FlatModel
    from pi_runtime import probes

    torch.set_num_threads(1)
    spec = models.resolve_spec("resnet20", weights=options.weights)
    images = data.load(
        options.data, input_shape=spec.input_shape, classes=spec.classes, validation_per_class=500
    )
    clue = methods.get("clue")

    def logits(model: Any, state: Mapping[str, Any], x: Any) -> Any:
        parts = []
        for start in range(0, len(x), 128):
            batch = torch.from_numpy(np.ascontiguousarray(x[start : start + 128])).permute(0, 3, 1, 2)
            with torch.no_grad():
                parts.append(model.predict(state, batch.float() / 255).numpy())
        return np.concatenate(parts)

    def right(model: Any, state: Mapping[str, Any], x: Any, y: Any) -> Any:
        return 100.0 * (logits(model, state, x).argmax(1) == y)

    guard = np.arange(9 * OTHERS) % OTHERS < GUARD

    done = {row["run"] for row in rows()}
    sizes = itertools.cycle(options.images)
    jobs = [(label, n) for label, n in zip(options.classes, sizes, strict=False)]
    for (label, n), lr, batch_norm in itertools.product(jobs, options.lr, options.batch_norm):
        given = {"lr": lr, "tau": 0.003, "epochs": 1000, "batch_norm": batch_norm}
        about = {"class": label, "images": n, "seed": options.seed, "batch": options.batch, "lr": lr}
        about |= {"batch_norm": batch_norm, "probes": options.probes}
        name = json.dumps(about, sort_keys=True)
        if name in done:
            continue
        forget = images.train.of_class(label).images[options.seed * 1000 :][:n]
        others = [images.validation.of_class(k) for k in range(spec.num_classes) if k != label]
        kept_x = np.concatenate([other.images[:OTHERS] for other in others])
        kept_y = np.concatenate([other.labels[:OTHERS] for other in others])
        module = models.load(spec, options.weights)
        model = FlatModel(module, spec)
        made = probes.make(forget, options.seed, options.probes)
        before = logits(model, model.pack(), made)
        right_before = right(model, model.pack(), kept_x, kept_y)
        steps = STEPS[batch_norm, lr >= 0.003]
        lines: list[str] = []
        count = itertools.count(1)

        def watch(
            model: Any,
            state: Mapping[str, Any],
            row: Any,
            *,
            label: int = label,
            forget: Any = forget,
            kept: Any = (kept_x, kept_y),
            made: Any = made,
            before: Any = before,
            right_before: Any = right_before,
            steps: Any = steps,
            lines: list[str] = lines,
            count: Any = count,
            name: str = name,
            about: Any = about,
        ) -> bool:
            step = next(count)
            if step not in steps:
                return False
            now = right(model, state, *kept)
            ra, ra_before = float(now.mean()), float(right_before.mean())
            found = probes.compare(before, logits(model, state, made), [label])
            ua = float(right(model, state, forget[:256], label).mean())
            figures = {"step": step, "ua": round(ua, 2), "ra_before": round(ra_before, 2), "ra": round(ra, 2)}
            shares = {key: round(getattr(found, key), 2) for key in ("kept", "largest_share_before")}
            shares["largest_share_after"] = round(found.largest_share_after, 2)
            shares["guard_drop"] = round(float(right_before[guard].mean() - now[guard].mean()), 2)
            lines.append(json.dumps({"run": name, **about, **figures, **shares}))
            print(name, figures, shares, flush=True)
            return step == steps[-1] or ra < 13

        clue.unlearn(
            module,
            spec,
            forget,
            np.full(len(forget), label),
            methods.configure("clue", given),
            seed=options.seed,
            batch=options.batch,
            watch=watch,
        )
        with options.out.open("a") as stream:
            stream.write("".join(f"{line}\n" for line in lines))


if options.table:
    table()
else:
    run_all()
