"""Every entry of the table against eager PyTorch: saved as a package of one operator, and evaluated."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from coreml_case import assert_same, convert_one, draw, operators, run, save, traced
from mil_evaluator import Package
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.nn import functional as F

from clue_mobile.errors import ClueError
from clue_mobile.plan import Port, Program
from exporters import coreml, coreml_ops

aten = torch.ops.aten
END = 2**63 - 1  # what tracing writes for "to the end"

X = draw(2, 3, 4)
POSITIVE = draw(2, 3, 4).abs() + 0.5
IMAGE = draw(2, 4, 6, 5)
CUBE = draw(1, 2, 4, 5, 6)
WIDE = draw(2, 1, 3, 2, 1, 2)  # more axes than Core ML has
WHOLE = torch.tensor([[-3, 0, 2], [5, -1, 4]])
FLAGS = torch.tensor([[True, False, True], [False, False, True]])
LIKE = draw(2, 3, seed=1)
WHERE = torch.tensor([[2, 0], [1, 1]])


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
    aten.reshape.default: [
        [X, [6, 4]], [X, [-1]], [draw(1), []], [torch.tensor(2.0), [1, 1]], [WIDE, [6, 4]],
    ],
    aten.view.default: [[X, [4, 6]]],
    aten.unsqueeze.default: [[X, 0], [X, -1], [torch.tensor(3.0), 0]],
    aten.squeeze.dim: [[draw(2, 1, 3), 1], [X, 0]],
    aten.squeeze.dims: [[draw(1, 2, 1), [0, -1]]],
    aten.transpose.int: [[X, 0, 2], [X, -1, -2]],
    aten.t.default: [[draw(2, 3)], [draw(3)]],
    aten.permute.default: [[X, [2, 0, 1]], [X, [-1, 0, -2]], [draw(2, 1, 3, 4, 2), [4, 1, 0, 3, 2]]],
    aten.slice.Tensor: [
        [X, 1, 1, 3], [X, -1, -3, -1], [X, 2, 0, END, 2], [X, 2, 1, END, 3], [X, 0, None, None],
        [X, 1, -9, 2], [X, -2, 0, 99],
    ],
    aten.slice_scatter.default: [
        [X, draw(2, 1, 4), 1, 1, 2], [X, draw(1, 3, 4), 0, -1, END], [X, draw(2, 3, 2), -1, 0, 2],
    ],
    aten.select.int: [[X, 0, 1], [X, -1, -2], [X, 1, 0], [draw(3), 0, 2]],
    aten.expand.default: [[draw(2, 1, 4), [2, 3, 4]], [draw(1, 4), [5, -1, -1]], [torch.tensor(1.5), [2, 2]]],
    aten.cat.default: [[[X, X]], [[X, draw(2, 3, 1)], -1], [[X, X[:, :1], draw(2, 2, 4)], 1], [[X]]],
    aten.constant_pad_nd.default: [
        [X, [1, 2]], [X, [1, 0, 0, 3], 2.5], [X, [0, 0, 0, 0, 1, 1], -1], [CUBE, [0, 1, 1, 0, 2, 2]],
    ],
    aten.flip.default: [[X, [1]], [X, [-1, 0]]],
    aten.convolution.default: [
        conv(IMAGE, draw(3, 4, 3, 3), draw(3)),
        conv(IMAGE, draw(6, 2, 3, 2), draw(6), stride=[2, 1], padding=[1, 0], groups=2),
        conv(IMAGE, draw(8, 1, 3, 3), padding=[2, 2], groups=4),
        conv(IMAGE, draw(3, 4, 3, 3), stride=[2], padding=[1], dilation=[1]),
        conv(draw(2, 3, 7), draw(2, 3, 3), draw(2), stride=[2], padding=[1]),
        conv(CUBE, draw(2, 2, 2, 2, 3), draw(2), padding=[0, 1, 1], stride=[1, 2, 3]),
    ],
    aten.mm.default: [[draw(2, 3), draw(3, 4)]],
    aten.bmm.default: [[draw(5, 2, 3), draw(5, 3, 4)]],
    aten.matmul.default: [[draw(5, 2, 3), draw(3, 4)], [draw(2, 1, 3), draw(2, 3, 1)]],
    aten.addmm.default: [
        [draw(4), draw(2, 3), draw(3, 4)], [draw(2, 1), draw(2, 3), draw(3, 4)],
        [draw(2, 4), draw(2, 3), draw(3, 4), {"beta": 0.5, "alpha": -2}],
    ],
    aten.add.Tensor: [
        [X, draw(3, 1)], [X, X, {"alpha": -2}], [X, draw(4), {"alpha": 0.5}], [X, 1.5], [WHOLE, LIKE],
        [WHOLE, 0.5], [FLAGS, LIKE], [X, torch.tensor(2.0)], [torch.tensor(1.0), torch.tensor(2.0)],
        [WIDE, draw(3, 1, 1, 2)], [WIDE, WIDE],
    ],
    aten.add.Scalar: [[X, 2], [X, 1.5, 2], [WHOLE, 0.5]],
    aten.sub.Tensor: [[X, draw(3, 1)], [X, X * 2, {"alpha": 3}], [LIKE, WHOLE, {"alpha": 0.5}], [X, 2]],
    aten.sub.Scalar: [[X, 2], [X, 1.5, 2]],
    aten.mul.Tensor: [[X, draw(4)], [X, 0.5], [FLAGS, LIKE], [WHOLE, LIKE], [LIKE, FLAGS], [WIDE, 2.0]],
    aten.mul.Scalar: [[X, 3], [WHOLE, 1.5]],
    aten.div.Tensor: [[X, POSITIVE], [X, 4], [WHOLE, 2], [WHOLE, WHOLE + 10]],
    aten.div.Scalar: [[X, 3]],
    aten.rsub.Scalar: [[X, 1], [X, 1.5, 2]],
    aten.maximum.default: [[X, draw(4)], [WHOLE, LIKE]],
    aten.minimum.default: [[X, draw(3, 1)]],
    aten.gt.Scalar: [[X, 0], [X, 0.5], [WHOLE, 1.5], [WHOLE, 2]],
    aten.gt.Tensor: [[X, draw(4)], [WHOLE, LIKE]],
    aten.ge.Scalar: [[X, 0], [WHOLE, 2]],
    aten.ge.Tensor: [[X, X.flip(0)]],
    aten.lt.Scalar: [[X, -0.5]],
    aten.lt.Tensor: [[X, draw(3, 1)]],
    aten.le.Scalar: [[X, 0.5]],
    aten.le.Tensor: [[X, X], [LIKE, WHOLE]],
    aten.eq.Scalar: [[WHOLE, 2], [X, 0]],
    aten.eq.Tensor: [[X, X], [WHOLE, WHOLE.flip(1)]],
    aten.ne.Scalar: [[WHOLE, 2]],
    aten.ne.Tensor: [[X, X.flip(1)]],
    aten.logical_and.default: [[FLAGS, FLAGS.flip(1)]],
    aten.logical_or.default: [[FLAGS, FLAGS[:1]]],
    aten.logical_not.default: [[FLAGS]],
    aten.bitwise_not.default: [[FLAGS]],
    aten.where.self: [
        [FLAGS, LIKE, -LIKE], [FLAGS, LIKE, torch.tensor(0.0)], [FLAGS, WHOLE, LIKE],
        [FLAGS[:, :1], LIKE, WHOLE],
        [FLAGS, torch.tensor(1.0), torch.tensor(0.0)], [FLAGS, LIKE[:, :1], LIKE[:1]],
    ],
    aten._to_copy.default: [[FLAGS, {"dtype": torch.float32}], [WHOLE, {"dtype": torch.float32}]],
    aten.relu.default: [[X], [WIDE]],
    aten.sign.default: [[X * (X > 0)]],
    aten.exp.default: [[X]],
    aten.log.default: [[POSITIVE]],
    aten.log1p.default: [[POSITIVE]],
    aten.expm1.default: [[X]],
    aten.elu.default: [[X], [X, 0.5, 1.25, 2.0]],
    aten.sqrt.default: [[POSITIVE]],
    aten.rsqrt.default: [[POSITIVE], [POSITIVE * 1e-12]],
    aten.reciprocal.default: [[POSITIVE], [POSITIVE * 1e-6]],
    aten.neg.default: [[X]],
    aten.abs.default: [[X]],
    aten.tanh.default: [[X]],
    aten.sigmoid.default: [[X]],
    aten.erf.default: [[X]],
    aten.sin.default: [[X]],
    aten.cos.default: [[X]],
    aten.floor.default: [[X]],
    aten.ceil.default: [[X]],
    aten.gelu.default: [[X], [X, {"approximate": "tanh"}]],
    aten.pow.Tensor_Scalar: [[X, 2], [X, 3], [POSITIVE, 0.5], [POSITIVE, -1]],
    aten.pow.Tensor_Tensor: [[POSITIVE, X]],
    aten.clamp_min.default: [[X, 0.25], [X, 0]],
    aten.clamp_max.default: [[X, 0.25]],
    aten.clamp.default: [[X, -0.5, 0.5], [X, None, 0], [X, 0.1]],
    aten.sum.dim_IntList: [
        [X, [1]], [X, [-1, 0], True], [X, []], [X, None, True], [FLAGS, [1], {"dtype": torch.float32}],
        [torch.tensor(2.0), []], [WIDE, [0, 3]], [WIDE, [1, 2, 5], True],
    ],
    aten.sum.default: [[X], [torch.tensor(2.0)]],
    aten.mean.dim: [[X, [1]], [X, [-1, -2], True], [X, None], [X, [], True]],
    aten.mean.default: [[X], [torch.tensor(2.0)]],
    aten.amax.default: [[X, [1]], [X, [-1, 0], True], [X]],
    aten.amin.default: [[X, [1]], [X]],
    aten._softmax.default: [[X, 1, False], [X, -1, False]],
    aten._log_softmax.default: [[X, 0, False], [100 * X, -1, False]],
    aten.max_pool2d.default: [
        pool([2, 2]), pool([3, 2], [2, 1], [1, 1]), pool([2], [3], [0]),
        pool([2, 2], [2, 2], [0, 0], [1, 1], True), pool([3, 3], [2, 2], [1, 1], [1, 1], True),
    ],
    aten.max_pool3d.default: [[CUBE, [2, 2, 2]], [CUBE, [3], [2], [1]]],
    aten.avg_pool2d.default: [
        pool([2, 2]), pool([3, 2], [2, 1], [1, 1]), pool([3, 3], [2, 2], [1, 1], False, False),
        pool([2], [3], [0]), [IMAGE[..., :4], [2, 2], [2, 2], [0, 0], True],
    ],
    aten.avg_pool3d.default: [[CUBE, [2, 2, 3]], [CUBE, [3], [2], [1], False, False]],
    aten.var.correction: [[X, [1]], [X, [0, -1], {"correction": 0, "keepdim": True}], [X]],
    aten.var_mean.correction: [[X, [1]], [X, None, {"correction": 2}]],
    aten.native_layer_norm.default: [
        [X, [4], draw(4), draw(4, seed=1), 1e-5], [X, [3, 4], draw(3, 4), None, 1e-2],
        [X, [4], None, None, 1e-6],
    ],
    aten.native_group_norm.default: [
        [IMAGE, draw(4), draw(4, seed=1), 2, 4, 30, 2, 1e-5], [IMAGE, None, None, 2, 4, 30, 4, 1e-2],
    ],
    aten.repeat.default: [[X, [2, 1, 3]], [X, [2, 1, 1, 1]]],
    aten.embedding.default: [[draw(5, 3), WHERE]],
    aten.index_select.default: [[X, 1, torch.tensor([2, 0, 2])], [X, -1, torch.tensor([1])]],
    aten.index.Tensor: [[X, [None, WHERE]], [X, [torch.tensor([1, 0])]]],
    aten.index_put.default: [
        [draw(4, 3), [torch.tensor([2, 0, 2])], draw(3, 3), True], [draw(3), [WHERE], draw(2, 2), True],
    ],
    aten._unsafe_index_put.default: [[draw(4, 3, 2), [WHERE], draw(2, 2, 3, 2), True]],
    aten.scalar_tensor.default: [[2.5]],
    aten.full.default: [[[2, 3], 1.5], [[], -1.0]],
    aten.full_like.default: [[X, 0.5]],
    aten.ones_like.default: [[X], [torch.tensor(0.0)]],
    aten.ones.default: [[[2, 3]], [[]]],
    aten.zeros_like.default: [[X]],
    aten.zeros.default: [[[2, 3]]],
    aten.new_zeros.default: [[X, [4]], [X, []]],
}  # fmt: skip


def one_op(op: Any, arguments: Sequence[Any]) -> tuple[Program, GraphModule, list[Tensor], list[Tensor]]:
    """A program of this one call, its inputs, and what eager PyTorch gives.

    The inputs are the float tensors among the arguments, at least one; others are constants. Keyword
    arguments are a dictionary at the end.
    """
    *positional, keywords = arguments if isinstance(arguments[-1], dict) else (*arguments, {})
    graph, inputs = Graph(), []
    constants: dict[str, Tensor] = {}

    def find(value: Any) -> None:
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            inputs.append(value)
        for each in value if isinstance(value, list) else []:
            find(each)

    find(positional)
    inputs = inputs or [X]
    nodes = [graph.placeholder(f"i{number}") for number in range(len(inputs))]
    for node, value in zip(nodes, inputs, strict=True):
        node.meta["val"] = value
    order = iter(nodes)

    def node_for(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            return next(order)
        if isinstance(value, Tensor):
            constants[name := f"c{len(constants)}"] = value
            node = graph.get_attr(name)
            node.meta["val"] = value
            return node
        return [node_for(each) for each in value] if isinstance(value, list) else value

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
    given = tuple(Port(f"in{i}", "carry", tuple(t.shape)[:5], "v") for i, t in enumerate(inputs))
    made = tuple(Port(f"out{i}", "carry", tuple(t.shape)[:5], "v") for i, t in enumerate(outputs))
    return Program("p", 1, given, made, lambda: ()), GraphModule(constants, graph), inputs, outputs


def each_case() -> Iterator[Any]:
    for op, cases in CASES.items():
        for number, arguments in enumerate(cases):
            yield pytest.param(op, arguments, id=f"{op}-{number}")


def test_there_is_a_case_for_every_entry() -> None:
    assert set(CASES) == set(coreml_ops.TABLE)


@pytest.mark.parametrize(("op", "arguments"), list(each_case()))
def test_it_gives_what_eager_pytorch_gives(op: Any, arguments: list[Any], tmp_path: Path) -> None:
    program, graph, inputs, expected = one_op(op, arguments)
    if any(t.dim() > 5 for t in (*inputs, *expected)):
        pytest.skip("see test_more_axes_than_core_ml_has")
    save(coreml.package("p.mlpackage", {"main": (program, graph)}), tmp_path)
    found = run(Package(tmp_path / "p.mlpackage"), inputs)
    assert_same(found, [each.to(torch.float32) for each in expected])


MORE: dict[str, Callable[[Tensor], Tensor]] = {
    "windows": lambda x: x.permute(0, 2, 4, 1, 3, 5).reshape(-1, 12),
    "reversed": lambda x: x.permute(0, 4, 2, 1, 3, 5).reshape(4, -1).exp(),
    "sums": lambda x: (x * x).sum((1, 3)) + x.sum((0, 1, 2, 3)),
    "broadcast": lambda x: (x + x[:, :, :1, :, :1]).reshape(-1),
    "slices": lambda x: torch.cat([x[:, :, 1:], x[:, :, :1]], 2).reshape(8, -1),
    "maximum": lambda x: torch.maximum(x, x.mean((4, 5), keepdim=True)).amax(5),
}


@pytest.mark.parametrize("name", MORE)
def test_more_axes_than_core_ml_has(name: str, tmp_path: Path) -> None:
    function, x = MORE[name], draw(2, 2, 3, 2, 2, 3).reshape(8, 18)
    made = traced(lambda flat: (function(flat.reshape(2, 2, 3, 2, 2, 3)),), x)
    assert_same(run(convert_one(made, tmp_path), [x]), [function(x.reshape(2, 2, 3, 2, 2, 3))])


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.digamma(x), "the operator aten.digamma.default has no Core ML form"),
        (lambda x: x.double().sum().float(), "values of type torch.float64"),
        (
            lambda x: F.pad(x.reshape(1, 2, 1, 2, 1, 6), (1, 1, 1, 1)).sum(),
            "aten.constant_pad_nd.default of 6 axes",
        ),
        (lambda x: F.max_pool2d(x.reshape(1, 4, 6), 2), "aten.max_pool2d.default of a single image"),
    ],
)
def test_what_core_ml_lacks_is_named_with_the_program(function: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ClueError, match=f"program 'p' cannot become Core ML: {reason}"):
        convert_one(traced(lambda x: (function(x),), draw(4, 6)), tmp_path)


def test_a_port_of_too_many_axes_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ClueError, match="program 'p' cannot become Core ML: in0 has 6 axes, and 5 are the most"
    ):
        convert_one(traced(lambda x: (x.sum(),), WIDE), tmp_path)


# a few whole functions, traced as a method's programs are


def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor]:
    return (torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v,)


def gradient(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    leaf = weight.detach().clone().requires_grad_()
    loss = F.conv2d(x, leaf, padding=1).relu().mean()
    return (*torch.autograd.grad(loss, [leaf]), loss.detach())


def through(layer: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """A layer and its backward pass."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()
        y = layer(leaf)
        return (y.detach(), *torch.autograd.grad((y * y).sum(), [leaf]))

    return function


FUNCTIONS: dict[str, tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]] = {
    "scalars on the left": (lambda x: (2 - x, 1 / x, 3 * x, 1 + x), [POSITIVE]),
    "attention": (attention, [draw(2, 4, 3), draw(2, 4, 3), draw(2, 4, 3)]),
    "fused attention": (lambda q: (F.scaled_dot_product_attention(q, q, q),), [draw(2, 2, 4, 3)]),
    "a gradient": (gradient, [IMAGE, draw(3, 4, 3, 3)]),
    "a constant of the function": (lambda x: (x * torch.arange(4.0),), [X]),
    "a long constant": (lambda x: (x * torch.linspace(0, 1, 48).reshape(2, 6, 4),), [draw(2, 6, 4)]),
    "a mask": (lambda x, tau: ((x.abs() > tau).to(x.dtype), (x > 0).float().sum()), [X, torch.tensor(0.5)]),
    "split and joined": (lambda x: (torch.cat(x.unbind(1)[::-1], -1),), [X]),
    "layer norm": (through(lambda x: F.layer_norm(x, [4])), [X]),
    "group norm": (through(lambda x: F.group_norm(x, 2)), [IMAGE]),
    "gelu": (through(F.gelu), [X]),
    "silu": (through(F.silu), [X]),
    "hardswish": (through(F.hardswish), [3 * X]),
    "softmax": (through(lambda x: x.softmax(1)), [X]),
    "pooling": (through(lambda x: F.max_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 2)), [draw(2, 2, 6, 6)]),
    "global pooling": (through(lambda x: F.adaptive_avg_pool2d(x, 1)), [IMAGE]),
    "uneven pooling": (through(lambda x: F.adaptive_avg_pool2d(x, (4, 3))), [IMAGE]),
    "a table looked up": (through(lambda x: x[WHERE.reshape(-1)].reshape(2, 2, 4)), [draw(3, 4)]),
    "rolled": (lambda x: (x.roll(1, 1),), [X]),
    "repeated": (lambda x: (x.repeat(2, 1, 3),), [X]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_lowered_functions(name: str, tmp_path: Path) -> None:
    function, inputs = FUNCTIONS[name]
    assert_same(run(convert_one(traced(function, *inputs), tmp_path), inputs), function(*inputs), rtol=1e-4)


def test_a_transposed_operand_is_a_flag_of_the_product(tmp_path: Path) -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x @ y.t(), x.t() @ y

    package = convert_one(traced(function, draw(2, 3), draw(2, 3)), tmp_path)
    assert operators(package) == ["matmul", "matmul"]
    assert_same(run(package, [draw(2, 3), draw(2, 3)]), function(draw(2, 3), draw(2, 3)))


def test_a_transposed_term_stays(tmp_path: Path) -> None:
    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return (torch.addmm(x.t(), y, y),)

    inputs = draw(2, 2), draw(2, 2, seed=1)
    package = convert_one(traced(function, *inputs), tmp_path)
    assert operators(package) == ["transpose", "matmul", "add"]
    assert_same(run(package, inputs), function(*inputs))


def test_a_transpose_that_others_read_too_stays(tmp_path: Path) -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return x @ x.t(), x.t() + 1

    package = convert_one(traced(function, draw(2, 3)), tmp_path)
    assert operators(package) == ["transpose", "matmul", "add"]
    assert_same(run(package, [draw(2, 3)]), function(draw(2, 3)))
