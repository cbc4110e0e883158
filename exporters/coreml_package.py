"""An .mlpackage: the folder of files that Xcode and Core ML read, the same bytes at every export."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clue_mobile.errors import ClueError
from exporters import coreml_load

coremltools = coreml_load.coremltools()

_AUTHOR = "com.apple.CoreML"
_NAMES = uuid.UUID("6f1c0c3e-0d0c-5d6f-9a53-2f1d9c2a7b11")  # any: the identifiers only have to differ


def write(functions: Mapping[str, Any], minimum: str, folder: str) -> dict[str, bytes]:
    """The files of the package `folder`, by path, from functions of coremltools' builder.

    minimum: the system to run on, as coremltools calls it; more than one function needs iOS 18, and the
    first is the default. Raises ClueError where coremltools lacks its native part.
    """
    mil = coremltools.converters.mil
    if mil.backend.mil.load.BlobWriter is None:
        raise ClueError("coremltools cannot write models on this system: export on Linux or macOS")
    program = mil.mil.Program()
    for name, function in functions.items():
        program.add_function(name, function)
    program.default_function_name = next(iter(functions))
    program.export_as_multifunction = len(functions) > 1
    version = getattr(coremltools.target, minimum).value
    with coreml_load.quiet(), tempfile.TemporaryDirectory() as weights:
        # what coremltools.convert ends in, without its passes (nothing is left to fold) and its bookkeeping,
        # which take longer than all the rest
        spec = mil.backend.mil.load.load(program, weights, specification_version=version)
        blobs = {path.name: path.read_bytes() for path in sorted(Path(weights).iterdir())}
    spec.description.metadata.userDefined["com.github.apple.coremltools.version"] = coremltools.__version__
    inside = {"com.apple.CoreML/model.mlmodel": spec.SerializeToString(deterministic=True)}
    inside |= {f"com.apple.CoreML/weights/{name}": data for name, data in blobs.items()}
    files = {f"{folder}/Data/{path}": data for path, data in inside.items()}
    files[f"{folder}/Manifest.json"] = _manifest(folder, bool(blobs))
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
