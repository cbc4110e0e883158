"""Putting chosen forms of a convolution's products into a program, as overrides of the lowering's table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from clue_mobile.lowering import conv
from clue_mobile.lowering.forms import PRODUCTS, Geometry, geometry
from clue_mobile.lowering.graft import Table

aten = torch.ops.aten

# (product, geometry) -> the name of an admitted form, None for what the exporter does itself
Choose = Callable[[str, Geometry], str | None]


def overrides(choose: Choose | None, base: Table) -> Table:
    """`base`, an exporter's OVERRIDES, with the forms that `choose` names in the place of its convolutions;
    `base` itself where there is nothing to choose by.

    Transposed convolutions, and products for which None is chosen, stay what they were; so do the
    convolutions that a form is made of.
    """
    if choose is None:
        return base
    own = base.get(aten.convolution.default)
    own_backward = base.get(aten.convolution_backward.default, conv.convolution_backward)
    inside = False

    @contextlib.contextmanager
    def _inside() -> Iterator[None]:
        nonlocal inside
        before, inside = inside, True
        try:
            yield
        finally:
            inside = before

    def convolution(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ) -> Any:
        name = None
        if not inside and not transposed:
            at = geometry(x.shape, weight.shape, stride, padding, dilation, groups)
            name = choose("forward", at)
        if name is None:
            given = (x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
            return NotImplemented if own is None else own(*given)
        with _inside():
            result = PRODUCTS["forward"][name](x, weight, at)
        return result if bias is None else result + bias.reshape(1, -1, *[1] * (x.dim() - 2))

    def convolution_backward(
        grad: Tensor,
        x: Tensor,
        weight: Tensor,
        bias_sizes: Sequence[int] | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
        output_mask: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        at = geometry(x.shape, weight.shape, stride, padding, dilation, groups)
        operands = {"input_gradient": (grad, weight), "weight_gradient": (grad, x)}
        chosen: list[Tensor | None] = [None, None, None]
        if not transposed:
            for index, (product, pair) in enumerate(operands.items()):
                name = choose(product, at) if output_mask[index] else None
                if name is not None:
                    with _inside():
                        chosen[index] = PRODUCTS[product][name](*pair, at)
        rest = [bool(wanted) and made is None for wanted, made in zip(output_mask, chosen, strict=True)]
        if not any(rest):
            return chosen[0], chosen[1], chosen[2]
        with _inside():
            others = own_backward(
                grad,
                x,
                weight,
                bias_sizes,
                stride,
                padding,
                dilation,
                transposed,
                output_padding,
                groups,
                rest,
            )
        first, second, third = (
            other if made is None else made for made, other in zip(chosen, others, strict=True)
        )
        return first, second, third

    return {
        **base,
        aten.convolution.default: convolution,
        aten.convolution_backward.default: convolution_backward,
    }
