"""What a method hands over: values, random streams, programs and the plan that drives them
(contract/plan.md).

Exporters see programs only, runtimes see the plan only, and neither knows a method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Role = Literal["state", "carry", "cache", "batch", "scalar", "random", "metric", "result"]
Node = dict[str, Any]


@dataclass(frozen=True)
class Port:
    """One input or output of a program: float32, fixed shape, joined to what `binds` names (a value, scalar,
    stream, x, onehot).

    golden: (distribution, a, b) of its golden input where the role's default does not suit
    (contract/golden.md).
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    binds: str | None = None
    golden: tuple[str, float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        port: dict[str, Any] = {
            "name": self.name,
            "role": self.role,
            "shape": list(self.shape),
            "dtype": "float32",
        }
        if self.binds is not None:
            port["binds"] = self.binds
        return port


@dataclass(frozen=True)
class Value:
    """An array that the runtime holds during a request; `shape` is one row's for the role cache."""

    role: Literal["state", "carry", "cache"]
    shape: tuple[int, ...]
    init: Mapping[str, Any]
    storage: Literal["float32", "bits"] = "float32"

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "role": self.role,
            "shape": list(self.shape),
            "init": dict(self.init),
            "storage": self.storage,
        }


@dataclass(frozen=True)
class Random:
    """A named random stream; one draw of `shape` for each sample (contract/rng.md)."""

    stream: int
    distribution: Literal["normal", "uniform", "onehot"]
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    classes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's form."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return {**fields, "shape": list(self.shape)}


@dataclass(frozen=True)
class Program:
    """A pure function of tensors in the order of `inputs`, returning a tuple in the order of `outputs`.

    float16: it computes in float16 between its float32 ports; only for runtimes that can (`FLOAT16` of an
    exporter).
    """

    name: str
    batch: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    fn: Callable[..., tuple[Any, ...]] = field(repr=False)
    float16: bool = False


@dataclass(frozen=True)
class Loss:
    """What a method's steps minimise, for a runtime that differentiates and updates by itself with SGD:
    v = momentum v + g, w = w - lr v.

    fn: (logits [B, K], *targets) -> (loss, *metrics), scalars; the first is differentiated. targets: ports of
    what it needs besides the logits. metrics: names of the others. mask: the vector of 0 and 1 that the
    gradient is multiplied with. batch_norm: whose statistics normalise in a step (see `FlatModel.forward`).
    lr: the scalar's name.
    """

    fn: Callable[..., tuple[Any, ...]] = field(repr=False)
    targets: tuple[Port, ...]
    metrics: tuple[str, ...]
    mask: Port | None
    batch_norm: Literal["batch", "batch_keep_running", "frozen"]
    lr: str
    momentum: float


@dataclass(frozen=True)
class Recipe:
    """A method made ready for one model and batch size.

    loss: None where its steps are no plain SGD. tensors: what the bundle ships besides the weights, float32
    arrays by key by the safetensors file's path in the bundle; a value's init {"file": ..., "key": ...} names
    them.
    """

    values: Mapping[str, Value]
    randoms: Mapping[str, Random]
    programs: Sequence[Program]
    scalars: Mapping[str, float]
    plan: Sequence[Node]
    loss: Loss | None = None
    tensors: Mapping[str, Mapping[str, np.ndarray[Any, Any]]] = field(default_factory=dict)


def phase(name: str, *body: Node) -> Node:
    """The body, its cost recorded under `name`."""
    return {"phase": name, "body": list(body)}


def epochs(count: str | int, *body: Node) -> Node:
    """The body for epochs 0, 1, ...; count is a number or the name of a scalar."""
    return {"loop": "epochs", "count": count, "body": list(body)}


def repeat(count: str | int, *body: Node) -> Node:
    """The body several times, random streams moving on."""
    return {"loop": "repeat", "count": count, "body": list(body)}


def batches(size: int, *body: Node, augment: str | None = None) -> Node:
    """The body for each batch of the epoch's order (or of the enclosing batch); `augment` on the outermost
    loop only."""
    node: Node = {"loop": "batches", "size": size, "body": list(body)}
    if augment is not None:
        node["augment"] = augment
    return node


def reset(*values: str) -> Node:
    """Give these values their initial content again."""
    return {"reset": list(values)}


def run(program: str, **bind: str) -> Node:
    """Run a program once; `bind` joins a port to another name than its own. A node may get variants to run
    "instead" later (`cuts`)."""
    return {"run": program, "bind": bind} if bind else {"run": program}


def stop(program: str, every: str | int, samples: int, accuracy_at_most: str | float) -> Node:
    """Leave the epochs loop once the forget accuracy on at most `samples` images is low enough."""
    return {
        "stop": {"program": program, "every": every, "samples": samples, "accuracy_at_most": accuracy_at_most}
    }


def version(nodes: Sequence[Node]) -> int:
    """The least manifest version that has what these nodes need: 2 for variants to run instead, else 1."""
    needs = any("instead" in node or version(node.get("body", ())) == 2 for node in nodes)
    return 2 if needs else 1
