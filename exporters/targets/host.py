"""The computer at hand: programs only, run by an installed clue-mobile."""

from __future__ import annotations

RUNTIMES = ("onnx",)


def payload() -> tuple[tuple[str, bytes], ...]:
    """Nothing to embed."""
    return ()
