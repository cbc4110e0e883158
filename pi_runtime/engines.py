"""Which engine runs a bundle here: the one that is asked for, or the first that can."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.util import find_spec

from pi_runtime.bundle import Bundle
from pi_runtime.engine import Engine
from pi_runtime.errors import ClueError, unknown

# name in the manifest: (module, class, the package that it needs, what to install); the preferred one first
ENGINES = {
    "onnx": ("pi_runtime.onnx_engine", "OnnxEngine", "onnxruntime", "onnxruntime"),
    "litert": ("pi_runtime.litert_engine", "LitertEngine", "ai_edge_litert", "ai-edge-litert"),
    "onnx-clue": ("pi_runtime.onnx_engine", "OnnxClueEngine", "onnxruntime", "onnxruntime"),
}


def choose(bundle: Bundle, name: str | None = None, threads: int | None = None) -> Engine:
    """The engine called `name`; when None the first that is installed and that the bundle has programs for.

    Raises ClueError when there is none, saying what the bundle has and what to install.
    """
    if name is not None and name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    exported = set(bundle.programs["predict"].files)
    if name is not None and name not in exported:
        raise ClueError(
            f"bundle {bundle.root} has no {name} programs, only {_list(exported)}: "
            f"export it with --runtime {name}"
        )
    for candidate, (module, engine, package, install) in ENGINES.items():
        if name in (None, candidate) and candidate in exported:
            if not _installed(package):
                if name is None:
                    continue
                raise ClueError(
                    f"{install} is not installed, and the {name} engine needs it: pip install {install}"
                )
            made: Engine = getattr(importlib.import_module(module), engine)(threads)
            return made
    missing = [install for key, (_, _, _, install) in ENGINES.items() if key in exported]
    if missing:
        raise ClueError(f"no engine for {bundle.root} is installed: pip install {' or '.join(missing)}")
    raise ClueError(
        f"bundle {bundle.root} has programs for {_list(exported)}, and this runtime runs {_list(ENGINES)}: "
        "export it with --runtime onnx"
    )


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it stands in sys.modules as one that must not be imported
        return False


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
