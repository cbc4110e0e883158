"""Pooling: where windows overlap, reach over the edge or tie, gradients go where autograd sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from lowering_case import Apply, check, draw, draw_ties, examples, operators
from torch import Tensor, nn


@st.composite
def pools(draw: Any, with_dilation: bool) -> tuple[dict[str, Any], tuple[int, int]]:
    """Arguments of a pooling layer, and an image size that it takes."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = draw(st.integers(1, 2)) if with_dilation else 1
    stride = draw(st.sampled_from([None, 1, 2, 3, (1, 2), (3, 1)]))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, dilation * (k - 1) + 1 - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    size = (least[0] + draw(st.integers(0, 4)), least[1] + draw(st.integers(0, 4)))
    arguments = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "ceil_mode": draw(st.booleans()),
    }
    return (arguments | {"dilation": dilation} if with_dilation else arguments), size


def after_relu(*shape: int) -> Tensor:
    """Half of the elements exactly zero, so that many windows tie at zero."""
    return draw(*shape).relu()


@pytest.mark.parametrize("source", [draw, draw_ties, after_relu])
@examples(max_examples=10)
@given(pool=pools(with_dilation=True))
def test_max_pooling(source: Callable[..., Tensor], pool: tuple[dict[str, Any], tuple[int, int]]) -> None:
    layer = nn.MaxPool2d(**pool[0])
    assume(layer(source(2, 2, *pool[1])).isfinite().all())  # else a window saw padding alone
    graph = check(layer, 2, 2, *pool[1], source=source)
    assert operators(graph)["max_pool2d"] == 1
    assert operators(graph)["max_pool2d_with_indices"] == 0


@examples(max_examples=25)
@given(pool=pools(with_dilation=False), include=st.booleans(), divisor=st.sampled_from([None, None, 5]))
def test_average_pooling(
    pool: tuple[dict[str, Any], tuple[int, int]], include: bool, divisor: int | None
) -> None:
    check(nn.AvgPool2d(**pool[0], count_include_pad=include, divisor_override=divisor), 2, 2, *pool[1])


@examples(max_examples=20)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    out=st.tuples(st.sampled_from([None, 1, 2, 3, 5]), st.sampled_from([None, 1, 2, 3, 5])),
)
def test_adaptive_average_pooling(size: tuple[int, int], out: tuple[Any, Any]) -> None:
    check(nn.AdaptiveAvgPool2d(out), 2, 3, *size)


def test_adaptive_pooling_needs_constants_only_where_it_does_not_divide() -> None:
    assert operators(check(nn.AdaptiveAvgPool2d(1), 2, 3, 4, 6))["mean"] == 1
    assert operators(check(nn.AdaptiveAvgPool2d((2, 3)), 2, 3, 4, 6))["avg_pool2d"] == 1
    assert operators(check(nn.AdaptiveAvgPool2d((3, 4)), 2, 3, 4, 6))["mm"] == 4


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.MaxPool1d(3, 2, 1), (2, 3, 8)),
        (nn.AvgPool1d(3, 2, 1), (2, 3, 8)),
        (nn.AdaptiveAvgPool1d(3), (2, 3, 7)),
        (nn.MaxPool3d(2, ceil_mode=True), (2, 2, 3, 4, 5)),
        (nn.AvgPool3d((2, 3, 2), 2, 1, count_include_pad=False), (2, 2, 4, 5, 4)),
        (nn.MaxPool2d(2), (3, 4, 6)),  # no batch axis
        (nn.LPPool2d(2, 2), (2, 3, 4, 4)),
        (Apply(lambda x: F.avg_pool2d(x, x.shape[-2:])), (2, 3, 5, 4)),
        # channels last, for which PyTorch sets the strides of a global mean
        (Apply(lambda x: F.adaptive_avg_pool2d((x * 2).permute(0, 3, 1, 2), 1)), (2, 3, 4, 5)),
    ],
)
def test_other_forms(module: nn.Module, shape: tuple[int, ...]) -> None:
    check(module, *shape)


def test_windows_that_do_not_overlap_cost_no_additions() -> None:
    assert operators(check(nn.MaxPool2d(2), 2, 3, 4, 4))["add"] == 0
    assert operators(check(nn.AvgPool2d(2), 2, 3, 4, 4))["add"] == 0


@st.composite
def adaptive(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes of one to three axes, and what they are pooled to, which may be more."""
    axes = draw(st.integers(1, 3))
    return tuple(draw(st.tuples(*[st.integers(1, 6)] * axes)) for _ in range(2))  # type: ignore[return-value]


AVERAGES: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
MAXIMA: dict[int, Any] = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


@examples(max_examples=30)
@given(sizes=adaptive())
def test_adaptive_average_pooling_of_any_rank(sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    size, out = sizes
    check(AVERAGES[len(size)](out), 2, 2, *size)


@pytest.mark.parametrize("source", [draw, draw_ties])
@examples(max_examples=20)
@given(sizes=adaptive())
def test_adaptive_max_pooling(
    source: Callable[..., Tensor], sizes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    size, out = sizes
    check(MAXIMA[len(size)](out), 2, 2, *size, source=source)


def test_adaptive_max_pooling_needs_no_product_where_it_divides() -> None:
    found = operators(check(nn.AdaptiveMaxPool2d((2, 3)), 2, 3, 4, 6))
    assert found["mm"] == 0
    assert found["max_pool2d"] == 1
