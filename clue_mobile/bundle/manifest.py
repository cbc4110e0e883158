"""The manifest: assembled from the recipe and checked against the schema before it is written."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import clue_mobile
from clue_mobile import plan as plans
from clue_mobile.bundle.golden import Golden
from clue_mobile.bundle.writer import BundleWriter
from clue_mobile.flat import FlatModel
from clue_mobile.plan import Recipe
from clue_mobile.programs import Traced
from exporters.base import Converted

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


# The retain-free signal (benchmarks/collapse): images, 64 of each kind, and the percent of them on one class.
PROBES, LARGEST_SHARE = 320, 98.0


@dataclass(frozen=True)
class Guarded:
    """The guard images' file in a bundle and how many they are; the model's accuracy in percent on all images
    that they were chosen from; by how many points it may fall on them."""

    row: FileRow
    images: int
    accuracy: float
    drop_at_most: float


@dataclass(frozen=True)
class RuntimeFiles:
    """One runtime's programs inside a bundle: cost, file row and report of each, by name."""

    traced: Mapping[str, Traced]
    rows: Mapping[str, FileRow]
    reports: Mapping[str, Mapping[str, Any]]


def add_runtime(
    writer: BundleWriter, runtime: str, programs: Sequence[Traced], converted: Converted
) -> RuntimeFiles:
    """Write a runtime's files; a program that is a folder of files gets one row for it all (`folder_row`)."""
    written = [
        writer.add(f"programs/{runtime}/{path}", data) for path, data in sorted(converted.files.items())
    ]
    rows = {}
    for name, path in converted.programs.items():
        place = f"programs/{runtime}/{path}"
        found = [row for row in written if row["file"] == place]
        rows[name] = found[0] if found else folder_row(place, written)
    return RuntimeFiles({t.program.name: t for t in programs}, rows, converted.reports)


def folder_row(folder: str, rows: Sequence[FileRow]) -> FileRow:
    """The row of a folder: the SHA-256 of the lines "SHA256  PATH" of its files in the order of their paths,
    and the sum of their sizes."""
    inside = sorted((row for row in rows if row["file"].startswith(f"{folder}/")), key=lambda r: r["file"])
    lines = "".join(f"{row['sha256']}  {row['file']}\n" for row in inside)
    return {
        "file": folder,
        "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        "bytes": sum(row["bytes"] for row in inside),
    }


def program_entry(
    name: str, runtimes: Mapping[str, RuntimeFiles], golden: Golden, golden_row: FileRow
) -> dict[str, Any]:
    """One program's entry: ports, cost, files and reports by runtime, golden inputs and outputs.

    The FLOPs are those of the first runtime, the planned peak is the largest.
    """
    traced = [files.traced[name] for files in runtimes.values() if name in files.traced]
    program = traced[0].program
    return {
        "batch": program.batch,
        "inputs": [port.to_json() for port in program.inputs],
        "outputs": [port.to_json() for port in program.outputs],
        "flops": traced[0].flops,
        "peak_bytes": max(each.peak_bytes for each in traced),
        "files": {runtime: files.rows[name] for runtime, files in runtimes.items() if name in files.rows},
        "reports": {
            runtime: dict(files.reports[name]) for runtime, files in runtimes.items() if name in files.reports
        },
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
    fit: str = "stretch",
    least_images: int | None = None,
    notes: Sequence[str] = (),
    guarded: Guarded | None = None,
    kept_at_least: float | None = None,
) -> dict[str, Any]:
    """The manifest as JSON-able data, validated. Raises a schema error only for a mistake of ours."""
    spec = model.spec
    manifest = {
        "schema_version": plans.version(recipe.plan),
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
        "preprocessing": {
            "mean": list(spec.mean),
            "std": list(spec.std),
            "inside_programs": True,
            "fit": fit,
        },
        "method": {
            "name": method,
            "needs_retain": False,
            "batch": batch,
            "tuned_batch": tuned_batch,
            "hyperparameters": asdict(config),
            "scalars": dict(recipe.scalars),
            "verify": _verify(config, guarded, kept_at_least),
            **({"least_images": least_images} if least_images else {}),
        },
        "weights": weights,
        "state": [entry.to_json() for entry in model.entries],
        "values": {key: value.to_json() for key, value in recipe.values.items()},
        "randoms": {key: random.to_json() for key, random in recipe.randoms.items()},
        "programs": dict(programs),
        "plan": list(recipe.plan),
        **({"guard": {"file": guarded.row["file"], "images": guarded.images}} if guarded else {}),
        "license": licence,
        "notices": [*([PATENT_NOTICE] if method == "clue" else []), *notes],
        "files": list(files),
    }
    validate(manifest)
    return manifest


def _verify(config: Any, guarded: Guarded | None, kept_at_least: float | None) -> dict[str, Any]:
    """What the device holds new weights to."""
    found: dict[str, Any] = {"forget_accuracy_at_most": float(config.verify_accuracy)}
    if guarded is not None:
        found |= {"sample_accuracy_at_most": guarded.accuracy, "guard_drop_at_most": guarded.drop_at_most}
    if kept_at_least is not None:
        found["collapse"] = {
            "probes": PROBES,
            "kept_at_least": kept_at_least,
            "largest_share_at_most": LARGEST_SHARE,
        }
    return found


def validate(manifest: Mapping[str, Any]) -> None:
    """Check a manifest against contract/manifest.schema.json; raises jsonschema.ValidationError."""
    import jsonschema

    schema = json.loads(
        resources.files("contract").joinpath("manifest.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator(schema).validate(manifest)
