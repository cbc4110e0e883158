"""The manifest: assembled from the recipe and checked against the schema before it is written."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import clue_mobile
from clue_mobile.bundle.golden import Golden
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Recipe
from clue_mobile.programs import Traced

PATENT_NOTICE = (
    "The CLUE method is the subject of a patent application (US 2026/0148064 A1): check it before "
    "commercial use."
)
FileRow = dict[str, Any]


def versions(extra: Mapping[str, str]) -> dict[str, str]:
    """Versions that go on record."""
    import torch

    return {
        "clue_mobile": clue_mobile.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **extra,
    }


def program_entry(
    traced: Traced, golden: Golden, golden_row: FileRow, files: Mapping[str, FileRow]
) -> dict[str, Any]:
    """One program's entry: ports, cost, files by runtime, golden inputs and outputs."""
    program = traced.program
    return {
        "batch": program.batch,
        "inputs": [port.to_json() for port in program.inputs],
        "outputs": [port.to_json() for port in program.outputs],
        "flops": traced.flops,
        "peak_bytes": traced.peak_bytes,
        "files": dict(files),
        "golden": {
            "file": golden_row["file"],
            "sha256": golden_row["sha256"],
            "seed": golden.seed,
            "inputs": golden.inputs,
            "outputs": golden.outputs,
        },
    }


def assemble(
    *,
    name: str,
    target: str,
    model: FlatModel,
    method: str,
    config: Any,
    batch: int,
    tuned_batch: int,
    recipe: Recipe,
    programs: Mapping[str, Any],
    weights: FileRow,
    files: Sequence[FileRow],
    extra_versions: Mapping[str, str],
    licence: str,
) -> dict[str, Any]:
    """The manifest as JSON-able data, validated. Raises a schema error only for a mistake of ours."""
    spec = model.spec
    manifest = {
        "schema_version": 1,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": target,
        "versions": versions(extra_versions),
        "model": {
            "name": spec.model,
            "classes": list(spec.classes),
            "parameters": sum(e.numel for e in model.entries if e.kind == "parameter"),
        },
        "input": {
            "shape": list(spec.input_shape),
            "layout": "NCHW",
            "range": [0, 1],
            "color": "L" if spec.input_shape[0] == 1 else "RGB",
        },
        "preprocessing": {"mean": list(spec.mean), "std": list(spec.std), "inside_programs": True},
        "method": {
            "name": method,
            "needs_retain": False,
            "batch": batch,
            "tuned_batch": tuned_batch,
            "hyperparameters": asdict(config),
            "scalars": dict(recipe.scalars),
            "verify": {"forget_accuracy_at_most": float(config.verify_accuracy)},
        },
        "weights": weights,
        "state": [entry.to_json() for entry in model.entries],
        "values": {key: value.to_json() for key, value in recipe.values.items()},
        "randoms": {key: random.to_json() for key, random in recipe.randoms.items()},
        "programs": dict(programs),
        "plan": list(recipe.plan),
        "license": licence,
        "notices": [PATENT_NOTICE] if method == "clue" else [],
        "files": list(files),
    }
    validate(manifest)
    return manifest


def validate(manifest: Mapping[str, Any]) -> None:
    """Check a manifest against contract/manifest.schema.json; raises jsonschema.ValidationError."""
    import jsonschema

    schema = json.loads(
        resources.files("contract").joinpath("manifest.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator(schema).validate(manifest)
