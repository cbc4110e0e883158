"""Resizing up and down, and pads that repeat the image, against autograd."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from lowering_case import Apply, check, examples, operators
from torch import nn

MODES = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}


@st.composite
def resizes(draw: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
    """An image size and the arguments of F.interpolate."""
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    size = tuple(draw(st.integers(1, 6)) for _ in range(axes))
    mode = draw(st.sampled_from(["nearest", "nearest-exact", *MODES[axes]]))
    arguments: dict[str, Any] = {"mode": mode}
    if draw(st.booleans()):
        arguments["size"] = tuple(draw(st.integers(1, 8)) for _ in range(axes))
    else:
        factor = draw(st.sampled_from([0.5, 0.7, 1.3, 1.5, 2, 3]))
        if min(int(s * factor) for s in size) < 1:
            factor = 2
        arguments["scale_factor"] = factor
        if draw(st.booleans()):
            arguments["recompute_scale_factor"] = True
    if mode in ("linear", "bilinear", "bicubic", "trilinear"):
        arguments["align_corners"] = draw(st.booleans())
        if axes == 2 and not arguments["align_corners"]:
            arguments["antialias"] = draw(st.booleans())
    return size, arguments


@examples(max_examples=40)
@given(resize=resizes())
def test_equals_autograd(resize: tuple[tuple[int, ...], dict[str, Any]]) -> None:
    size, arguments = resize
    if "scale_factor" in arguments and "nearest" in arguments["mode"]:
        # PyTorch's backward copies where no size changes, also where its forward repeats elements
        assume(all(int(s * arguments["scale_factor"]) != s for s in size))
    graph = check(Apply(partial(F.interpolate, **arguments)), 1, 2, *size)
    assert not [name for name in operators(graph) if "upsample" in name]


@pytest.mark.parametrize("size", [1, 7, 16, 31])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_nearest_is_pytorchs_in_float32(mode: str, size: int) -> None:
    """Its places are worked out in float32: another rounding would pick a neighbour."""
    from clue_mobile.lowering import lower

    x = torch.arange(float(size)).reshape(1, 1, size)
    for out in (5, 49):
        for function in (
            lambda x: (F.interpolate(x, size=out, mode=mode),),  # noqa: B023
            lambda x: (F.interpolate(x, scale_factor=(out + 0.3) / size, mode=mode),),  # noqa: B023
        ):
            assert torch.equal(lower(function, [x])(x)[0], function(x)[0])


def test_whole_factors_repeat_and_sum_without_a_product() -> None:
    found = operators(check(nn.Upsample(scale_factor=2), 2, 3, 4, 5))
    assert found["mm"] == 0
    assert (found["expand"], found["sum"]) == (2, 2)


@examples(max_examples=12)
@given(
    mode=st.sampled_from(["reflect", "replicate", "circular"]),
    size=st.lists(st.integers(3, 5), min_size=1, max_size=3),
    pads=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_pads_that_repeat_the_image(mode: str, size: list[int], pads: list[int]) -> None:
    check(Apply(lambda x: F.pad(x, pads[: 2 * len(size)], mode=mode)), 1, 2, *size)
