"""A classifier as a pure function of flat float32 vectors: params, frozen, buffers.

A handful of vectors instead of hundreds of tensors: what a phone binds, updates, checkpoints and erases. The
table says where each tensor lies; the normalisation is inside, so that every program takes pixels in [0, 1].
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from clue_mobile.errors import ClueError
from clue_mobile.plan import Port, Value
from clue_mobile.spec import ModelSpec

BatchNorm = Literal["batch", "batch_keep_running", "frozen"]
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """One tensor of the model inside a flat vector: `value`[offset : offset + numel] viewed as `shape`."""

    name: str
    shape: tuple[int, ...]
    value: str
    offset: int
    kind: Literal["parameter", "buffer"]
    trainable: bool

    @property
    def numel(self) -> int:
        """Number of elements (1 for a scalar)."""
        return int(torch.Size(self.shape).numel())

    def to_json(self) -> dict[str, object]:
        """The manifest's form."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "value": self.value,
            "offset": self.offset,
            "kind": self.kind,
            "trainable": self.trainable,
        }


class FlatModel:
    """`module` with its parameters and buffers taken out. The module given is copied and left alone.

    Parameters that do not require a gradient are frozen state; so are the running statistics of a batch norm
    whose own parameters all are. Raises ClueError where the model keeps state that no program can carry.
    """

    def __init__(self, module: nn.Module, spec: ModelSpec) -> None:
        self.spec = spec
        _admit(module)
        # what a hook works out anew in each forward pass, as the old weight_norm does, cannot be copied
        made = [v for m in module.modules() for v in vars(m).values() if isinstance(v, Tensor)]
        self._module = copy.deepcopy(module, {id(v): v.detach().clone() for v in made}).eval()
        for name, layer in self._module.named_modules():
            if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
                if layer.momentum is None:
                    raise ClueError(
                        f"layer {name!r} averages its running statistics over all batches ever seen "
                        f"(momentum=None), which no program "
                        "can carry on: set a momentum, such as 0.1"
                    )
                layer.num_batches_tracked = None  # only a count, and an integer; saved files keep the old one
        self._norms = [m for m in self._module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._stop = 0  # see stopped_at
        self._scale = 0.0  # see in_float16
        self.entries = self._table()
        self._places = _places(self._module)

    @property
    def module(self) -> nn.Module:
        """The copy that this was made of: to be looked at and copied, not changed."""
        return self._module

    @property
    def has_batch_norm(self) -> bool:
        """Whether samples of a batch could see each other in the forward pass."""
        return bool(self._norms)

    def _table(self) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        size: dict[str, int] = {}

        def add(name: str, tensor: Tensor, value: str, kind: Literal["parameter", "buffer"]) -> None:
            offset = size.get(value, 0)
            entries.append(Entry(name, tuple(tensor.shape), value, offset, kind, value == "params"))
            size[value] = offset + tensor.numel()

        for name, parameter in self._module.named_parameters():
            add(name, parameter, "params" if parameter.requires_grad else "frozen", "parameter")
        for name, buffer in self._module.named_buffers():
            if buffer.is_floating_point():
                add(name, buffer, "buffers", "buffer")
        if "params" not in size:
            raise ClueError(
                "the model has no trainable parameter: nothing could be forgotten; unfreeze some "
                "(requires_grad_), or name them with --train-only"
            )
        self.sizes: dict[str, int] = {
            name: size[name] for name in ("params", "frozen", "buffers") if name in size
        }
        return tuple(entries)

    def named(self, value: str, vector: Tensor) -> dict[str, Tensor]:
        """The tensors of `value` as views of its flat vector."""
        return {
            e.name: vector[e.offset : e.offset + e.numel].view(e.shape)
            for e in self.entries
            if e.value == value
        }

    def pack(self, tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Flat vectors of `tensors` (default: the module's own), keys as in `sizes`."""
        if tensors is None:
            tensors = {**dict(self._module.named_parameters()), **dict(self._module.named_buffers())}
        return {
            value: torch.cat([tensors[e.name].detach().reshape(-1) for e in self.entries if e.value == value])
            for value in self.sizes
        }

    def state_dict(self, state: State) -> dict[str, Tensor]:
        """Flat vectors as the tensors that `module.load_state_dict(..., strict=False)` takes (counts are not
        in it)."""
        return {
            name: t.clone() for value in self.sizes for name, t in self.named(value, state[value]).items()
        }

    def leaves(self, state: State) -> dict[str, Tensor]:
        """The trainable tensors as autograd leaves."""
        before = {e.name for e in self.entries if e.value == "params" and e.offset < self._stop}
        return {
            name: t.detach().clone().requires_grad_(name not in before)
            for name, t in self.named("params", state["params"]).items()
        }

    @contextlib.contextmanager
    def stopped_at(self, offset: int) -> Iterator[None]:
        """Inside, gradients of the tensors that lie in front of `offset` in `params` are not computed but
        taken for zero, and a backward pass ends where only these are left."""
        self._stop, outer = offset, self._stop
        try:
            yield
        finally:
            self._stop = outer

    @contextlib.contextmanager
    def in_float16(self, loss_scale: float) -> Iterator[None]:
        """Inside, the module computes in float16 between vectors and logits of their own type, and gradients
        are those of `loss_scale` times the loss, divided by it again."""
        self._scale, outer = loss_scale, self._scale
        try:
            yield
        finally:
            self._scale = outer

    def forward(
        self, leaves: Mapping[str, Tensor], state: State, x: Tensor, batch_norm: BatchNorm = "frozen"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [N, K] of pixels x [N, C, H, W], and what `state` becomes besides its parameters
        ({"buffers": ...} if it changes).

        Dropout and stochastic depth are off; `batch_norm` says which statistics normalise and whether running
        ones move.
        """
        for layer in self._norms:
            own = [parameter.requires_grad for parameter in layer.parameters()]
            layer.train(batch_norm != "frozen" and (any(own) or not own))
        return self._call(leaves, state, x, batch_norm == "batch")

    def moving(self, batch_norm: BatchNorm) -> list[str]:
        """The vectors of the state that `forward` changes in this mode."""
        return ["buffers"] if "buffers" in self.sizes and batch_norm == "batch" else []

    def _call(
        self, leaves: Mapping[str, Tensor], state: State, x: Tensor, moves: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`forward` with the norm layers as they are set; `moves` says whether the buffers are returned."""
        tensors = {**leaves}
        if "frozen" in state:
            tensors.update(self.named("frozen", state["frozen"]))
        buffers: dict[str, Tensor] = {}
        if "buffers" in state:
            buffers = {name: t.clone() for name, t in self.named("buffers", state["buffers"]).items()}
        mean, std = (
            torch.tensor(v, dtype=x.dtype).view(1, -1, 1, 1) for v in (self.spec.mean, self.spec.std)
        )
        with _unchanged(self._module):
            tensors |= buffers
            placed = {place: tensors[name] for place, name in self._places.items() if name in tensors}
            pixels = (x - mean) / std
            if self._scale:
                placed, pixels = {place: t.half() for place, t in placed.items()}, pixels.half()
            logits = functional_call(self._module, placed, (pixels,), tie_weights=False)
        if self._scale and isinstance(logits, Tensor):
            logits = logits.to(x.dtype)
        if not isinstance(logits, Tensor):
            raise ClueError(
                f"the model returns {_described(logits)}{_place(self._module)}, not logits of shape "
                f"({x.shape[0]}, {self.spec.num_classes}): wrap it in a module that returns its logits alone"
            )
        if logits.shape != (x.shape[0], self.spec.num_classes):
            raise ClueError(
                f"the model returns {tuple(logits.shape)}, not logits of shape "
                f"({x.shape[0]}, {self.spec.num_classes}): check --classes"
            )
        changed = moves and bool(buffers)
        return logits, {"buffers": torch.cat([b.reshape(-1) for b in buffers.values()])} if changed else {}

    def predict(self, state: State, x: Tensor) -> Tensor:
        """Logits [N, K] in eval mode."""
        return self.forward(self.named("params", state["params"]), state, x)[0]

    def settled(self, state: State, x: Tensor) -> Tensor:
        """The buffers with running statistics that are those of the batch x [N, C, H, W], N above 1."""
        momenta = [layer.momentum for layer in self._norms]
        try:
            for layer in self._norms:
                layer.momentum = 1.0
                layer.train()
            with torch.no_grad():
                return self._call(self.named("params", state["params"]), state, x, True)[1]["buffers"]
        finally:
            for layer, momentum in zip(self._norms, momenta, strict=True):
                layer.momentum = momentum

    def gradient(self, loss: Tensor, leaves: Mapping[str, Tensor], keep_graph: bool = False) -> Tensor:
        """dL/dparams as one flat vector [P]; zero where a parameter takes no part. keep_graph: for another
        gradient of the same forward pass."""
        wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
        if self._scale:
            loss = loss * self._scale
        grads = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, retain_graph=keep_graph)
        found = dict(zip(wanted, grads, strict=True))
        flat = [
            (torch.zeros_like(leaf) if found.get(name) is None else found[name]).reshape(-1)
            for name, leaf in leaves.items()
        ]
        whole = torch.cat(flat)
        return whole / self._scale if self._scale else whole

    # what every method declares alike

    def values(self) -> dict[str, Value]:
        """The state's vectors as values of the plan."""
        return {name: Value("state", (size,), {"weights": name}) for name, size in self.sizes.items()}

    def state_ports(self) -> tuple[Port, ...]:
        """The state as the first inputs of a program."""
        return tuple(Port(name, "state", (size,), name) for name, size in self.sizes.items())

    def next_ports(self, names: Iterable[str]) -> tuple[Port, ...]:
        """These vectors of the state as outputs of a program."""
        return tuple(Port(f"{name}_next", "state", (self.sizes[name],), name) for name in names)

    def unflatten(self, tensors: tuple[Tensor, ...]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Split a program's inputs into (state, the rest)."""
        n = len(self.sizes)
        return dict(zip(self.sizes, tensors[:n], strict=True)), tensors[n:]


def _places(module: nn.Module) -> dict[str, str]:
    """Every place of a parameter or buffer, each once, and the name that `entries` has for the tensor there.

    A layer that the model reaches by several names is one place: set twice, it would be put back to what the
    first setting left. A tensor that several layers share has several places.
    """
    first = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
    places = {}
    for prefix, layer in module.named_modules():
        for key, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            if tensor is not None:
                places[f"{prefix}.{key}" if prefix else key] = first[id(tensor)]
    return places


@contextlib.contextmanager
def _unchanged(module: nn.Module) -> Iterator[None]:
    """Attributes that a forward pass sets are put back: what some layers keep in eval mode, when weights do
    not change (LeViT's attention biases), would be the weights of another call."""
    kept = [
        (
            layer,
            {
                name: copy.copy(value) if type(value) in (dict, list) and name[0] != "_" else value
                for name, value in vars(layer).items()
            },
        )
        for layer in module.modules()
    ]
    try:
        yield
    finally:
        for layer, attributes in kept:
            vars(layer).clear()
            vars(layer).update(attributes)


# what no program can be made of


def _admit(module: nn.Module) -> None:
    """Raises ClueError, naming the layer or the tensor, for weights that no float32 program can hold."""
    for name, layer in module.named_modules():
        kind = type(layer)
        tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        if any(is_lazy(tensor) for _, tensor in tensors):
            raise ClueError(
                f"layer {name!r} ({kind.__name__}) has no weights yet, since it takes its size from the "
                "first input: run one batch through the model first"
            )
        quantized = kind.__module__.startswith("torch.") and "quantized" in kind.__module__
        if quantized or any(tensor.is_quantized for _, tensor in tensors):
            raise ClueError(
                f"layer {name!r} ({kind.__name__}) is quantized, and whole numbers cannot be trained: take "
                "the float32 model that it was made from"
            )
        for key, tensor in tensors:
            path = f"{name}.{key}".lstrip(".")
            parameter = isinstance(tensor, nn.Parameter)
            if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype.itemsize < 4):
                remedy = (
                    "no runtime has complex numbers" if tensor.is_complex() else "call module.float() first"
                )
                raise ClueError(
                    f"the {'parameter' if parameter else 'buffer'} {path!r} is {tensor.dtype}, and programs "
                    f"compute in float32: {remedy}"
                )
            if parameter and not tensor.is_floating_point():
                raise ClueError(
                    f"the parameter {path!r} is {tensor.dtype}, which has no gradient: make it a buffer"
                )


def _described(result: object) -> str:
    """What a model returns, in words: the kind and what is in it."""
    if isinstance(result, Tensor):
        return f"a tensor {tuple(result.shape)}"
    kind = type(result).__name__
    if isinstance(result, Mapping):
        return f"a {kind} of {', '.join(map(repr, result)) or 'nothing'}"
    if isinstance(result, (tuple, list)):
        names = getattr(result, "_fields", None)
        parts = [
            f"{name}={_described(part)}" if name else _described(part)
            for name, part in zip(names or [""] * len(result), result, strict=True)
        ]
        return f"a {kind} of {len(parts)} ({', '.join(parts)})"
    return f"a {kind}"


def _place(module: nn.Module) -> str:
    """Where the module's forward stands, as " (FILE, line N)", or ""."""
    try:
        code = inspect.unwrap(type(module).forward).__code__
    except (AttributeError, ValueError):
        return ""
    return f" ({code.co_filename}, line {code.co_firstlineno})"
