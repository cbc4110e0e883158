"""Signs of what is not negative become casts; all others stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from lowering_case import draw, operators
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from clue_mobile.lowering import passes

X = torch.cat([draw(40) * 4, torch.tensor([0.0, -0.0, 6.0, 5.999, 1e-310], dtype=torch.float64)])


@pytest.mark.parametrize(
    ("function", "casts"),
    [
        (lambda x: torch.sign(F.relu(x)), True),
        (lambda x: torch.sign(torch.abs(x)), True),
        (lambda x: torch.sign(torch.clamp(x, 0, 6) * (6 - torch.clamp(x, 0, 6))), True),
        (lambda x: torch.sign((torch.clamp(x, -1, 1) - -1) * (1 - torch.clamp(x, -1, 1))), True),
        (lambda x: torch.sign(torch.clamp_min(x, 0) + torch.exp(x)), True),
        (lambda x: torch.sign(x), False),
        (lambda x: torch.sign(torch.clamp(x, -1, 6)), False),
        (lambda x: torch.sign(5 - torch.clamp(x, 0, 6)), False),
        (lambda x: torch.sign(torch.clamp(x, -1, 1) - 0.5), False),
        (lambda x: torch.sign(F.relu(x) * x), False),
        (lambda x: torch.sign(torch.clamp(x, 1, 6) - 2), False),
    ],
)
def test_only_what_cannot_be_negative(function: Callable[[Tensor], Tensor], casts: bool) -> None:
    graph = passes.clean(
        make_fx(lambda x: (function(x),), tracing_mode="fake")(X), passes=[*passes.DEFAULT, "masks"]
    )
    assert torch.equal(graph(X)[0], function(X))
    assert operators(graph)["sign"] == (0 if casts else 1)
    assert operators(graph)["_to_copy"] == (2 if casts else 0)


def test_it_is_not_among_the_default_passes() -> None:
    graph = passes.clean(make_fx(lambda x: (torch.sign(F.relu(x)),), tracing_mode="fake")(X))
    assert operators(graph)["sign"] == 1
