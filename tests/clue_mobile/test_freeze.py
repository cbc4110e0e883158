"""Frozen parameters: state that no program changes, and backward passes that stop before it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_models import SPEC, BatchNormNet
from torch import nn
from torch.fx import GraphModule, Node

from clue_mobile import methods, models, parity
from clue_mobile.errors import ClueError
from clue_mobile.export import ExportRecipe, export
from clue_mobile.flat import FlatModel
from clue_mobile.programs import build, trace
from pi_runtime import golden
from pi_runtime.bundle import Bundle
from pi_runtime.onnx_engine import OnnxEngine


class TwoConvs(nn.Module):
    """Two convolutions with batch norm each, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, 3] of [N, 1, 4, 4]."""
        return self.head(self.second(self.first(x)).flatten(1))


def frozen_module(*patterns: str) -> TwoConvs:
    torch.manual_seed(0)
    module = TwoConvs()
    models.train_only(module, patterns)
    return module


def test_patterns_choose_parameters() -> None:
    module = frozen_module("second.*", "head.bias")
    chosen = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert chosen == {"second.0.weight", "second.1.weight", "second.1.bias", "head.bias"}
    model = FlatModel(module, SPEC)
    assert {e.name for e in model.entries if e.trainable} == chosen
    assert model.sizes["frozen"] == 40 + 8 + 48  # the first convolution and norm, the head's weight


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(
        ClueError,
        match=r"--train-only 'haed.\*' matches no parameter \(the closest is 'head.bias'\); the model has "
        r"first.\*, second.\*, head.\*",
    ):
        frozen_module("haed.*")


def test_the_backward_pass_stops_before_frozen_layers() -> None:
    config = methods.configure("clue", {})

    def flops(module: nn.Module) -> dict[str, int]:
        recipe = build(FlatModel(module, SPEC), "clue", config, 4)
        return {program.name: trace(program).flops for program in recipe.programs}

    whole, head = flops(frozen_module("*")), flops(frozen_module("head.*"))
    assert head["predict"] == whole["predict"]
    forward = head["predict"]
    last = 4 * 16 * 3 * 2
    assert head["step"] == forward + last  # the gradient of the last weight is one product
    assert whole["step"] > 2 * forward


@pytest.mark.parametrize("batch_norm", ["batch", "batch_keep_running", "frozen"])
@pytest.mark.parametrize("program", ["step", "saliency"])
def test_frozen_layers_take_no_gradient_and_keep_no_activation(program: str, batch_norm: str) -> None:
    """Of what frozen layers compute, only the first trainable layer's input is read by anything behind."""
    config = methods.configure("clue", {"batch_norm": batch_norm})
    for patterns, relus in ((("second.*", "head.*"), 1), (("head.*",), 2), (("*",), 0)):
        recipe = build(FlatModel(frozen_module(*patterns), SPEC), "clue", config, 4)
        (found,) = (each for each in recipe.programs if each.name == program)
        kept, before = kept_by_frozen_layers(trace(found).graph)
        assert sum(node.target is torch.ops.aten.relu.default for node in before) == relus
        if patterns != ("*",):
            roots = [node for node in kept if not reached(node) & kept - {node}]
            assert len(roots) == 1, (patterns, kept)  # all others are made of it


def kept_by_frozen_layers(graph: GraphModule) -> tuple[set[Node], set[Node]]:
    """(what is still read once weights that may change take part, what was computed without them), of the
    nodes that depend on the pixels."""
    nodes = list(graph.graph.nodes)
    (x, params) = ({n for n in nodes if n.name == one} for one in ports(graph))
    of_x = {n for n in nodes if n.op == "call_function" and reached(n) & x}
    mixed = {n for n in of_x if reached(n) & params}
    before = of_x - mixed
    return {n for n in before if set(n.users) & mixed}, before


def ports(graph: GraphModule) -> tuple[str, str]:
    """The names of the nodes of the pixels and of the trainable weights: the first of rank 4, the first."""
    inputs = [n for n in graph.graph.nodes if n.op == "placeholder"]
    return next(n.name for n in inputs if n.meta["val"].ndim == 4), inputs[0].name


def reached(node: Node) -> set[Node]:
    """Everything that a node is made of, and itself."""
    found, left = {node}, [node]
    while left:
        new = set(left.pop().all_input_nodes) - found
        found |= new
        left += new
    return found


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    model = FlatModel(frozen_module("second.*", "head.*"), SPEC)
    state = model.pack()
    x = torch.rand(8, 1, 4, 4)
    _, moved = model.forward(model.leaves(state), state, x, "batch")
    before, after = (model.named("buffers", each) for each in (state["buffers"], moved["buffers"]))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"second.1.running_mean", "second.1.running_var"}


def test_a_request_changes_what_it_may_and_agrees_with_eager(tmp_path: Path) -> None:
    module = frozen_module("second.*", "head.*")
    recipe = ExportRecipe(target="host", batch=4, hyperparameters={"epochs": 1, "saliency_batch": 8})
    bundle = Bundle.open(export(module, SPEC, tmp_path / "t.clue", recipe))
    engine = OnnxEngine(1)
    assert all(result.ok for result in golden.check(bundle, engine))
    rows = json.loads((bundle.root / "manifest.json").read_bytes())["state"]
    assert {row["value"] for row in rows if row["name"].startswith("first.0")} == {"frozen"}
    ports = {name: {p.name for p in program.outputs} for name, program in bundle.programs.items()}
    assert "frozen_next" not in ports["step"]
    size = FlatModel(module, SPEC).sizes["params"]
    assert {p.shape for p in bundle.programs["step"].inputs if p.name in ("momentum", "mask")} == {(size,)}

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 4, 4, 1), np.uint8)
    labels = np.full(8, 1, np.int64)
    config = methods.configure("clue", {"epochs": 1, "saliency_batch": 8})
    (step,) = parity.record(module, SPEC, "clue", config, images, labels, seed=0, batch=4, steps=[2])
    replay = parity.Replay(bundle, engine, images, labels, 0)
    assert parity.worst(parity.teacher_forced(replay, step)).error < 1e-5
    stored = load_file(bundle.root / "weights.safetensors")["frozen"]
    np.testing.assert_array_equal(replay.values.current("frozen"), stored)
    assert not np.array_equal(step.before["params"], step.after["params"])


def test_without_a_frozen_parameter_there_is_no_frozen_value() -> None:
    assert "frozen" not in FlatModel(BatchNormNet(), SPEC).sizes
