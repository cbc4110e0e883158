"""Linear maps along axes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lowering_case import draw, examples

from clue_mobile.lowering import axes


@examples(max_examples=20)
@given(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3))
def test_each_axis_is_multiplied_by_its_matrix(sizes: list[tuple[int, int]]) -> None:
    x = draw(2, 3, *(size for size, _ in sizes))
    matrices = [draw(out, size, seed=i) for i, (size, out) in enumerate(sizes)]
    want = x
    for axis, matrix in enumerate(matrices):
        want = torch.tensordot(want, matrix, ([2], [1]))  # the new axis comes last, the next one to the front
        assert want.shape[-1] == sizes[axis][1]
    got = axes.along(x, [matrix.tolist() for matrix in matrices])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_adjoint_is_the_adjoint() -> None:
    matrix = draw(4, 3).tolist()
    x, grad = draw(2, 3, 5), draw(2, 4, 5, seed=1)
    there, back = axes.along(x, [matrix, None]), axes.adjoint(grad, [matrix, None])
    assert float((there * grad).sum()) == pytest.approx(float((x * back).sum()))


def test_selection_picks() -> None:
    picked = axes.along(draw(2, 3), [axes.selection([2, 0, 2, 1], 3)])
    assert torch.equal(picked, draw(2, 3)[:, [2, 0, 2, 1]])
