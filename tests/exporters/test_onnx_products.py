"""The gradient of a linear layer's weights as a product, and what ONNX Runtime makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from clue_mobile.lowering import lower
from exporters import onnx_ops
from exporters.onnx import OPSET


def gradient(g: Tensor, x: Tensor) -> tuple[Tensor]:
    """[rows, o], [rows, k] -> [o, k]."""
    return (g.t() @ x,)


def product(x: Tensor, w: Tensor) -> tuple[Tensor]:
    """The transpose is on the other side."""
    return (x @ w.t(),)


@pytest.mark.parametrize(
    ("function", "left", "right", "operators"),
    [
        (gradient, (1030, 64), (1030, 32), ["Reshape", "Transpose", "Reshape", "MatMul", "Transpose"]),
        (gradient, (1030, 32), (1030, 48), ["Reshape", "Transpose", "Reshape", "MatMul"]),
        (gradient, (1030, 31), (1030, 48), ["FusedMatMul"]),
        (gradient, (1000, 64), (1000, 48), ["FusedMatMul"]),
        (product, (32, 1030), (48, 1030), ["FusedMatMul"]),
    ],
)
def test_a_long_product_is_transposed_apart(
    function: object, left: tuple[int, int], right: tuple[int, int], operators: list[str], tmp_path: Path
) -> None:
    """Also after ONNX Runtime's own rewriting, which would join the two again."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in (left, right)]
    model = onnx_ops.translate(lower(function, inputs), OPSET)  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # it warns that what it writes here is for this machine
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    (found,) = session.run(
        None, {port.name: x.numpy() for port, x in zip(session.get_inputs(), inputs, strict=True)}
    )
    (expected,) = function(*(tensor.double() for tensor in inputs))  # type: ignore[operator]
    scale = float(expected.abs().max())
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-6 * scale)
    graph = onnx.load(options.optimized_model_filepath).graph
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert [node.op_type for node in graph.node if read.intersection(node.output)] == operators
