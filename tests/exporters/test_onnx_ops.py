"""Every entry of the table against eager PyTorch, through ONNX Runtime, on graphs of one operator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from clue_mobile.lowering import lower
from exporters import onnx_ops
from exporters.onnx import OPSET
from exporters.onnx_graph import Builder, UnsupportedError

aten = torch.ops.aten
END = 2**63 - 1  # what tracing writes for "to the end"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = draw(2, 3, 4)
POSITIVE = draw(2, 3, 4).abs() + 0.5
IMAGE = draw(2, 4, 6, 5)
VOLUME = draw(2, 3, 4, 5, 4)
WHOLE = torch.tensor([[-3, 0, 2], [5, -1, 4]])
FLAGS = torch.tensor([[True, False, True], [False, False, True]])
LIKE = draw(2, 3, seed=1)


def pool(
    kernel: Sequence[int], stride: Sequence[int] = (), pad: Sequence[int] = (0, 0), *rest: Any
) -> list[Any]:
    return [IMAGE, list(kernel), list(stride), list(pad), *rest]


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **changed: Any) -> list[Any]:
    axes = x.dim() - 2
    options = {
        "stride": [1] * axes, "padding": [0] * axes, "dilation": [1] * axes, "transposed": False,
        "output_padding": [0] * axes, "groups": 1,
    }  # fmt: skip
    return [x, weight, bias, *{**options, **changed}.values()]


CASES: dict[Any, list[list[Any]]] = {
    aten.reshape.default: [[X, [6, 4]], [X, [-1]], [X, [2, -1, 2]], [draw(1), []], [WHOLE, [3, 2]]],
    aten.view.default: [[X, [4, 6]], [torch.tensor(2.0), [1, 1]]],
    aten.unsqueeze.default: [[X, 0], [X, -1], [torch.tensor(3.0), 0]],
    aten.squeeze.dim: [[draw(2, 1, 3), 1], [draw(2, 1, 3), -2], [X, 0]],
    aten.squeeze.dims: [[draw(1, 2, 1), [0, -1]], [draw(1, 2, 1), [0, 1]]],
    aten.transpose.int: [[X, 0, 2], [X, -1, -2], [WHOLE, 0, 1]],
    aten.t.default: [[draw(2, 3)], [draw(3)]],
    aten.permute.default: [[X, [2, 0, 1]], [X, [-1, 0, -2]]],
    aten.slice.Tensor: [
        [X, 1, 1, 3], [X, -1, -3, -1], [X, 2, 0, END, 2], [X, 2, 1, END, 3], [X, 0, None, None], [X], 
        [X, 1, -9, 2], [X, -2, 0, 99], [FLAGS, 1, 1, END],
    ],
    aten.select.int: [[X, 0, 1], [X, -1, -2], [X, 1, 0], [WHOLE, -2, 1]],
    aten.unbind.int: [[X], [X, -1], [WHOLE, 1]],
    aten.index_select.default: [[X, 1, torch.tensor([2, 0, 2])], [X, -1, torch.tensor([3])]],
    aten.flip.default: [[X, [1]], [X, [0, -1]], [WHOLE, [-2]]],
    aten.expand.default: [[draw(2, 1, 4), [2, 3, 4]], [draw(1, 4), [5, -1, -1]], [torch.tensor(1.5), [2, 2]]],
    aten.cat.default: [[[X, X]], [[X, draw(2, 3, 1)], -1], [[WHOLE, LIKE], 1], [[FLAGS, FLAGS], 0]],
    aten.constant_pad_nd.default: [
        [X, [1, 2]], [X, [1, 0, 0, 3], 2.5], [X, [-1, 1, 0, -1]], [WHOLE, [1, 1], 7],
        [X, [0, 0, 0, 0, 1, 1], -1],
    ],
    aten.convolution.default: [
        conv(IMAGE, draw(3, 4, 3, 3), draw(3)),
        conv(IMAGE, draw(6, 2, 3, 2), draw(6), stride=[2, 1], padding=[1, 0], groups=2),
        conv(IMAGE, draw(4, 1, 3, 3), padding=[2, 2], dilation=[2, 2], groups=4),
        conv(IMAGE, draw(3, 4, 3, 3), stride=[2], padding=[1], dilation=[1]),
        conv(draw(2, 3, 7), draw(2, 3, 3), draw(2), stride=[2], padding=[1]),
        conv(draw(1, 2, 4, 4, 3), draw(2, 2, 2, 2, 2)),
        conv(IMAGE, draw(4, 3, 3, 3), draw(3), transposed=True),
        conv(IMAGE, draw(4, 3, 3, 3), stride=[2, 3], padding=[1, 1], transposed=True, output_padding=[1, 2]),
        conv(IMAGE, draw(4, 3, 2, 2), draw(6), stride=[2, 2], dilation=[2, 2], transposed=True, groups=2),
        conv(draw(2, 3, 7), draw(3, 2, 4), stride=[3], transposed=True, output_padding=[2]),
    ],
    aten.mm.default: [[draw(2, 3), draw(3, 4)]],
    aten.bmm.default: [[draw(5, 2, 3), draw(5, 3, 4)]],
    aten.matmul.default: [[draw(5, 2, 3), draw(3, 4)], [draw(3), draw(3, 2)], [draw(2, 1, 3), draw(2, 3, 1)]],
    aten.addmm.default: [
        [draw(4), draw(2, 3), draw(3, 4)], [draw(2, 1), draw(2, 3), draw(3, 4)],
        [draw(2, 4), draw(2, 3), draw(3, 4), {"beta": 0.5, "alpha": -2}],
    ],
    aten.add.Tensor: [
        [X, draw(3, 1)], [X, X, {"alpha": -2}], [X, draw(4), {"alpha": 0.5}], [X, 1.5], [WHOLE, LIKE],
        [WHOLE, 0.5], [WHOLE, 3], [WHOLE, WHOLE, {"alpha": 3}], [FLAGS, LIKE], [FLAGS, WHOLE],
        [X, torch.tensor(2.0, dtype=torch.float64)],
    ],
    aten.add.Scalar: [[X, 2], [X, 1.5, 2], [WHOLE, 2], [WHOLE, 0.5], [FLAGS, 1]],
    aten.sub.Tensor: [
        [X, draw(3, 1)], [X, X, {"alpha": 3}], [LIKE, WHOLE, {"alpha": 0.5}], [X, 2], [WHOLE, 2.5],
    ],
    aten.sub.Scalar: [[X, 2], [X, 1.5, 2], [WHOLE, 0.25]],
    aten.mul.Tensor: [
        [X, draw(4)], [X, 0.5], [FLAGS, LIKE], [WHOLE, LIKE], [WHOLE, 3], [WHOLE, 0.5], [LIKE, FLAGS],
    ],
    aten.mul.Scalar: [[X, 3], [WHOLE, 1.5]],
    aten.div.Tensor: [[X, POSITIVE], [X, 4], [WHOLE, 2], [WHOLE, WHOLE + 10], [WHOLE, 0.5]],
    aten.div.Scalar: [[X, 3], [WHOLE, 2]],
    aten.rsub.Scalar: [[X, 1], [X, 1.5, 2], [WHOLE, 2, 3], [WHOLE, 0.5]],
    aten.maximum.default: [[X, draw(4)], [WHOLE, LIKE], [WHOLE, WHOLE.flip(1)]],
    aten.minimum.default: [[X, draw(3, 1)], [LIKE, FLAGS]],
    aten.gt.Scalar: [[X, 0], [X, 0.5], [WHOLE, 1.5], [WHOLE, 2]],
    aten.gt.Tensor: [[X, draw(4)], [WHOLE, LIKE]],
    aten.ge.Scalar: [[X, 0], [WHOLE, 2], [WHOLE, 1.5]],
    aten.ge.Tensor: [[WHOLE, WHOLE.flip(1)]],
    aten.lt.Scalar: [[X, -0.5], [WHOLE, -0.5]],
    aten.lt.Tensor: [[X, draw(3, 1)]],
    aten.le.Scalar: [[X, 0.5], [WHOLE, 2]],
    aten.le.Tensor: [[X, X], [LIKE, WHOLE]],
    aten.eq.Scalar: [[WHOLE, 2], [WHOLE, 2.5], [FLAGS, 1], [X, 0]],
    aten.eq.Tensor: [[WHOLE, WHOLE.flip(1)], [FLAGS, FLAGS.flip(0)], [X, X]],
    aten.ne.Scalar: [[WHOLE, 2], [WHOLE, 2.5], [X, 0]],
    aten.ne.Tensor: [[WHOLE, WHOLE.flip(1)], [FLAGS, FLAGS.flip(0)]],
    aten.logical_and.default: [[FLAGS, FLAGS.flip(0)], [FLAGS, FLAGS[:, :1]]],
    aten.logical_or.default: [[FLAGS, FLAGS.flip(1)]],
    aten.logical_not.default: [[FLAGS]],
    aten.bitwise_and.Tensor: [[FLAGS, FLAGS.flip(0)]],
    aten.bitwise_or.Tensor: [[FLAGS, FLAGS.flip(1)]],
    aten.bitwise_not.default: [[FLAGS]],
    aten.where.self: [
        [FLAGS, LIKE, -LIKE], [FLAGS, LIKE, torch.tensor(0.0)], [FLAGS, WHOLE, LIKE],
        [FLAGS[:, :1], LIKE, WHOLE],
    ],
    aten._to_copy.default: [
        [FLAGS, {"dtype": torch.float32}], [X, {"dtype": torch.int64}], [WHOLE, {"dtype": torch.float32}],
        [X, {"dtype": torch.float64}], [WHOLE, {"dtype": torch.bool}],
    ],
    aten.relu.default: [[X]],
    aten.sign.default: [[X * (X > 0)], [WHOLE]],
    aten.sgn.default: [[X * (X > 0)], [WHOLE]],
    aten.sin.default: [[X], [WHOLE]],
    aten.cos.default: [[X]],
    aten.floor.default: [[X]],
    aten.exp.default: [[X], [WHOLE]],
    aten.log.default: [[POSITIVE]],
    aten.sqrt.default: [[POSITIVE], [WHOLE * WHOLE]],
    aten.rsqrt.default: [[POSITIVE], [WHOLE * WHOLE + 1]],
    aten.reciprocal.default: [[POSITIVE], [WHOLE + 10]],
    aten.neg.default: [[X], [WHOLE]],
    aten.abs.default: [[X], [WHOLE]],
    aten.tanh.default: [[X], [WHOLE]],
    aten.sigmoid.default: [[X]],
    aten.erf.default: [[X]],
    aten.gelu.default: [[X], [X, {"approximate": "tanh"}]],
    aten.pow.Tensor_Scalar: [
        [X, 2], [X, 3], [POSITIVE, 0.5], [POSITIVE, -1], [WHOLE, 2], [WHOLE, 3], [POSITIVE, 2.0],
    ],
    aten.pow.Tensor_Tensor: [[POSITIVE, draw(4)], [POSITIVE[0, :2, :3], WHOLE]],
    aten.pow.Scalar: [[2, X], [0.5, WHOLE]],
    aten.clamp_min.default: [[X, 0.25], [X, 0], [WHOLE, 1]],
    aten.clamp_min.Tensor: [[X, draw(4)], [WHOLE, LIKE]],
    aten.clamp_max.default: [[X, 0.25], [WHOLE, 1]],
    aten.clamp_max.Tensor: [[X, torch.tensor(0.5)]],
    aten.clamp.Tensor: [[X, draw(4) - 2, draw(3, 1) + 2], [X, None, draw(4)], [X, draw(4)]],
    aten.clamp.default: [[X, -0.5, 0.5], [X, None, 0], [X, 0.1], [WHOLE, 0, 3], [WHOLE, -0.5, 2.5]],
    aten.sum.dim_IntList: [
        [X, [1]], [X, [-1, 0], True], [X, []], [X, None, True], [FLAGS, [1]], [WHOLE, [0], True],
        [torch.tensor(2.0), []], [WHOLE, [0], {"dtype": torch.float32}],
    ],
    aten.sum.default: [[X], [FLAGS], [WHOLE], [torch.tensor(2.0)]],
    aten.mean.dim: [[X, [1]], [X, [-1, -2], True], [X, None], [X, [], True]],
    aten.mean.default: [[X], [torch.tensor(2.0)]],
    aten.amax.default: [[X, [1]], [X, [-1, 0], True], [X], [X, [], True], [WHOLE, [1], True]],
    aten.amin.default: [[X, [1]], [X, [-1, 0], True], [WHOLE, [1], True]],
    aten.argmax.default: [[X, 1], [X, -1, True], [WHOLE, 0]],
    aten._softmax.default: [[X, 1, False], [X, -1, False]],
    aten._log_softmax.default: [[X, 0, False], [X, -1, False]],
    aten.max_pool2d.default: [
        pool([2, 2]), pool([3, 2], [2, 1], [1, 1]), pool([2], [3], [0]), pool([2, 2], [], [0, 0], [2, 1]),
        pool([2, 2], [2, 2], [0, 0], [1, 1], True), pool([3, 3], [2, 2], [1, 1], [1, 1], True),
        pool([2, 2], [4, 4], [1, 1], [1, 1], True),
    ],
    aten.max_pool3d.default: [
        [VOLUME, [2, 2, 2]], [VOLUME, [3], [2], [1]],
        [VOLUME, [2, 1, 2], [2, 2, 1], [1, 0, 0], [1, 1, 2], True],
    ],
    aten.avg_pool3d.default: [[VOLUME, [2, 2, 2]], [VOLUME, [3], [1], [1], False, False]],
    aten.avg_pool2d.default: [
        pool([2, 2]), pool([3, 2], [2, 1], [1, 1]), pool([3, 3], [2, 2], [1, 1], False, False),
        pool([2], [3], [0]),
    ],
    aten.native_layer_norm.default: [
        [X, [4], draw(4), draw(4, seed=1), 1e-5], [X, [3, 4], draw(3, 4), None, 1e-2],
        [X, [4], None, draw(4), 1e-5], [X, [4], None, None, 1e-6],
    ],
    aten.scalar_tensor.default: [[2.5], [3, {"dtype": torch.int64}]],
    aten.full.default: [[[2, 3], 1.5], [[], -1.0], [[2], 7, {"dtype": torch.int64}]],
    aten.full_like.default: [[X, 0.5], [WHOLE, 3]],
    aten.new_full.default: [[X, [2, 3], 0.5], [X, [], 2]],
    aten.new_ones.default: [[X, [2]], [WHOLE, [2, 2]]],
    aten.ones_like.default: [[X], [FLAGS], [torch.tensor(0.0)]],
    aten.ones.default: [[[2, 3]], [[]]],
    aten.zeros_like.default: [[X], [WHOLE]],
    aten.zeros.default: [[[2, 3]], [[2], {"dtype": torch.bool}]],
    aten.new_zeros.default: [[X, [4]], [X, []]],
    aten.empty.memory_format: [[[0]], [[2, 0]]],
    aten.new_empty.default: [[X, [0]], [X, [2, 0]]],
}  # fmt: skip


def one_op(op: Any, arguments: Sequence[Any]) -> tuple[GraphModule, list[Tensor], list[Tensor]]:
    """A graph of this one call, its inputs (the tensors among the arguments), and what eager PyTorch gives.

    Keyword arguments are a dictionary at the end.
    """
    *positional, keywords = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    graph, inputs = Graph(), []

    def node_for(value: Any) -> Any:
        if isinstance(value, Tensor):
            node = graph.placeholder(f"i{len(inputs)}")
            node.meta["val"] = value
            inputs.append(value)
            return node
        return [node_for(v) for v in value] if isinstance(value, list) else value

    args = tuple(node_for(value) for value in positional)
    expected = op(*positional, **keywords)
    call = graph.call_function(op, args, keywords)
    call.meta["val"] = expected
    results: list[Node] = [call]
    if not isinstance(expected, Tensor):
        results = [graph.call_function(operator.getitem, (call, i)) for i in range(len(expected))]
        for node, value in zip(results, expected, strict=True):
            node.meta["val"] = value
    graph.output(tuple(results))
    outputs = [expected] if isinstance(expected, Tensor) else list(expected)
    return GraphModule({}, graph), inputs, outputs


def run(graph: GraphModule, inputs: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Translate, check, and run in ONNX Runtime without its own rewriting."""
    model = onnx_ops.translate(graph, OPSET)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {""}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    given = {f"i{number}": tensor.numpy() for number, tensor in enumerate(inputs)}
    return list(session.run(None, given))


def assert_same(found: Sequence[np.ndarray[Any, Any]], expected: Sequence[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        wanted = other.detach().numpy()
        assert (one.dtype, one.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(one, wanted, rtol=2e-5, atol=2e-6)


def each_case() -> Iterator[Any]:
    for op, cases in CASES.items():
        for number, arguments in enumerate(cases):
            yield pytest.param(op, arguments, id=f"{op}-{number}")


# their other results have forms of their own: tests/exporters/test_onnx_forms.py
NORMS = {aten._native_batch_norm_legit.no_stats, aten._native_batch_norm_legit_no_training.default}


def test_there_is_a_case_for_every_entry() -> None:
    assert set(CASES) | NORMS == set(onnx_ops.TABLE)


@pytest.mark.parametrize(("op", "arguments"), list(each_case()))
def test_it_gives_what_eager_pytorch_gives(op: Any, arguments: list[Any]) -> None:
    graph, inputs, expected = one_op(op, arguments)
    assert_same(run(graph, inputs), expected)


@pytest.mark.parametrize(("op", "arguments"), [
    (aten.avg_pool2d.default, pool([2, 2], [2, 2], [0, 0], False, True, 3)),
    (aten.avg_pool2d.default, pool([2, 2], [2, 2], [0, 0], True)),
    (aten.avg_pool2d.default, [IMAGE[0], [2, 2]]),
    (aten.max_pool2d.default, [IMAGE[0], [2, 2]]),
    (aten.add.Tensor, [FLAGS, FLAGS]),
    (aten.maximum.default, [FLAGS, FLAGS]),
    (aten.gt.Tensor, [FLAGS, FLAGS]),
    (aten.logical_and.default, [WHOLE, WHOLE]),
    (aten.argmax.default, [X]),
    (aten._to_copy.default, [X, {"dtype": torch.bfloat16}]),
    (aten.cumsum.default, [X, 1]),
])  # fmt: skip
def test_what_the_table_lacks_is_said(op: Any, arguments: list[Any]) -> None:
    graph, inputs, _ = one_op(op, arguments)
    with pytest.raises(UnsupportedError):
        run(graph, inputs)


# a few whole functions, traced as a method's programs are


def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return (torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v,)


def gradient(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    loss = torch.nn.functional.conv2d(x, leaf, padding=1).relu().mean()
    return (*torch.autograd.grad(loss, [leaf]), loss.detach())


FUNCTIONS: dict[str, tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]] = {
    "scalars on the left": (lambda x: (2 - x, 1 / x, 3 * x, 1 + x), [POSITIVE]),
    "attention": (attention, [draw(2, 4, 3), draw(2, 4, 3), draw(2, 4, 3)]),
    "a gradient": (gradient, [IMAGE, draw(3, 4, 3, 3)]),
    "an input as output, and a value twice": (lambda x: (x, x + 1, x + 1), [X]),
    "a constant as output": (lambda x: (torch.ones(2, 2), x), [X]),
    "a constant of the function": (lambda x: (x * torch.arange(4.0),), [X]),
    "a mask": (lambda x, tau: ((x.abs() > tau).to(x.dtype), (x > 0).sum()), [X, torch.tensor(0.5)]),
    "split and joined": (lambda x: (torch.cat(x.unbind(1)[::-1], -1),), [X]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lowered_functions(name: str) -> None:
    function, inputs = FUNCTIONS[name]
    assert_same(run(lower(function, inputs), inputs), function(*inputs))


def test_equal_constants_are_stored_once() -> None:
    builder = Builder()
    assert builder.ints([1, 2]) == builder.ints([1, 2])
    assert builder.ints([1, 2]) != builder.ints([1, 3])
    assert builder.scalar(1, torch.float32) != builder.scalar(1, torch.int64)
    assert builder.scalar(0.0, torch.float32) != builder.scalar(-0.0, torch.float32)
    assert len(builder.constants) == 6
