"""The Raspberry Pi runtime of clue-mobile: runs exported programs; needs neither torch nor clue_mobile."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pi_runtime.bundle import Bundle as Bundle
    from pi_runtime.errors import ClueError as ClueError
    from pi_runtime.runtime import Runtime as Runtime

_HOME = {
    "Bundle": "pi_runtime.bundle",
    "ClueError": "pi_runtime.errors",
    "Runtime": "pi_runtime.runtime",
}
__all__ = ["Bundle", "ClueError", "Runtime"]


def __getattr__(name: str) -> Any:
    # Loaded on use: the computer that only wants the random numbers need not have what the runtime needs.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
