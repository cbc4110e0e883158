"""The shared loop: what its program reads and writes, and what a replaced update may add to it."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_linear as tiny
import torch
from torch import Tensor, nn

from clue_mobile.flat import FlatModel
from clue_mobile.methods.config import DescentConfig
from clue_mobile.methods.descent import Descent, Objective, Steps, cross_entropy, onehot, update
from clue_mobile.plan import Value


def towards(logits: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    loss = cross_entropy(logits, labels)
    return loss, loss.detach()


OBJECTIVE = Objective(towards)


def names(ports: tuple) -> list[str]:
    return [port.name for port in ports]


@pytest.mark.parametrize(("batch_norm", "moved"), [("batch", ["buffers_next"]), ("frozen", [])])
def test_the_programs_ports(batch_norm: str, moved: list[str]) -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 3))
    module[2].bias.requires_grad_(False)
    model = FlatModel(module, tiny.SPEC)
    config = DescentConfig(batch_norm=batch_norm)
    carries = {"extra": Value("carry", (5,), {"zeros": True})}
    steps = Steps(model, config, 4, OBJECTIVE, (onehot(model, 4),), mask=True, carries=carries)
    program = steps.program()
    assert names(program.inputs) == [
        "params", "frozen", "buffers", "extra", "momentum", "mask", "x", "onehot", "lr",
    ]  # fmt: skip
    assert names(program.outputs) == ["params_next", *moved, "extra_next", "momentum_next", "loss"]
    values = steps.values()
    assert values["momentum"].shape == (model.sizes["params"] + 5,)
    assert values["mask"].storage == "bits"
    assert steps.scalars() == {"epochs": 10, "lr": 1e-3, "stop_every": 0, "stop_accuracy": 0}


def test_the_program_is_the_eager_step() -> None:
    model, generator = tiny.flat(), torch.Generator().manual_seed(0)
    config = DescentConfig(momentum=0.5)
    program = Steps(model, config, 4, OBJECTIVE, (onehot(model, 4),), mask=True).program()
    state, (momentum, mask) = model.pack(), (torch.rand(6, generator=generator) for _ in range(2))
    mask = (mask > 0.5).float()
    x, labels = torch.rand(4, 1, 1, 2, generator=generator), torch.eye(3)[[0, 1, 2, 0]]
    lr = torch.tensor(0.1)
    params, velocity, loss = program.fn(state["params"], momentum, mask, x, labels, lr)
    changed, wanted, (metric,) = update(model, config, OBJECTIVE, state, momentum, x, (labels,), lr, mask)
    assert torch.equal(params, changed["params"])
    assert torch.equal(velocity, wanted)
    assert torch.equal(loss, metric)
    # and by hand: the masked gradient of the mean cross-entropy
    w, pixels = np.array(tiny.WEIGHT), x.view(4, 2).numpy()
    gradient = (tiny.softmax(pixels @ w.T) - labels.numpy()).T @ pixels / 4 * mask.view(3, 2).numpy()
    v = 0.5 * momentum.view(3, 2).numpy() + gradient
    np.testing.assert_allclose(velocity.view(3, 2), v, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(params.view(3, 2), w - 0.1 * v, rtol=1e-5, atol=1e-7)


def test_an_epoch_tells_watch_and_the_log_what_it_is_given() -> None:
    run = Descent(
        tiny.linear(), tiny.SPEC, tiny.images((9, 9), (99, 9), (9, 99)), np.zeros(3, np.int64),
        DescentConfig(augment="none"), seed=0, batch=2, watch=lambda model, values, row: seen(values, row),
    )  # fmt: skip
    found = []

    def seen(values: object, row: dict[str, float]) -> bool:
        found.append((set(values), dict(row)))
        return len(found) == 3

    notes = {"note": 7.0}
    labels = lambda epoch, part: (run.data.onehot(part),)  # noqa: E731
    assert not run.epoch(0, OBJECTIVE, labels, notes=notes, carried={"more": torch.zeros(1)})
    assert run.epoch(1, OBJECTIVE, labels, notes=notes, mask=torch.ones(6))
    assert [(row["epoch"], row["step"], row["note"]) for row in run.finish()] == [
        (0, 1, 7), (0, 2, 7), (1, 1, 7),
    ]  # fmt: skip
    assert [keys for keys, _ in found] == [{"params", "momentum", "more"}] * 2 + [
        {"params", "momentum", "mask"}
    ]
