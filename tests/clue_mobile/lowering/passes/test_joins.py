from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lowering_case import draw, operators
from torch import Tensor, nn

from clue_mobile.lowering import lower, passes

WITHOUT = [name for name in passes.PASSES if name != "joins"]


def check(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> Counter[str]:
    """The operators of the graph, which computes the same with and without the pass."""
    graph = lower(function, inputs, passes=list(passes.PASSES))
    for got, plain, want in zip(
        graph(*inputs), lower(function, inputs, passes=WITHOUT)(*inputs), function(*inputs), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
        torch.testing.assert_close(got, plain, rtol=0, atol=1e-12)
    return Counter(operators(graph))


def test_the_gradient_of_pieces_is_joined() -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        leaf = x.detach().clone().requires_grad_()
        a, b, c = leaf.split([2, 3, 1], dim=1)
        return torch.autograd.grad((a.square().sum() + b.exp().sum() + (2 * c).sum()), [leaf])

    found = check(function, draw(4, 6, 5))
    assert found["constant_pad_nd"] == 0
    assert found["cat"] == 1


def test_attention_s_are_joined_where_they_are_read() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double()
    parameters = dict(attention.named_parameters())

    def function(x: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        leaves = {n: t.detach().clone().requires_grad_() for n, t in zip(parameters, given, strict=True)}
        out, _ = torch.func.functional_call(attention, leaves, (x, x, x), {"need_weights": False})
        return torch.autograd.grad(out.square().sum(), list(leaves.values()))

    inputs = [draw(3, 5, 8), *(p.detach() for p in parameters.values())]
    plain = Counter(operators(lower(function, inputs, passes=WITHOUT)))
    found = check(function, *inputs)
    assert plain["constant_pad_nd"] == 3
    assert found["constant_pad_nd"] == 0
    assert found["permute"] < plain["permute"]  # the pieces are joined in the order that is read


@pytest.mark.parametrize("function", [
    lambda x: (F.pad(x, (0, 2)) + F.pad(x, (1, 1)),),  # they lie over each other
    lambda x: (F.pad(x, (0, 4)) + F.pad(x, (4, 0)),),  # a gap, in which there are zeros
    lambda x: (F.pad(x, (0, 3), value=1.0) + F.pad(x, (3, 0)),),
    lambda x: (F.pad(x, (0, 3, 0, 2)) + F.pad(x, (3, 0, 2, 0)),),  # along two axes
    lambda x: (F.pad(x, (0, 3)) + F.pad(x, (3, 0)) + 1, F.pad(x, (0, 3)) * 2),
], ids=["overlap", "gap", "ones", "two axes", "read elsewhere"])  # fmt: skip
def test_other_sums_stay_what_they_are(function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
    assert check(function, draw(2, 4, 3))["cat"] == 0
