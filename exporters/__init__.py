"""Exporters: one file a runtime. A missing optional package is an error only for the exporter that needs
it."""

from __future__ import annotations

import importlib
from typing import cast

from clue_mobile.errors import unknown
from exporters.base import Exporter

EXPORTERS = {
    "onnx": "exporters.onnx",
    "onnx-clue": "exporters.onnx_clue",
    "executorch": "exporters.executorch",
    "executorch-joint": "exporters.executorch_joint",
    "litert": "exporters.litert",
    "coreml": "exporters.coreml",
}
# Runtimes that have no files for the plan's programs, so they only come on top of others.
ADDITIONS = frozenset({"executorch-joint"})


def get(name: str) -> Exporter:
    """The exporter called `name`; raises ClueError listing the choices, or naming the extra to install."""
    if name not in EXPORTERS:
        raise unknown("runtime", name, EXPORTERS)
    return cast(Exporter, importlib.import_module(EXPORTERS[name]))
