"""Android: one ExecuTorch file for the stock Kotlin binding, ONNX programs for ONNX Runtime's."""

from __future__ import annotations

RUNTIMES = ("executorch", "onnx")


def payload() -> tuple[tuple[str, bytes], ...]:
    """Nothing to embed: an app runs the programs by the stock bindings and follows contract/plan.md."""
    return ()
