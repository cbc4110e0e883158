"""Every operator of the kernel library against its float64 reference, on even and odd shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from kernel_case import run
from torch import Tensor

from clue_mobile.lowering import kernels  # registers the references

assert kernels
clue = torch.ops.clue

# x, w [o, c / groups, kh, kw], stride, padding, dilation, groups
CONVS: dict[str, Any] = {
    "winograd": ([2, 32, 32, 16], [16, 16, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    "winograd of several images": ([7, 8, 8, 16], [24, 16, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    "winograd, odd": ([3, 7, 5, 9], [21, 9, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    "winograd without padding": ([2, 33, 33, 8], [8, 8, 3, 3], [1, 1], [0, 0], [1, 1], 1),
    "winograd, padding 2": ([5, 3, 4, 12], [16, 12, 3, 3], [1, 1], [2, 2], [1, 1], 1),
    "winograd, sums by blocks": ([5, 7, 7, 140], [130, 140, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    "winograd, wide": ([5, 7, 6, 300], [230, 300, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    "winograd, wide, images in two groups": ([3, 33, 31, 256], [264, 256, 3, 3], [1, 1], [0, 0], [1, 1], 1),
    "stride 2, weights by blocks": ([6, 9, 8, 70], [200, 70, 3, 3], [2, 2], [1, 1], [1, 1], 1),
    "1x1, weights by blocks": ([7, 5, 5, 330], [310, 330, 1, 1], [1, 1], [0, 0], [1, 1], 1),
    "1x1, positions by strips": ([2, 40, 41, 16], [100, 16, 1, 1], [1, 1], [0, 0], [1, 1], 1),
    "groups, weights by blocks": ([3, 6, 7, 192], [400, 96, 3, 3], [2, 1], [1, 1], [1, 1], 2),
    "stride 2": ([3, 9, 11, 16], [32, 16, 3, 3], [2, 2], [1, 1], [1, 1], 1),
    "few channels": ([1, 7, 8, 3], [5, 3, 3, 3], [1, 1], [1, 1], [1, 1], 1),
    "1x1": ([9, 13, 10, 12], [20, 12, 1, 1], [1, 1], [0, 0], [1, 1], 1),
    "1x1, stride 2 that leaves a rest": ([2, 13, 10, 12], [20, 12, 1, 1], [2, 2], [0, 0], [1, 1], 1),
    "groups, dilation, two strides": ([2, 15, 14, 6], [9, 2, 5, 3], [2, 3], [2, 1], [2, 1], 3),
    "depthwise": ([2, 9, 9, 24], [24, 1, 3, 3], [1, 1], [1, 1], [1, 1], 24),
    "depthwise, odd, stride 2": ([2, 9, 10, 19], [19, 1, 3, 3], [2, 2], [1, 1], [1, 1], 19),
    "patches": ([2, 32, 32, 3], [24, 3, 8, 8], [8, 8], [0, 0], [1, 1], 1),
    "windows with gaps": ([2, 10, 10, 5], [7, 5, 2, 2], [3, 3], [0, 0], [1, 1], 1),
}


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).float().double()


def array(value: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if value is None else value.float().contiguous().numpy()


def check(got: list[np.ndarray[Any, Any]], want: list[Tensor], tolerance: float = 1e-5) -> None:
    for number, (have, due) in enumerate(zip(got, want, strict=True)):
        error = float(np.abs(have - due.numpy()).max() / due.abs().max())
        assert error <= tolerance, f"output {number}: {error}"


OWN = [-1, 0, 0]  # the weights are a tensor of their own


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CONVS)
def test_convolutions(name: str, threads: int) -> None:
    size, kernel, *window = CONVS[name]
    x, w, bias = draw(*size, seed=1), draw(*kernel, seed=2), draw(kernel[0], seed=3)
    stride, padding, dilation, groups = window
    geometry = [*kernel[2:], *stride, *padding, *dilation, groups, *size[1:3]]
    options: dict[str, Any] = {"geometry": geometry, "weights": OWN}
    want = clue.conv_stats(x, w, bias, *window)
    check(run("Conv", [array(x), array(w), array(bias)], ["y", "m", "v"], threads, **options), want)
    (y,) = run("Conv", [array(x), array(w)], ["y"], threads, **options)
    check([y], [clue.conv(x, w, None, *window)])
    g = draw(*y.shape, seed=4)
    gx, gw = clue.conv_grad(g, x, w, *window)
    check(run("ConvGrad", [array(g), array(x), array(w)], ["x", "w"], threads, **options), [gx, gw])
    check(run("ConvInputGrad", [array(g), array(w)], ["x"], threads, **options), [gx])
    check(run("ConvWeightGrad", [array(g), array(x)], ["w"], threads, geometry=geometry), [gw])


def test_weights_are_read_where_they_lie_in_a_vector() -> None:
    size, kernel, *window = CONVS["stride 2"]
    x, w = draw(*size, seed=1), draw(*kernel, seed=2)
    vector = torch.cat([draw(7, seed=3), w.reshape(-1), draw(5, seed=4)])
    stride, padding, dilation, groups = window
    geometry = [*kernel[2:], *stride, *padding, *dilation, groups, *size[1:3]]
    whole: dict[str, Any] = {"geometry": geometry, "weights": OWN}
    part: dict[str, Any] = {"geometry": geometry, "weights": [7, *kernel[:2]]}
    (y,) = run("Conv", [array(x), array(w)], ["y"], **whole)
    g = array(draw(*y.shape, seed=5))
    for op, given in (("Conv", [array(x)]), ("ConvGrad", [g, array(x)]), ("ConvInputGrad", [g])):
        outputs = ["x", "w"] if op == "ConvGrad" else ["y"]
        for left, right in zip(
            run(op, [*given, array(w)], outputs, **whole),
            run(op, [*given, array(vector)], outputs, **part),
            strict=True,
        ):
            np.testing.assert_array_equal(left, right)
    with pytest.raises(Exception, match="the weights lie outside their vector"):
        run("Conv", [array(x), array(vector)], ["y"], geometry=geometry, weights=[13, *kernel[:2]])


# x, kernel, stride, padding, dilation
POOLS: dict[str, Any] = {
    "resnet's": ([3, 12, 13, 19], [3, 3], [2, 2], [1, 1], [1, 1]),
    "without overlap": ([2, 8, 6, 33], [2, 2], [2, 2], [0, 0], [1, 1]),
    "a rest, gaps, dilation": ([5, 11, 10, 7], [2, 3], [3, 2], [1, 0], [2, 1]),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", POOLS)
def test_max_pooling(name: str, threads: int) -> None:
    size, kernel, stride, padding, dilation = POOLS[name]
    x = (2 * draw(*size, seed=1)).round().clamp(min=0)  # many windows have several largest values
    geometry = [*kernel, *stride, *padding, *dilation, 1, *size[1:3]]
    want = clue.max_pool(x, kernel, stride, padding, dilation)
    check(run("MaxPool", [array(x)], ["y"], threads, geometry=geometry), [want], 0)
    g = draw(*want.shape, seed=2)
    due = clue.max_pool_grad(g, x, kernel, stride, padding, dilation)
    check(run("MaxPoolGrad", [array(g), array(x)], ["x"], threads, geometry=geometry), [due], 1e-6)


def test_a_maximum_that_is_no_number_is_kept() -> None:
    x = np.ones((1, 4, 4, 20), np.float32)
    x[0, 1, 1, 3] = x[0, 2, 2, 18] = np.nan
    (y,) = run("MaxPool", [x], ["y"], geometry=[2, 2, 2, 2, 0, 0, 1, 1, 1, 4, 4])
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 0, 3], [0, 1, 1, 18]]


@pytest.mark.parametrize("threads", [1, 2])
def test_images(threads: int) -> None:
    x = draw(5, 3, 7, 9, seed=1)
    mean, std = draw(1, 3, 1, 1, seed=2), draw(1, 3, 1, 1, seed=3).abs() + 0.5
    given = [array(v) for v in (x, mean, std)]
    check(run("Image", given, ["y"], threads), [clue.image(x, mean, std)], 1e-6)


def test_parts() -> None:
    vector = draw(50, seed=1)
    check(run("Part", [array(vector)], ["y"], start=3, stop=41), [clue.part(vector, 3, 41)], 0)
    with pytest.raises(Exception, match="the part lies outside the vector"):
        run("Part", [array(vector)], ["y"], start=3, stop=51)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_sgd(threads: int, masked: bool) -> None:
    w, v, lr = draw(1001, seed=1), draw(1001, seed=2), torch.tensor(0.3, dtype=torch.float64)
    mask = (draw(1001, seed=3) > 0).double() if masked else None
    pieces = [draw(17, seed=4), draw(4, 6, 3, seed=5), draw(1, seed=6), draw(911, seed=7)]
    want = clue.sgd(w, v, lr, mask, pieces, 0.9)
    given = [array(t) for t in (w, v, lr, mask, *pieces)]
    check(run("Sgd", given, ["w", "v"], threads, momentum=0.9), list(want), 1e-6)
    with pytest.raises(Exception, match="the gradient's pieces do not have the size of w"):
        run("Sgd", given[:-1], ["w", "v"], threads, momentum=0.9)


@pytest.mark.parametrize(("op", "given", "options"), [
    ("Norm", 6, {"low": 0.0, "high": 6.0}), ("LayerNorm", 3, {"epsilon": 1e-5}), ("Gelu", 1, {}),
    ("Image", 3, {}), ("Part", 1, {"start": 2, "stop": 9}),
])  # fmt: skip
def test_what_is_waited_for_changes_nothing(op: str, given: int, options: dict[str, Any]) -> None:
    channels = draw(3, seed=1) + 5
    fixed = {
        "Image": [draw(2, 3, 4, 5, seed=2), channels.view(1, 3, 1, 1), channels.view(1, 3, 1, 1)],
        "Part": [draw(12, seed=2)],
    }.get(op, [draw(2, 4, 5, 3, seed=2), channels, channels, channels, channels, draw(2, 4, 5, 3, seed=3)])
    inputs = [array(v) for v in fixed[:given]]
    (alone,) = run(op, inputs, ["y"], **options)
    (behind,) = run(op, [*inputs, array(draw(7, 2, seed=9))], ["y"], **options)
    np.testing.assert_array_equal(alone, behind)


NORMS = [[4, 8, 8, 16], [3, 5, 7, 21], [9, 3, 3, 70], [6, 1, 1, 3]]
LIMITS = [(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0), (-0.5, 0.25), (-math.inf, 0.5)]


@pytest.mark.parametrize("shape", NORMS, ids=str)
def test_norms(shape: list[int]) -> None:
    x = 2 * draw(*shape, seed=1) + 50  # a mean far above the spread
    x = x.float().double()
    weight, bias, residual = draw(shape[-1], seed=2), draw(shape[-1], seed=3), draw(*shape, seed=4)
    mean, var = clue.stats(x)
    check(run("Stats", [array(x)], ["m", "v"]), [mean, var], 1e-6)
    invstd = torch.rsqrt(var + 1e-5)
    fixed = [array(v) for v in (x, mean, invstd)]
    for affine in ([weight, bias], [None, None]):
        for added in (residual, None):
            for low, high in LIMITS:
                want = clue.norm(x, mean, invstd, *affine, added, low, high)
                given = [*fixed, *map(array, affine), array(added)]
                check(run("Norm", given, ["y"], low=low, high=high), [want], 1e-5)


@pytest.mark.parametrize("shape", NORMS, ids=str)
@pytest.mark.parametrize(("low", "high"), LIMITS)
def test_norm_gradients(shape: list[int], low: float, high: float) -> None:
    x = (2 * draw(*shape, seed=1) + 50).float().double()
    weight, bias = draw(shape[-1], seed=2), draw(shape[-1], seed=3)
    residual, g, more = (draw(*shape, seed=4 + i) for i in range(3))
    mean, var = clue.stats(x)
    invstd = torch.rsqrt(var + 1e-5)
    mean, invstd = mean.float().double(), invstd.float().double()  # as both sides see them, for the same mask
    for affine in ([weight, bias], [None, None]):
        for out in (clue.norm(x, mean, invstd, *affine, residual, low, high).float().double(), None):
            for second in (more, None):
                for train in (True, False):
                    want = clue.norm_grad(g, x, mean, invstd, *affine, out, second, train, low, high)
                    given = [array(v) for v in (g, x, mean, invstd, *affine, out, second)]
                    options: dict[str, Any] = {"train": int(train), "low": low, "high": high}
                    check(run("NormGrad", given, ["x", "w", "b", "kept"], **options), list(want), 1e-5)
                    check(run("NormGrad", given, ["x", "w", "b"], **options), list(want[:3]), 1e-5)


@pytest.mark.parametrize("shape", [[2, 5, 192], [3, 7, 21], [1, 4], [9, 2]], ids=str)
def test_layer_norms(shape: list[int]) -> None:
    x, g = 2 * draw(*shape, seed=1) + 5, draw(*shape, seed=2)
    x = x.float().double()
    for weight, bias in ((draw(shape[-1], seed=3), draw(shape[-1], seed=4)), (None, None)):
        for threads in (1, 2):
            y, mean, invstd = clue.layer_norm(x, weight, bias, 1e-5)
            given = [array(v) for v in (x, weight, bias)]
            check(run("LayerNorm", given, ["y", "m", "s"], threads, epsilon=1e-5), [y, mean, invstd])
            check(run("LayerNorm", given, ["y"], threads, epsilon=1e-5), [y])
            found = run(
                "LayerNormGrad", [array(v) for v in (g, x, mean, invstd, weight)], ["x", "w", "b"], threads
            )
            want = clue.layer_norm_grad(g, x, mean.float().double(), invstd.float().double(), weight)
            if shape[-1] == 2:  # nearly nothing is left of x's own gradient
                found, want = found[1:], want[1:]
            check(found, list(want))


@pytest.mark.parametrize("threads", [1, 2])
def test_gelu_and_its_gradient(threads: int) -> None:
    x = (
        torch.cat([torch.linspace(-14, 14, 4001, dtype=torch.float64), 1e-3 * draw(50, seed=1)])
        .float()
        .double()
    )
    g = draw(*x.shape, seed=2)
    leaf = x.clone().requires_grad_()
    torch.nn.functional.gelu(leaf).backward(g)
    assert leaf.grad is not None
    torch.testing.assert_close(clue.gelu_grad(g, x), leaf.grad)
    check(run("GeluGrad", [array(g), array(x)], ["x"], threads), [leaf.grad], 1e-6)
    want = torch.nn.functional.gelu(x)
    torch.testing.assert_close(clue.gelu(x), want)
    check(run("Gelu", [array(x)], ["y"], threads), [want], 1e-6)


@pytest.mark.parametrize(("low", "high"), LIMITS[1:])
def test_the_mask_from_x_is_that_of_the_result(low: float, high: float) -> None:
    """Bit for bit, also where the norm is next to a limit."""
    x = array(draw(3, 40, 40, 19, seed=1))
    assert x is not None
    mean, scale = x.mean((0, 1, 2)), np.full(19, 2, np.float32)
    x[0, 0] = mean  # the result is the bias
    weight, bias = np.ones(19, np.float32), np.full(19, low if np.isfinite(low) else high, np.float32)
    (out,) = run("Norm", [x, mean, scale, weight, bias], ["y"], low=low, high=high)
    names = ["x", "w", "b", "kept"]
    options: dict[str, Any] = {"train": 1, "low": low, "high": high}
    ones = np.ones_like(x)
    by_out = run("NormGrad", [ones, x, mean, scale, weight, bias, out, None], names, **options)
    by_x = run("NormGrad", [ones, x, mean, scale, weight, bias, None, None], names, **options)
    assert 0 < by_x[3].sum() < x.size
    assert not by_x[3][0, 0].any()
    for left, right in zip(by_out, by_x, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "name", ["winograd, odd", "winograd, wide", "stride 2", "stride 2, weights by blocks"]
)
def test_results_do_not_depend_on_the_number_of_threads(name: str) -> None:
    size, kernel, *window = CONVS[name]
    x, w = draw(*size, seed=1), draw(*kernel, seed=2)
    g = draw(*clue.conv(x, w, None, *window).shape, seed=3)
    geometry = [*kernel[2:], *(i for each in window[:3] for i in each), window[3], *size[1:3]]
    options: dict[str, Any] = {"geometry": geometry, "weights": OWN}
    given = [array(v) for v in (g, x, w)]
    one, two = (run("ConvGrad", given, ["x", "w"], threads, **options) for threads in (1, 2))
    for left, right in zip(one, two, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("shape", "geometry", "says"), [
    ([1, 8, 8, 3], [3, 3, 1, 1, 1, 1, 1, 1, 1, 9, 8], "does not have the shape of the geometry"),
    ([1, 8, 8, 3], [3, 3, 0, 1, 1, 1, 1, 1, 1, 8, 8], "out of range"),
    ([1, 8, 8, 3], [65, 1, 1, 1, 40, 0, 1, 1, 1, 8, 8], "too large"),
    ([1, 2, 2, 3], [3, 3, 1, 1, 0, 0, 1, 1, 1, 2, 2], "larger than the image"),
    ([1, 8, 8, 3], [3, 3, 1, 1, 1, 1, 1, 1, 2, 8, 8], "multiple of the groups"),
])  # fmt: skip
def test_a_wrong_geometry_is_an_error(shape: list[int], geometry: list[int], says: str) -> None:
    x, w = array(draw(*shape, seed=1)), array(draw(4, 3, geometry[0], geometry[1], seed=2))
    with pytest.raises(Exception, match=says):
        run("Conv", [x, w], ["y"], geometry=geometry, weights=OWN)
