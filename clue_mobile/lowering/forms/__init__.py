"""The three products of a convolution in several forms each, equal up to rounding.

Which one is fast depends on the runtime, the machine and the shape: `kernel_costs` measures, `choice` puts
the cheapest into a program. A form is one function in the file of its product and one line in that file's
`FORMS`; all are made of forward operators of rank 5 at most, without negative pads, so every exporter takes
them.
"""

from __future__ import annotations

from collections.abc import Mapping

from clue_mobile.lowering.forms import forward, input_gradient, weight_gradient
from clue_mobile.lowering.forms.geometry import Form, Geometry, geometry

__all__ = ["OWN", "PRODUCTS", "Form", "Geometry", "admitted", "geometry", "shapes"]

PRODUCTS: Mapping[str, Mapping[str, Form]] = {
    "forward": forward.FORMS,
    "input_gradient": input_gradient.FORMS,
    "weight_gradient": weight_gradient.FORMS,
}
OWN = "own"  # what the exporter does where nothing is chosen


def admitted(product: str, at: Geometry) -> list[str]:
    """The names of the forms that compute a product of this geometry."""
    return [name for name, form in PRODUCTS[product].items() if form.admits(at)]


def shapes(product: str, at: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the two tensors that a form of the product takes."""
    x, grad = (at.batch, at.channels, *at.size), (at.batch, at.outputs, *at.out)
    weight = (at.outputs, at.channels // at.groups, *at.kernel)
    return {"forward": (x, weight), "input_gradient": (grad, weight), "weight_gradient": (grad, x)}[product]
