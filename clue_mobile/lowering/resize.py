"""Resizing, and pads that repeat the image: maps along one axis after the other, as matrices.

Enlarging to the nearest by a whole factor, which feature pyramids do, repeats elements instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clue_mobile.lowering import axes
from clue_mobile.lowering.axes import Matrix

aten = torch.ops.aten

Kind = Callable[[int, int, bool, float | None], Matrix]  # (size, out, align_corners, factor) -> matrix


def _step(size: int, out: int, align_corners: bool, factor: float | None) -> float:
    """Distance of two neighbours of the result, in elements of the input."""
    if align_corners:
        return (size - 1) / (out - 1) if out > 1 else 0.0
    return 1 / factor if factor else size / out


def _nearest(exact: bool, size: int, out: int, align_corners: bool, factor: float | None) -> Matrix:
    # in float32 whatever the tensor's type is, as PyTorch: another rounding picks another element
    step = np.float32(1 / factor) if factor else np.float32(size) / np.float32(out)
    half = np.float32(0.5 if exact else 0.0)
    return axes.selection([min(int((np.float32(i) + half) * step), size - 1) for i in range(out)], size)


def _linear(size: int, out: int, align_corners: bool, factor: float | None) -> Matrix:
    step = _step(size, out, align_corners, factor)
    rows = []
    for i in range(out):
        place = i * step if align_corners else max(step * (i + 0.5) - 0.5, 0.0)
        left = min(int(place), size - 1)
        share = min(max(place - left, 0.0), 1.0)
        row = [0.0] * size
        row[left] += 1 - share
        row[min(left + 1, size - 1)] += share
        rows.append(row)
    return rows


def _cubic(x: float, a: float) -> float:
    """The cubic convolution kernel (Keys 1981)."""
    x = abs(x)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _bicubic(size: int, out: int, align_corners: bool, factor: float | None) -> Matrix:
    step = _step(size, out, align_corners, factor)
    rows = []
    for i in range(out):
        place = i * step if align_corners else step * (i + 0.5) - 0.5
        row = [0.0] * size
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            row[min(max(j, 0), size - 1)] += _cubic(place - j, -0.75)
        rows.append(row)
    return rows


def _smoothed(
    kernel: Callable[[float], float],
    radius: float,
    size: int,
    out: int,
    align_corners: bool,
    factor: float | None,
) -> Matrix:
    """Antialiased: the kernel is stretched by the factor of the reduction, its weights add up to one."""
    step = _step(size, out, align_corners, factor)
    stretch = max(step, 1.0)
    rows = []
    for i in range(out):
        centre = step * (i + 0.5)
        start = max(int(centre - radius * stretch + 0.5), 0)
        stop = min(int(centre + radius * stretch + 0.5), size)
        row = [kernel((j - centre + 0.5) / stretch) if start <= j < stop else 0.0 for j in range(size)]
        total = sum(row)
        rows.append([weight / total for weight in row])
    return rows


def _repeated(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Each element of the last axes as often as its axis' factor says."""
    for axis, factor in enumerate(factors):
        dim = x.dim() - len(factors) + axis
        lead, tail = math.prod(x.shape[: dim + 1]), math.prod(x.shape[dim + 1 :])
        spread = x.reshape(lead, 1, tail).expand(lead, factor, tail)
        x = spread.reshape(*x.shape[:dim], x.shape[dim] * factor, *x.shape[dim + 1 :])
    return x


def _summed(x: Tensor, factors: Sequence[int]) -> Tensor:
    """The backward pass of `_repeated`."""
    for axis, factor in enumerate(factors):
        dim = x.dim() - len(factors) + axis
        lead, tail = math.prod(x.shape[:dim]) * x.shape[dim] // factor, math.prod(x.shape[dim + 1 :])
        x = (
            x.reshape(lead, factor, tail)
            .sum(1)
            .reshape(*x.shape[:dim], x.shape[dim] // factor, *x.shape[dim + 1 :])
        )
    return x


def _whole_factors(size: Sequence[int], out: Sequence[int], scales: Sequence[Any]) -> list[int] | None:
    """The factors of an enlargement by whole numbers, else None."""
    factors = [o // s for o, s in zip(out, size, strict=True)]
    exact = all(f * s == o for f, s, o in zip(factors, size, out, strict=True))
    asked = all(scale is None or scale == f for f, scale in zip(factors, scales, strict=True))
    return factors if exact and asked and all(factors) else None


def _matrices(
    kind: Kind, size: Sequence[int], out: Sequence[int], corners: bool, scales: Sequence[Any]
) -> list[Matrix | None]:
    found: list[Matrix | None] = []
    for s, o, factor in zip(size, out, scales, strict=True):
        matrix = kind(s, o, corners, factor)
        found.append(None if s == o and matrix == axes.selection(range(s), s) else matrix)
    return found


def _resize(kind: Kind, corners: bool, x: Tensor, out: Sequence[int], *rest: Any) -> Tensor:
    """[..., *out] from x; rest: align_corners where the operator has it, then a factor or None per axis."""
    if corners:
        align, *rest = rest  # type: ignore[assignment]
    scales = [*rest, *[None] * (len(out) - len(rest))]
    size = x.shape[2:]
    if kind in NEAREST and (factors := _whole_factors(size, out, scales)):
        return _repeated(x, factors)
    return axes.along(x, _matrices(kind, size, out, corners and align, scales))


def _resize_backward(
    kind: Kind, corners: bool, grad: Tensor, out: Sequence[int], shape: Sequence[int], *rest: Any
) -> Tensor:
    """[*shape] from the gradient [..., *out] of `_resize`."""
    if corners:
        align, *rest = rest  # type: ignore[assignment]
    scales = [*rest, *[None] * (len(out) - len(rest))]
    if kind in NEAREST and (factors := _whole_factors(shape[2:], out, scales)):
        return _summed(grad, factors)
    return axes.adjoint(grad, _matrices(kind, shape[2:], out, corners and align, scales))


def _reflected(before: int, after: int, size: int) -> list[int]:
    return [size - 1 - abs(size - 1 - abs(i)) for i in range(-before, size + after)]


def _replicated(before: int, after: int, size: int) -> list[int]:
    return [min(max(i, 0), size - 1) for i in range(-before, size + after)]


Rule = Callable[[int, int, int], list[int]]


def _pad_matrices(rule: Rule, size: Sequence[int], pad: Sequence[int]) -> list[Matrix | None]:
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]  # PyTorch's begin at the last axis
    return [
        axes.selection(rule(*pair, s), s) if any(pair) else None
        for s, pair in zip(size[-len(pairs) :], pairs, strict=True)
    ]


def _pad(rule: Rule, x: Tensor, pad: Sequence[int]) -> Tensor:
    return axes.along(x, _pad_matrices(rule, x.shape, pad))


def _pad_backward(rule: Rule, grad: Tensor, x: Tensor, pad: Sequence[int]) -> Tensor:
    return axes.adjoint(grad, _pad_matrices(rule, x.shape, pad))


_NEAREST, _EXACT = partial(_nearest, False), partial(_nearest, True)
NEAREST = (_NEAREST, _EXACT)

# name in aten: (kind, whether the operator has align_corners)
_KINDS: dict[str, tuple[Kind, bool]] = {
    **{f"upsample_nearest{n}d": (_NEAREST, False) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": (_EXACT, False) for n in (1, 2, 3)},
    "upsample_linear1d": (_linear, True),
    "upsample_bilinear2d": (_linear, True),
    "upsample_trilinear3d": (_linear, True),
    "upsample_bicubic2d": (_bicubic, True),
    "_upsample_bilinear2d_aa": (partial(_smoothed, lambda x: max(1 - abs(x), 0.0), 1.0), True),
    "_upsample_bicubic2d_aa": (partial(_smoothed, partial(_cubic, a=-0.5), 2.0), True),
}
_PADS: dict[str, Rule] = {
    **{f"reflection_pad{n}d": _reflected for n in (1, 2, 3)},
    **{f"replication_pad{n}d": _replicated for n in (1, 2, 3)},
}

TABLE: dict[Any, Callable[..., Any]] = {
    **{getattr(aten, name).default: partial(_resize, *kind) for name, kind in _KINDS.items()},
    **{
        getattr(aten, f"{name}_backward").default: partial(_resize_backward, *kind)
        for name, kind in _KINDS.items()
    },
    **{getattr(aten, name).default: partial(_pad, rule) for name, rule in _PADS.items()},
    **{
        getattr(aten, f"{name}_backward").default: partial(_pad_backward, rule)
        for name, rule in _PADS.items()
    },
}
