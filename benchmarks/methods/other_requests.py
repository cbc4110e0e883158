"""Item 6 of the study: sequential requests, some images of a class, a backdoor; tables of each.

python other_requests.py run --kind sequential --classes 3,5,8 --methods ga,clue --seeds 3 --out DIR
python other_requests.py table --out DIR

A line of DIR/results.jsonl is one method with one seed through all requests. `run` does those that are not
there yet; `table` writes DIR/table.md of all that are. Weights are trained once, into DIR/weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from forget_sets import KINDS, Scenario
from requests_table import table
from torch import nn

from clue_mobile import data, methods, models
from clue_mobile.cli.common import class_label, settings
from clue_mobile.data import Dataset, Split
from clue_mobile.errors import ClueError
from clue_mobile.evaluate.eager import predictor
from clue_mobile.models.weights import write_atomic
from clue_mobile.spec import ModelSpec
from clue_mobile.study import compare, defaults
from clue_mobile.study.original import train_once
from clue_mobile.study.results import Results
from clue_mobile.study.tasks import ORIGINAL, RETRAIN, data_identity
from pi_runtime.files import sha256_file

Row = dict[str, Any]
SHARES = {"sequential": 1.0, "samples": 0.1, "backdoor": 0.05}


def run(options: argparse.Namespace) -> None:
    """Do what is still to do. A method that refuses is a row with its reason, tried again next time."""
    torch.set_num_threads(options.threads)
    spec = models.resolve_spec(options.model, weights=options.weights)
    dataset = data.load(
        options.data,
        input_shape=spec.input_shape,
        classes=spec.classes,
        validation_per_class=options.validation,
    )
    if options.kind == "backdoor" and options.weights:
        raise ClueError("--weights: the backdoor's original is trained on the poisoned images; leave it out")
    given = {
        **defaults.embedded(spec),
        **(defaults.read(options.hyperparameters) if options.hyperparameters else {}),
    }
    chosen = [
        name
        for name in compare.choose(options.methods, given)
        if name.partition(":")[0] not in methods.BLOCKS
    ]
    training = compare.training_of(spec, settings(options.training))
    classes = [class_label(word.strip(), spec.classes) for word in options.classes.split(",")]
    share = SHARES[options.kind] if options.share is None else options.share
    results = Results(options.out)
    with results.opened():
        for seed in range(options.seeds):
            scenario = KINDS[options.kind](dataset, classes, share, seed)
            original = options.weights or trained(
                spec, dataset, scenario.train, {**training, "seed": 0}, options.out
            )
            for name in [ORIGINAL, *([] if options.no_retrain else [RETRAIN]), *chosen]:
                method, _, variant = name.partition(":")
                fields = defaults.fields_of(name, given) if name in chosen else {}
                batch = fields.pop("batch", 256)
                config = {ORIGINAL: dict, RETRAIN: lambda: training}.get(
                    method, lambda m=method, f=fields: asdict(methods.configure(m, f))
                )()
                row = {
                    "kind": options.kind, "classes": [spec.classes[k] for k in classes], "share": share,
                    "method": method, "variant": variant, "config": config, "batch": batch, "seed": seed,
                    "model": spec.model, "weights": sha256_file(original),
                    "data": data_identity(dataset, spec),
                }  # fmt: skip
                row["key"] = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]
                if results.latest().get(row["key"], {}).get("status") == "done":
                    continue
                row["title"] = methods.get(method).TITLE + (f" ({variant})" if variant else "")
                row["source"] = options.data
                try:
                    row |= {
                        "states": states(row, scenario, spec, dataset, original, options.out),
                        "status": "done",
                    }
                except ClueError as error:
                    row |= {"status": "failed", "reason": str(error)}
                results.add(row)
                last = row["states"][-1]["scores"] if "states" in row else row["reason"]
                print(f"{options.kind}, seed {seed}, {name}: {last}", file=sys.stderr, flush=True)


def states(
    row: Row, scenario: Scenario, spec: ModelSpec, dataset: Dataset, original: Path, out: Path
) -> list[Row]:
    """What the model scores before (of `original`) or after each request, and what each request took."""
    module = models.load(spec, original)
    if row["method"] == ORIGINAL:
        return [{"after": "", "scores": measured(scenario, module, spec, 0), "wall_s": None, "steps": 0}]
    found = []
    for count, request in enumerate(scenario.requests, 1):
        began, log = time.perf_counter(), list[dict[str, float]]()
        if row["method"] == RETRAIN:
            path = trained(spec, dataset, request.retain, {**row["config"], "seed": row["seed"] + 1}, out)
            module = models.load(spec, path)
        else:
            method, forget = methods.get(row["method"]), request.forget
            log = method.unlearn(
                module,
                spec,
                forget.images,
                forget.labels,
                methods.configure(row["method"], row["config"]),
                seed=row["seed"],
                batch=row["batch"],
                retain=methods.Samples(request.retain.images, request.retain.labels),
            )
        wall = time.perf_counter() - began
        scores = measured(scenario, module, spec, count)
        found.append({"after": request.name, "scores": scores, "wall_s": wall, "steps": len(log)})
    return found


def measured(scenario: Scenario, module: nn.Module, spec: ModelSpec, count: int) -> dict[str, float]:
    """The scenario's columns for a module after so many requests."""
    return {name: float(value) for name, value in scenario.measure(predictor(module, spec), count).items()}


def trained(spec: ModelSpec, dataset: Dataset, split: Split, config: Mapping[str, Any], out: Path) -> Path:
    """Weights trained on the split, once, in the folder of results."""
    images = replace(dataset, train=split)
    text = json.dumps([spec.model, data_identity(images, spec, ("train",)), dict(config)], sort_keys=True)
    path = out / "weights" / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    train_once(spec, images, {**config, "exclude_class": None}, path)
    return path


def main(words: Sequence[str] | None = None) -> None:
    """The commands above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    ran, shown = commands.add_parser("run"), commands.add_parser("table")
    for each in (ran, shown):
        each.add_argument("--out", type=Path, required=True)
    ran.add_argument("--kind", choices=KINDS, required=True)
    ran.add_argument("--model", default="digits_cnn")
    ran.add_argument("--data", default="digits")
    ran.add_argument("--weights", type=Path, help="the original's [default: trained first]")
    ran.add_argument("--classes", default="3", help="names or indices, in the order of the requests")
    ran.add_argument("--methods", default="ga,rl,be,bs,lu,unsir,clue,ssd")
    ran.add_argument("--hyperparameters", type=Path)
    ran.add_argument("--training", action="append", default=[], help="NAME=VALUE, as compare takes it")
    ran.add_argument("--share", type=float, help="of the images [default: samples 0.1, backdoor 0.05]")
    ran.add_argument("--no-retrain", action="store_true", help="leave the retrained reference out")
    ran.add_argument("--validation", type=int)
    ran.add_argument("--seeds", type=int, default=1)
    ran.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(words)
    try:
        if options.command == "run":
            run(options)
        rows = Results(options.out).rows()
        if not rows:
            raise ClueError(f"there are no results in {options.out}: `run` comes first")
        write_atomic(options.out / "table.md", table(rows).encode())
    except ClueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
