"""coremltools, imported without its noise and without the frameworks that it could convert from."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

from clue_mobile.errors import ClueError

# coremltools imports whatever of these is installed, to read its models: half a minute for nothing here
_UNREAD = ("sklearn", "libsvm", "xgboost", "tensorflow", "executorch", "torchao", "transformers", "onnx")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and warnings of coremltools from the user's terminal."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def coremltools() -> Any:
    """The package. Raises ClueError naming the extra where it is missing."""
    if "coremltools" in sys.modules and sys.modules["coremltools"] is not None:
        return sys.modules["coremltools"]
    hidden = [name for name in _UNREAD if name not in sys.modules]
    try:
        with quiet():
            for name in hidden:
                sys.modules[name] = None  # type: ignore[assignment]  # as if not installed
            return importlib.import_module("coremltools")
    except ImportError as error:
        raise ClueError(
            "the Core ML exporter needs the package coremltools: pip install 'clue-mobile[coreml]'"
        ) from error
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
