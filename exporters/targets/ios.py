"""iOS: Core ML packages, one ExecuTorch file for the stock Swift binding, and ONNX programs."""

from __future__ import annotations

RUNTIMES = ("coreml", "executorch", "onnx")


def payload() -> tuple[tuple[str, bytes], ...]:
    """Nothing to embed: an app runs the programs by the stock bindings and follows contract/plan.md."""
    return ()
