"""LiteRT: one .tflite of builtin operators with a signature for each program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clue_mobile.errors import ClueError
from clue_mobile.lowering import DEFAULT
from clue_mobile.memory.rules import GRAPH
from clue_mobile.programs import Traced
from exporters.base import Converted, Source, Tell, tensor_names

try:
    import ai_edge_litert
    import flatbuffers

    from exporters import litert_forms, litert_graph, litert_ops
except ImportError as error:
    raise ClueError(
        "the LiteRT exporter needs the package ai-edge-litert: pip install 'clue-mobile[litert]'"
    ) from error

OVERRIDES: dict[Any, Any] = litert_forms.OVERRIDES
MEMORY = GRAPH
PASSES = DEFAULT
FLOAT16 = False
FILE = "programs.tflite"


def versions() -> dict[str, str]:
    """Versions of the packages that wrote the file."""
    return {"ai-edge-litert": ai_edge_litert.__version__, "flatbuffers": flatbuffers.__version__}


def convert(programs: Sequence[Traced], source: Source, tell: Tell) -> Converted:
    """All programs in one file; see `Exporter.convert`."""
    model = litert_graph.Model()
    # the interpreter always prepares the first one: let that be the smallest
    for traced in sorted(programs, key=lambda t: t.peak_bytes):
        tell(traced.program.name)
        inputs, outputs = tensor_names(traced)
        try:
            litert_ops.translate(model, traced.program.name, traced.graph, inputs, outputs)
        except litert_graph.UnsupportedError as error:
            raise ClueError(f"program {traced.program.name!r} cannot become LiteRT: {error}") from error
    return Converted({FILE: model.to_bytes()}, {t.program.name: FILE for t in programs})
