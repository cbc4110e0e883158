"""Windows: `unwindow` is the adjoint of `window`, the helpers agree with plain indexing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import draw, examples

from clue_mobile.lowering import windows


@st.composite
def geometries(draw: Any) -> tuple[tuple[int, ...], ...]:
    """(size, out, kernel, stride, padding, dilation) of one to three axes; windows may reach past the end."""
    axes = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        span = dilation * (kernel - 1) + 1
        padding = draw(st.integers(0, span // 2))
        size = draw(st.integers(max(1, span - 2 * padding), span + 6))
        rounding = draw(st.sampled_from([math.floor, math.ceil]))
        out = rounding((size + 2 * padding - span) / stride) + 1
        if (out - 1) * stride >= size + padding:  # PyTorch drops a window that starts behind the end
            out -= 1
        axes.append((size, out, kernel, stride, padding, dilation))
    return tuple(zip(*axes, strict=True))


@examples(max_examples=150)
@given(geometries())
def test_unwindow_is_the_adjoint_of_window(geometry: tuple[tuple[int, ...], ...]) -> None:
    size, out, kernel, stride, padding, dilation = geometry
    x = draw(2, *size)
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation)
    cut = [windows.window(padded, offset, out, stride, dilation) for offset in windows.offsets(kernel)]
    parts = [draw(*c.shape, seed=i) for i, c in enumerate(cut)]

    back = windows.unwindow(parts, size, kernel, stride, padding, dilation)

    assert back.shape == x.shape
    left = sum(float((c * p).sum()) for c, p in zip(cut, parts, strict=True))
    assert float((x * back).sum()) == pytest.approx(left, abs=1e-9)


def test_windows_are_those_of_unfold() -> None:
    x = draw(2, 3, 7, 6)
    out, kernel, stride, padding, dilation = (4, 2), (2, 3), (2, 2), (1, 0), (2, 1)
    padded = windows.pad_for_windows(x, out, kernel, stride, padding, dilation)
    cut = [windows.window(padded, offset, out, stride, dilation) for offset in windows.offsets(kernel)]

    unfolded = torch.nn.functional.unfold(x, kernel, dilation, padding, stride)

    assert torch.equal(torch.stack(cut, 2).reshape(unfolded.shape), unfolded)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_dilate_puts_zeros_behind_each_element(dim: int) -> None:
    x = draw(2, 3, 4)
    want = torch.zeros([n * 3 if axis == dim else n for axis, n in enumerate(x.shape)], dtype=x.dtype)
    want[tuple(slice(None, None, 3) if axis == dim else slice(None) for axis in range(3))] = x
    assert torch.equal(windows.dilate(x, dim, 3), want)
    assert windows.dilate(x, dim, 1) is x


@examples(max_examples=60)
@given(st.integers(1, 4), st.integers(-6, 6), st.integers(1, 6))
def test_place_pads_and_cuts(length: int, before: int, size: int) -> None:
    x = torch.arange(1.0, length + 1).reshape(1, length)
    want = [float(i - before + 1) if 0 <= i - before < length else 0.0 for i in range(size)]
    assert windows.place(x, 1, before, size).tolist() == [want]


def test_per_axis_spreads_one_number() -> None:
    assert windows.per_axis([2], 3) == (2, 2, 2)
    assert windows.per_axis([1, 2], 2) == (1, 2)
