"""Cost tables: from measured costs to the form of a product."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from clue_mobile.errors import ClueError
from clue_mobile.lowering import choice
from clue_mobile.lowering.choice import Choose
from clue_mobile.lowering.forms import OWN, PRODUCTS, Geometry
from clue_mobile.lowering.graft import Table
from pi_runtime.kernel_costs import Record, read_records

# a form replaces the exporter's own only where it is cheaper by more than two measurements differ
MARGIN = 0.03
# the same of costs that were estimated, not measured
ESTIMATED_MARGIN = 0.25
# how far an unknown shape may be from a measured one, in doublings of channels and pixels (see `_distance`)
FARTHEST = 3.0
_DEFAULTS = {"x86_64": "x86-64.json", "AMD64": "x86-64.json", "aarch64": "cortex-a76.json"}
_TARGETS = {"pi5": "cortex-a76.json"}


def _distance(a: Geometry, b: Geometry) -> float:
    """Doublings between two shapes of one class: of channels in and out, of pixels, and half of the batch."""

    def doublings(first: int, second: int) -> float:
        return abs(math.log2(first / second))

    return (
        doublings(a.channels, b.channels)
        + doublings(a.outputs, b.outputs)
        + doublings(math.prod(a.size), math.prod(b.size))
        + doublings(a.batch, b.batch) / 2
    )


def _class(product: str, at: Geometry) -> tuple[object, ...]:
    """What two shapes must share for one to say something of the other."""
    groups = "dense" if at.groups == 1 else "depthwise" if at.depthwise else at.groups
    return product, at.kernel, at.stride, at.padding, at.dilation, groups


def _cheapest(ms: dict[str, float], margin: float, product: str, at: Geometry) -> str | None:
    """The name of the cheapest form that computes the product; None for the exporter's own."""
    known = PRODUCTS[product]
    possible = {name: cost for name, cost in ms.items() if name in known and known[name].admits(at)}
    if not possible:
        return None
    name, cost = min(possible.items(), key=lambda item: item[1])
    return name if OWN not in ms or cost < (1 - margin) * ms[OWN] else None


def _together(costs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The geometric mean of each form that all have, so that a ratio counts as much at one thread as at four;
    the first one's where they have none in common."""
    forms = set(costs[0]).intersection(*costs[1:])
    if not forms:
        return costs[0]
    return {form: math.prod(each[form] for each in costs) ** (1 / len(costs)) for form in sorted(forms)}


def chooser(records: Iterable[Record], runtime: str) -> Choose | None:
    """The choice that a runtime's costs make; None where the records have none for it.

    Of a shape that was measured the cheapest form; of any other the form of the nearest measured shape of the
    same product, kernel, stride, padding, dilation and kind of groups, at most FARTHEST away; else the
    exporter's own. Of several records of a runtime all count that have the shape (see `_together`): a bundle
    runs with one thread here and with four there, and some operators use only one.
    """
    mine = sorted((r for r in records if r.runtime == runtime), key=lambda record: record.threads)
    if not mine:
        return None
    found: dict[str, list[tuple[dict[str, float], float]]] = {}
    for record in mine:
        margin = ESTIMATED_MARGIN if record.kind == "estimated" else MARGIN
        for key, entry in record.costs.items():
            if key.partition(" ")[0] in PRODUCTS:
                found.setdefault(key, []).append((entry["ms"], margin))
    exact = {key: (_together([ms for ms, _ in of]), max(m for _, m in of)) for key, of in found.items()}
    near: dict[tuple[object, ...], list[tuple[Geometry, tuple[dict[str, float], float]]]] = {}
    for key, known in exact.items():
        product, _, shape = key.partition(" ")
        at = Geometry.parse(shape)
        near.setdefault(_class(product, at), []).append((at, known))

    def choose(product: str, at: Geometry) -> str | None:
        known = exact.get(f"{product} {at.key()}")
        if known is None:
            others = near.get(_class(product, at))
            if not others:
                return None
            other, known = min(others, key=lambda pair: _distance(pair[0], at))
            if _distance(other, at) > FARTHEST:
                return None
        return _cheapest(*known, product, at)

    return choose


def defaults(target: str | None = None) -> list[Record]:
    """The costs that come with the toolkit for the processor of a target ("pi5"), or of this computer
    ("host", None); none where nothing was measured."""
    name = _TARGETS.get(target or "host")
    if name is None and target in (None, "host"):
        name = _DEFAULTS.get(platform.machine())
    if name is None:
        return []
    with resources.as_file(resources.files("clue_mobile.kernel_costs") / "defaults" / name) as path:
        return read_records(path) if path.exists() else []


def choosers(runtimes: Sequence[str], target: str | None, costs: Path | None) -> dict[str, Choose | None]:
    """The choice for each runtime: by the table `costs` where it has the runtime, else by the defaults.

    Raises ClueError for a file that is no cost table, or has costs of none of the runtimes.
    """
    given = read_records(costs) if costs is not None else []
    if costs is not None and not {record.runtime for record in given} & set(runtimes):
        has = ", ".join(sorted({record.runtime for record in given})) or "no runtime"
        raise ClueError(f"{costs} has costs of {has}, and the export is for {', '.join(runtimes)}")
    shipped = defaults(target)
    return {name: chooser(given, name) or chooser(shipped, name) for name in runtimes}


def shipped_overrides(runtime: str, target: str | None, base: Table) -> Table:
    """`base`, an exporter's OVERRIDES, with the forms that an export for `target` takes by the defaults."""
    return choice.overrides(choosers([runtime], target, None)[runtime], base)
