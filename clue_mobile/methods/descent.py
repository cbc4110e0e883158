"""SGD on the forget set, once: as an eager loop (`Descent`) and as a program with its part of the plan
(`Steps`). Both take their step from `update`, and a method says what is minimised (`Objective`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clue_mobile import plan
from clue_mobile.flat import BatchNorm, FlatModel, State
from clue_mobile.lowering.optimizer import sgd
from clue_mobile.methods import Watch
from clue_mobile.methods.batches import Batches
from clue_mobile.methods.config import DescentConfig
from clue_mobile.plan import Loss, Node, Port, Program, Value
from clue_mobile.spec import ModelSpec

Array = np.ndarray[Any, Any]
Targets = Callable[[int, Array], Sequence[Tensor]]
"""What the objective needs besides the logits, of an epoch and of these positions of the forget set."""

ZEROS = {"zeros": True}


@dataclass(frozen=True)
class Objective:
    """What the steps minimise: fn of (logits [B, K], *targets) gives (loss, *metrics), all scalars, the first
    of which is differentiated; `metrics` are the names of the others."""

    fn: Callable[..., tuple[Tensor, ...]]
    metrics: tuple[str, ...] = ("loss",)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy with target distributions, such as one-hot rows; [N, K] each."""
    return -(target * F.log_softmax(logits, 1)).sum(1).mean()


class Stepping(Protocol):
    """What `update` asks of a config."""

    @property
    def momentum(self) -> float:
        """Of SGD."""

    @property
    def batch_norm(self) -> BatchNorm:
        """Whose statistics normalise."""


def differentiate(
    model: FlatModel,
    config: Stepping,
    objective: Objective,
    state: State,
    x: Tensor,
    targets: Sequence[Tensor],
) -> tuple[Tensor, dict[str, Tensor], Sequence[Tensor]]:
    """(the gradient [P], what changes of `state` besides the parameters, the metrics)."""
    leaves = model.leaves(state)
    logits, moved = model.forward(leaves, state, x, config.batch_norm)
    loss, *metrics = objective.fn(logits, *targets)
    return model.gradient(loss, leaves), moved, metrics


def update(
    model: FlatModel,
    config: Stepping,
    objective: Objective,
    state: State,
    momentum: Tensor,
    x: Tensor,
    targets: Sequence[Tensor],
    lr: Tensor,
    mask: Tensor | None = None,
) -> tuple[dict[str, Tensor], Tensor, Sequence[Tensor]]:
    """One step: (what changes of `state`, the new momentum [P], the metrics)."""
    gradient, moved, metrics = differentiate(model, config, objective, state, x, targets)
    if mask is not None:
        gradient = gradient * mask
    params, momentum = sgd(state["params"], momentum, gradient, lr, config.momentum)
    return {**moved, "params": params}, momentum, metrics


def towards(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The mean cross-entropy with these labels, one-hot, twice: to be minimised and as a metric; [N, K]
    each."""
    loss = cross_entropy(logits, labels)
    return loss, loss.detach()


TOWARDS = Objective(towards)


# eager


class Descent:
    """The loop in eager PyTorch. `state` holds the values that a step changes, by their names in the plan.

    images: uint8 [N, H, W, C], labels: class indices [N]. `watch(model, values, row)` sees every step and may
    end the run by returning True. `update` may be replaced by another step.
    """

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        images: Array,
        labels: Array,
        config: DescentConfig,
        *,
        seed: int,
        batch: int,
        watch: Watch | None = None,
    ) -> None:
        self.module, self.config, self.batch = module, config, batch
        self.model = FlatModel(module, spec)
        self.state = self.model.pack()
        self.momentum = torch.zeros_like(self.state["params"])
        self.data = Batches(images, labels, spec.num_classes, seed, config.augment)
        self.log: list[dict[str, float]] = []
        self.update: Callable[..., Any] = update
        self._watch = watch

    def run(self, objective: Objective, targets: Targets | None = None) -> list[dict[str, float]]:
        """All epochs, for a method that does nothing in between; returns the log. targets: by default the
        labels, one-hot."""
        for epoch in range(self.config.epochs):
            if self.epoch(epoch, objective, targets or (lambda _, part: (self.data.onehot(part),))):
                break
        return self.finish()

    def epoch(
        self,
        epoch: int,
        objective: Objective,
        targets: Targets,
        *,
        mask: Tensor | None = None,
        notes: Mapping[str, float] | None = None,
        carried: Mapping[str, Tensor] | None = None,
        within: Array | None = None,
        before: int = 0,
    ) -> bool:
        """One pass; True where the run is to end. mask: of the gradient. notes, carried: added to the rows of
        the log and to the values that `watch` sees; read after the targets. within: only over this outer
        batch of the epoch, with `before` steps in front of it."""
        for step, part in enumerate(self.data.cut(epoch, self.batch, within), 1 + before):
            given = targets(epoch, part)
            changed, self.momentum, metrics = self.update(
                self.model,
                self.config,
                objective,
                self.state,
                self.momentum,
                self.data.x(epoch, part),
                given,
                torch.tensor(self.config.lr),
                mask,
            )
            self.momentum = self.momentum.detach()
            self.state = {key: t.detach() for key, t in {**self.state, **changed}.items()}
            found = {name: metric.item() for name, metric in zip(objective.metrics, metrics, strict=True)}
            row = {"epoch": epoch, "step": step, **found, **(notes or {})}
            self.log.append(row)
            masked = {} if mask is None else {"mask": mask}
            values = {**self.state, "momentum": self.momentum, **masked, **(carried or {})}
            done = self._watch is not None and self._watch(self.model, values, row)
            every = self.config.stop_every
            if (every and step % every == 0 and self._low_enough(epoch)) or done:
                return True
        return False

    def _low_enough(self, epoch: int) -> bool:
        n = len(self.data.images)
        count = min(self.config.stop_samples, n)
        probe = np.arange(count) * n // count
        found = self.model.predict(self.state, self.data.x(epoch, probe, plain=True)).detach().argmax(1)
        correct = np.count_nonzero(found.numpy() == self.data.labels[probe])
        return bool(100 * correct / len(probe) <= self.config.stop_accuracy)

    def finish(self) -> list[dict[str, float]]:
        """Give the module the weights that were reached; returns the log."""
        self.module.load_state_dict(self.model.state_dict(self.state), strict=False)
        return self.log


# programs and plan


@dataclass(frozen=True)
class Steps:
    """The same loop as the program `step` and the plan's phase of that name.

    targets: the ports of what the objective needs besides the logits. mask: the gradient is multiplied with
    the carried value `mask`. carries: further values that `update` reads from and changes in the state.
    """

    model: FlatModel
    config: DescentConfig
    batch: int
    objective: Objective
    targets: tuple[Port, ...] = ()
    mask: bool = False
    carries: Mapping[str, Value] = field(default_factory=dict)
    update: Callable[..., Any] = update

    def carry(self, name: str) -> Port:
        """A carried vector with a number for each parameter, as an input; see also `following`."""
        return Port(name, "carry", (self.model.sizes["params"],), name)

    def values(self) -> dict[str, Value]:
        """The state and what the steps hold."""
        size = sum(value.shape[0] for value in self.carries.values()) + self.model.sizes["params"]
        values = {
            **self.model.values(),
            **self.carries,
            "momentum": Value("carry", (size,), ZEROS),
        }
        if self.mask:
            values["mask"] = Value("carry", (size,), ZEROS, storage="bits")
        return values

    def scalars(self, *more: str) -> dict[str, float]:
        """These fields of the config and those of the loop, which a request may change."""
        names = ("epochs", "lr", *more, "stop_every", "stop_accuracy")
        return {name: float(getattr(self.config, name)) for name in names}

    def program(self) -> Program:
        """state, carries, momentum, mask, x, targets, lr -> what changes of them, and the metrics."""
        moved = ["params", *self.model.moving(self.config.batch_norm)]
        values = self.values()
        carries = tuple(Port(name, "carry", values[name].shape, name) for name in self.carries)
        momentum = Port("momentum", "carry", values["momentum"].shape, "momentum")
        mask = (self.carry("mask"),) if self.mask else ()

        def fn(*inputs: Tensor) -> tuple[Tensor, ...]:
            state, given = self.model.unflatten(inputs)
            rest = list(given)
            state.update({name: rest.pop(0) for name in self.carries})
            velocity = rest.pop(0)
            on = rest.pop(0) if self.mask else None
            x, *targets, lr = rest
            changed, velocity, metrics = self.update(
                self.model, self.config, self.objective, state, velocity, x, targets, lr, on
            )
            return *(changed[name] for name in (*moved, *self.carries)), velocity, *metrics

        inputs = (
            *self.model.state_ports(),
            *carries,
            momentum,
            *mask,
            pixels(self.model, self.batch),
            *self.targets,
        )
        outputs = (*self.model.next_ports(moved), *(following(port) for port in (*carries, momentum)))
        metrics = tuple(Port(name, "metric", ()) for name in self.objective.metrics)
        lr = Port("lr", "scalar", (), "lr")
        return Program("step", self.batch, (*inputs, lr), (*outputs, *metrics), fn)

    def phase(self, *before: Node) -> Node:
        """One epoch's steps; `before` is carried out in front of each."""
        stop = plan.stop("predict", "stop_every", self.config.stop_samples, "stop_accuracy")
        body = plan.batches(self.batch, *before, plan.run("step"), stop, augment=self.config.augment)
        return plan.phase("step", body)

    def loss(self) -> Loss:
        """For a runtime that differentiates and updates by itself."""
        return Loss(
            self.objective.fn,
            self.targets,
            self.objective.metrics,
            self.carry("mask") if self.mask else None,
            self.config.batch_norm,
            "lr",
            self.config.momentum,
        )


def pixels(model: FlatModel, batch: int) -> Port:
    """The batch's pixels as an input."""
    return Port("x", "batch", (batch, *model.spec.input_shape), "x")


def onehot(model: FlatModel, batch: int) -> Port:
    """The batch's labels as an input."""
    return Port("onehot", "batch", (batch, model.spec.num_classes), "onehot")


def following(port: Port) -> Port:
    """The port, an input, as the output that replaces its value."""
    return dataclasses.replace(port, name=f"{port.name}_next", golden=None)
