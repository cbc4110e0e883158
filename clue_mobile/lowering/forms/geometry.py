"""What a convolution's form depends on, and what a form is."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from clue_mobile.errors import ClueError
from clue_mobile.lowering import windows

Ints = tuple[int, ...]
_KEY = re.compile(
    r"n(?P<batch>\d+) c(?P<channels>\d+) (?P<size>[\dx]+) o(?P<outputs>\d+) k(?P<kernel>[\dx]+) "
    r"s(?P<stride>[\dx]+) p(?P<padding>[\dx]+) d(?P<dilation>[\dx]+) g(?P<groups>\d+)"
)


@dataclass(frozen=True)
class Geometry:
    """A convolution of x [batch, channels, *size] with a weight [outputs, channels / groups, *kernel]."""

    batch: int
    channels: int
    size: Ints
    outputs: int
    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int

    @property
    def out(self) -> Ints:
        """The spatial axes of the result."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)

    @property
    def taps(self) -> int:
        """Elements of the kernel."""
        return math.prod(self.kernel)

    @property
    def flops(self) -> int:
        """Of each of the three products, 2 per multiply-add."""
        share = self.outputs * self.channels // self.groups
        return 2 * self.batch * math.prod(self.out) * self.taps * share

    @property
    def plane(self) -> bool:
        """Two spatial axes, and a result that is not empty."""
        return len(self.kernel) == 2 and min(self.out) > 0

    @property
    def dense(self) -> bool:
        """A plane whose channels all meet."""
        return self.plane and self.groups == 1

    @property
    def depthwise(self) -> bool:
        """A plane whose channels meet nothing but their own kernels, one each."""
        return self.plane and self.groups == self.channels == self.outputs and self.groups > 1

    @property
    def pointwise(self) -> bool:
        """A dense kernel of one element and no padding."""
        return self.dense and self.taps == 1 and not any(self.padding)

    @property
    def steps_by_one(self) -> bool:
        """No stride."""
        return set(self.stride) == {1}

    @property
    def plain(self) -> bool:
        """No dilation."""
        return set(self.dilation) == {1}

    def key(self) -> str:
        """As cost tables spell it, such as `n32 c16 32x32 o16 k3x3 s1x1 p1x1 d1x1 g1`."""

        def by(values: Ints) -> str:
            return "x".join(map(str, values))

        return (
            f"n{self.batch} c{self.channels} {by(self.size)} o{self.outputs} k{by(self.kernel)} "
            f"s{by(self.stride)} p{by(self.padding)} d{by(self.dilation)} g{self.groups}"
        )

    @classmethod
    def parse(cls, key: str) -> Geometry:
        """The inverse of `key`. Raises ClueError for any other text."""
        match = _KEY.fullmatch(key)
        if match is None:
            raise ClueError(
                f"{key!r} is no convolution's shape: write it like n32 c16 32x32 o16 k3x3 s1x1 p1x1 d1x1 g1"
            )
        found: dict[str, Any] = {}
        for name, text in match.groupdict().items():
            numbers = tuple(int(part) for part in text.split("x") if part)
            found[name] = numbers[0] if name in ("batch", "channels", "outputs", "groups") else numbers
        return cls(**found)

    def mirrored(self) -> Geometry | None:
        """The convolution of the output gradient that gives the input gradient, with the kernel turned
        around and input and output channels exchanged: stride 1 only, None where it would need a negative
        padding."""
        if not self.steps_by_one:
            return None
        reach = tuple(
            d * (k - 1) - p for k, p, d in zip(self.kernel, self.padding, self.dilation, strict=True)
        )
        if min(reach) < 0 or not self.plane:
            return None
        return replace(self, channels=self.outputs, outputs=self.channels, size=self.out, padding=reach)


def geometry(
    x: Sequence[int],
    weight: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Geometry:
    """Of the shapes of x and the weight, and the arguments of `aten.convolution`."""
    axes = len(x) - 2
    stride, padding, dilation = (tuple(windows.per_axis(v, axes)) for v in (stride, padding, dilation))
    return Geometry(
        int(x[0]), int(x[1]), tuple(map(int, x[2:])), int(weight[0]), tuple(map(int, weight[2:])),
        tuple(stride), tuple(padding), tuple(dilation), groups,
    )  # fmt: skip


@dataclass(frozen=True)
class Form:
    """One way to compute a product: a pure function of two tensors and the geometry.

    admits: whether it computes the product of a geometry; with any other it must not be called.
    """

    function: Callable[[Tensor, Tensor, Geometry], Tensor]
    admits: Callable[[Geometry], bool]

    def __call__(self, first: Tensor, second: Tensor, at: Geometry) -> Tensor:
        """The product."""
        return self.function(first, second, at)


def form(
    admits: Callable[[Geometry], bool],
) -> Callable[[Callable[[Tensor, Tensor, Geometry], Tensor]], Form]:
    """Decorator: make a form of a function."""
    return lambda function: Form(function, admits)
