"""An .mlpackage: the folder of files that Xcode and Core ML read, the same bytes at every export."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporters import coreml_load

coremltools = coreml_load.coremltools()

_DATE = "com.github.apple.coremltools.conversion_date"
_AUTHOR = "com.apple.CoreML"
_NAMES = uuid.UUID("6f1c0c3e-0d0c-5d6f-9a53-2f1d9c2a7b11")  # any: the identifiers only have to differ


def write(functions: Mapping[str, Any], minimum: str, folder: str) -> dict[str, bytes]:
    """The files of the package `folder`, by path, from functions of coremltools' builder.

    minimum: the system to run on, as coremltools calls it; more than one function needs iOS 18, and the
    first is the default.
    """
    from coremltools.converters.mil import mil

    program = mil.Program()
    for name, function in functions.items():
        program.add_function(name, function)
    program.skip_all_passes = True  # nothing is left to fold, and they take longer than all the rest
    program.default_function_name = next(iter(functions))
    program.export_as_multifunction = len(functions) > 1
    with coreml_load.quiet():
        model = coremltools.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            minimum_deployment_target=getattr(coremltools.target, minimum),
            compute_precision=coremltools.precision.FLOAT32,
            compute_units=coremltools.ComputeUnit.CPU_ONLY,
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,  # which only macOS can do
        )
    spec = model.get_spec()
    spec.description.metadata.userDefined.pop(_DATE, None)
    inside = {"com.apple.CoreML/model.mlmodel": spec.SerializeToString(deterministic=True)}
    if model.weights_dir is not None:
        for path in sorted(Path(model.weights_dir).iterdir()):
            inside[f"com.apple.CoreML/weights/{path.name}"] = path.read_bytes()
    files = {f"{folder}/Data/{path}": data for path, data in inside.items()}
    files[f"{folder}/Manifest.json"] = _manifest(folder, any("/weights/" in path for path in inside))
    return files


def _manifest(folder: str, weights: bool) -> bytes:
    """What lies where in the package. Apple's own tools draw the identifiers; here they follow the names."""
    items = [("model.mlmodel", "CoreML Model Specification")]
    if weights:
        items.append(("weights", "CoreML Model Weights"))
    entries = {
        str(uuid.uuid5(_NAMES, f"{folder}/{name}")): {
            "author": _AUTHOR,
            "description": description,
            "name": name,
            "path": f"{_AUTHOR}/{name}",
        }
        for name, description in items
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": next(iter(entries)),
    }
    return json.dumps(manifest, indent=4).encode()
