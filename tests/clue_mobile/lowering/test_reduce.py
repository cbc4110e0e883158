"""Statistics, norms, running sums and products in fewer operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import Apply, check, draw, examples, operators
from torch import Tensor, nn

PLAIN = {
    "add", "sub", "mul", "div", "neg", "mean", "sum", "amax", "sqrt", "exp", "log", "reshape", "expand",
    "permute", "mm", "bmm", "sign", "abs", "argmax", "where", "eq", "pow", "rsqrt", "slice", "cat", "flip",
    "reciprocal", "maximum", "clamp_min", "logical_and", "ge", "gt", "lt", "ne", "_to_copy", "select",
    "constant_pad_nd",
}  # fmt: skip


@examples(max_examples=12)
@given(
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=4),
    axes=st.sets(st.integers(0, 3), min_size=1),
    correction=st.integers(0, 1),
    keep=st.booleans(),
    kind=st.sampled_from(["var", "std", "var_mean"]),
)
def test_variance(shape: list[int], axes: set[int], correction: int, keep: bool, kind: str) -> None:
    over = sorted({axis % len(shape) for axis in axes})

    def function(x: Tensor) -> Tensor:
        if kind == "var_mean":
            var, mean = torch.var_mean(x, over, correction=correction, keepdim=keep)
            return var * mean
        return getattr(x, kind)(over, correction=correction, keepdim=keep)

    assert set(operators(check(Apply(function), *shape))) <= PLAIN


@examples(max_examples=8)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    dim=st.integers(0, 2),
    order=st.sampled_from([1, 2, float("inf")]),
    keep=st.booleans(),
)
def test_vector_norm(shape: list[int], dim: int, order: float, keep: bool) -> None:
    dim %= len(shape)
    check(Apply(lambda x: torch.linalg.vector_norm(x, order, dim, keep)), *shape)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": lambda x: F.normalize(x, dim=-1),
    "logsumexp": lambda x: x.logsumexp(1),
    "logsumexp of two axes": lambda x: x.logsumexp((0, 2), keepdim=True),
    "cumsum": lambda x: x.cumsum(1) + x.cumsum(-1),
    "baddbmm": lambda x: torch.baddbmm(x[:, :, :3], x, x.transpose(1, 2), beta=0.5, alpha=2),
    "mv and dot": lambda x: torch.mv(x[0], x[1, 0]) * torch.dot(x[0, 0], x[1, 1]),
    "addcmul": lambda x: torch.addcmul(x, x, x.cos().detach() * 0 + 2, value=0.5),
    "masked_fill": lambda x: x.masked_fill(torch.eye(3, 4).bool(), -1e4),
    "masked_fill in place": lambda x: (x * 2).masked_fill_(torch.eye(3, 4).bool(), 0.5),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    assert set(operators(check(Apply(FUNCTIONS[name]), 2, 3, 4))) <= PLAIN | {"cos"}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("old", [False, True])
@examples(max_examples=10)
@given(kind=st.sampled_from(["linear", "conv"]), dim=st.sampled_from([0, -1]), bias=st.booleans())
def test_weight_norm(old: bool, kind: str, dim: int, bias: bool) -> None:
    layer: nn.Module = nn.Linear(3, 4, bias) if kind == "linear" else nn.Conv2d(3, 4, 2, bias=bias)
    norm = torch.nn.utils.weight_norm if old else torch.nn.utils.parametrizations.weight_norm
    shape = (2, 3) if kind == "linear" else (2, 3, 4, 3)
    dim = dim % (2 if kind == "linear" else 4)
    graph = check(norm(layer, dim=dim), *shape)
    assert "_weight_norm_interface" not in operators(graph)


@examples(max_examples=10)
@given(width=st.integers(1, 4), outer=st.integers(1, 3))
def test_tied_weights_get_the_sum_of_both_gradients(width: int, outer: int) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))

    graph = check(Tied(), outer, width)
    assert len([n for n in graph.graph.nodes if n.op == "placeholder"]) == 2 + 3


def test_constants_do_not_depend_on_the_order_of_axes() -> None:
    check(Apply(lambda x: x.std((2, 0)) + x.var((-1, 0))), 2, 3, 4, source=lambda *s: draw(*s) + 3)
