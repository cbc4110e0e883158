"""Engines that can run a bundle's programs on this computer, one for each runtime that has one here."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

from clue_mobile.errors import ClueError, unknown
from pi_runtime import engines as device
from pi_runtime.engine import Engine
from pi_runtime.errors import MissingLibraryError

# runtime: (module, class, the package that it needs, what to install)
ENGINES = {
    **device.ENGINES,
    "executorch": (
        "clue_mobile.engines.executorch",
        "ExecutorchEngine",
        "executorch",
        "clue-mobile[executorch]",
    ),
}
# runtimes that cannot run here, and why
ELSEWHERE = {"coreml": "they run inside an app, on iOS or macOS"}


class UnavailableError(ClueError):
    """There is no engine for a runtime on this computer."""


def get(runtime: str, threads: int | None = None) -> Engine:
    """The engine for a runtime's programs.

    Raises UnavailableError saying why there is none, or naming the extra to install; ClueError, listing the
    choices, for an unknown runtime.
    """
    if runtime in ELSEWHERE:
        raise UnavailableError(f"{runtime} programs cannot run on this computer: {ELSEWHERE[runtime]}")
    if runtime not in ENGINES:
        raise unknown("runtime", runtime, {**ENGINES, **ELSEWHERE})
    module, name, package, install = ENGINES[runtime]
    if find_spec(package) is None:
        raise UnavailableError(f"{runtime} programs need {package} to run: pip install '{install}'")
    try:
        engine: Engine = getattr(importlib.import_module(module), name)(threads)
    except MissingLibraryError as error:
        raise UnavailableError(str(error)) from error
    return engine
