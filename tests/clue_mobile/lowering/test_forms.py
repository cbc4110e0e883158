"""Every form of every product against ATen's operators in double, on odd shapes, as it stands and lowered."""

from __future__ import annotations

import pytest
import torch
from lowering_case import assert_close, assert_forward_only, draw
from torch import Tensor

from clue_mobile.errors import ClueError
from clue_mobile.lowering import lower
from clue_mobile.lowering.forms import PRODUCTS, Geometry, admitted, geometry, shapes

aten = torch.ops.aten
GEOMETRIES = [
    "n3 c4 9x7 o6 k3x3 s1x1 p1x1 d1x1 g1",
    "n1 c3 8x8 o2 k3x3 s2x2 p1x1 d1x1 g1",  # one image, a rest that no window touches
    "n2 c4 9x8 o5 k3x2 s3x2 p2x1 d1x1 g1",
    "n2 c4 9x8 o5 k3x3 s1x1 p2x2 d2x2 g1",
    "n2 c4 9x8 o5 k3x3 s2x1 p2x0 d2x1 g1",
    "n2 c4 10x11 o6 k7x7 s2x2 p3x3 d1x1 g1",
    "n2 c4 10x11 o6 k2x2 s3x3 p0x0 d1x1 g1",  # pixels that no window touches
    "n2 c4 5x6 o6 k3x3 s1x1 p3x0 d1x1 g1",  # more padding than the kernel reaches
    "n2 c4 5x6 o6 k1x1 s1x1 p1x1 d1x1 g1",
    "n2 c6 9x8 o4 k3x2 s1x2 p1x1 d2x1 g2",
    "n2 c4 9x8 o5 k1x1 s1x1 p0x0 d1x1 g1",
    "n2 c4 9x8 o5 k1x1 s2x2 p0x0 d1x1 g1",
    "n2 c4 9x8 o4 k3x3 s1x1 p1x1 d1x1 g4",
    "n2 c4 9x8 o4 k5x3 s2x2 p2x1 d1x1 g4",
    "n2 c4 9x8 o6 k3x3 s1x1 p1x1 d1x1 g2",
]
LOWERED = {GEOMETRIES[i] for i in (0, 2, 10, 13)}  # tracing is slow: these have all forms
CASES = [
    (product, key, name)
    for key in GEOMETRIES
    for product in PRODUCTS
    for name in admitted(product, Geometry.parse(key))
]


def expected(product: str, at: Geometry, first: Tensor, second: Tensor) -> Tensor:
    """The product by ATen's own kernels."""
    where = (at.stride, at.padding, at.dilation, False, [0, 0], at.groups)
    if product == "forward":
        return aten.convolution(first, second, None, *where)
    x, weight = draw(at.batch, at.channels, *at.size), draw(at.outputs, at.channels // at.groups, *at.kernel)
    if product == "input_gradient":
        made = aten.convolution_backward(first, x, second, None, *where, [True, False, False])[0]
    else:
        made = aten.convolution_backward(first, second, weight, None, *where, [False, True, False])[1]
    return made


@pytest.mark.parametrize(("product", "key", "name"), CASES)
def test_equals_aten(product: str, key: str, name: str) -> None:
    at, form = Geometry.parse(key), PRODUCTS[product][name]
    first, second = (draw(*shape, seed=i) for i, shape in enumerate(shapes(product, at)))
    want = expected(product, at, first, second)
    assert_close([form(first, second, at)], [want], 1e-12)


@pytest.mark.parametrize(("product", "key", "name"), [case for case in CASES if case[1] in LOWERED])
def test_lowers_to_forward_operators(product: str, key: str, name: str) -> None:
    at, form = Geometry.parse(key), PRODUCTS[product][name]
    first, second = (draw(*shape, seed=i) for i, shape in enumerate(shapes(product, at)))
    want = expected(product, at, first, second)
    graph = lower(lambda a, b: (form(a, b, at),), (first, second))
    assert_forward_only(graph)
    assert_close(graph(first, second), [want], 1e-12)


def test_every_form_is_tested() -> None:
    every = {(product, name) for product, forms in PRODUCTS.items() for name in forms}
    assert {(product, name) for product, _, name in CASES} == every
    assert {(product, name) for product, key, name in CASES if key in LOWERED} == every


def test_a_winograd_tile_is_as_exact_as_a_convolution() -> None:
    """Its rounding error in float32, of the largest element: below twice that of the direct sum."""
    at = Geometry.parse("n2 c64 12x12 o64 k3x3 s1x1 p1x1 d1x1 g1")
    x, weight = (draw(*shape, seed=i) for i, shape in enumerate(shapes("forward", at)))
    want = expected("forward", at, x, weight)
    errors = [
        float((form(x.float(), weight.float(), at) - want).abs().max() / want.abs().max())
        for form in (PRODUCTS["forward"]["winograd"], PRODUCTS["forward"]["rows"])
    ]
    assert errors[0] < 1e-6
    assert errors[1] < 1e-6


@pytest.mark.parametrize("key", GEOMETRIES)
def test_keys_are_read_back(key: str) -> None:
    assert Geometry.parse(key).key() == key


def test_a_text_that_is_no_key() -> None:
    with pytest.raises(ClueError, match=r"'n32' is no convolution's shape: write it like n32 c16"):
        Geometry.parse("n32")


def test_geometry_of_an_operator_call() -> None:
    at = geometry((2, 4, 9, 8), (6, 2, 3, 3), [2], [1], [1, 1], 2)
    assert at.key() == "n2 c4 9x8 o6 k3x3 s2x2 p1x1 d1x1 g2"
    assert at.out == (5, 4)
    assert at.flops == 2 * 2 * 5 * 4 * 9 * 6 * 2
