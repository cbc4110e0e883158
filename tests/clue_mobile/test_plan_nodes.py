from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import pytest

from clue_mobile import plan
from clue_mobile.plan import Node, Port, Random, Value
from pi_runtime import plan as device_plan

SCHEMA = json.loads(resources.files("contract").joinpath("manifest.schema.json").read_text(encoding="utf-8"))


def check(definition: str, data: Any) -> None:
    """Raises jsonschema.ValidationError where `data` is not what the contract calls a `definition`."""
    schema = {"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(data)))


NODES: dict[str, tuple[Node, Node]] = {
    "phase": (plan.phase("a", plan.run("p")), {"phase": "a", "body": [{"run": "p"}]}),
    "epochs": (
        plan.epochs("epochs", plan.run("p"), plan.run("q")),
        {"loop": "epochs", "count": "epochs", "body": [{"run": "p"}, {"run": "q"}]},
    ),
    "repeat": (plan.repeat(3, plan.run("p")), {"loop": "repeat", "count": 3, "body": [{"run": "p"}]}),
    "batches": (plan.batches(32, plan.run("p")), {"loop": "batches", "size": 32, "body": [{"run": "p"}]}),
    "augmented batches": (
        plan.batches(8, plan.run("p"), augment="crop_flip"),
        {"loop": "batches", "size": 8, "augment": "crop_flip", "body": [{"run": "p"}]},
    ),
    "reset": (plan.reset("v", "w"), {"reset": ["v", "w"]}),
    "run": (plan.run("p"), {"run": "p"}),
    "bound run": (plan.run("p", port="value"), {"run": "p", "bind": {"port": "value"}}),
    "stop": (
        plan.stop("predict", "every", 256, 10.0),
        {"stop": {"program": "predict", "every": "every", "samples": 256, "accuracy_at_most": 10.0}},
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_each_helper_gives_the_contracts_node(name: str) -> None:
    node, expected = NODES[name]
    assert node == expected
    check("node", node)


@pytest.mark.parametrize("wrong", [
    plan.phase("a"),
    plan.phase("no spaces", plan.run("p")),
    plan.batches(0, plan.run("p")),
    plan.batches(8, plan.run("p"), augment="mirror"),
    plan.reset(),
    plan.stop("predict", 1, 0, 10.0),
])  # fmt: skip
def test_the_schema_refuses_what_means_nothing(wrong: Node) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("node", wrong)


def test_the_runtime_reads_the_nodes() -> None:
    nodes = [plan.epochs("epochs", *(node for node, _ in NODES.values()))]
    (loop,) = device_plan.parse(nodes)
    assert isinstance(loop, device_plan.Loop)
    assert [type(node).__name__ for node in loop.body] == [
        "Phase", "Loop", "Loop", "Batches", "Batches", "ResetNode", "RunNode", "RunNode", "StopNode",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [
    Value("state", (3,), {"weights": "params"}),
    Value("carry", (3,), {"zeros": True}, storage="bits"),
    Value("carry", (3,), {"value": "params"}),
    Value("carry", (3,), {"file": "x.safetensors", "key": "k"}),
    Value("cache", (10,), {"zeros": True}),
])  # fmt: skip
def test_values(value: Value) -> None:
    check("value", value.to_json())


def test_random_streams_leave_out_what_their_distribution_does_not_have() -> None:
    uniform = Random(17, "uniform", (), low=0.5, high=1.0).to_json()
    assert uniform == {"stream": 17, "distribution": "uniform", "shape": [], "low": 0.5, "high": 1.0}
    onehot = Random(18, "onehot", (4, 10), classes=10).to_json()
    assert onehot == {"stream": 18, "distribution": "onehot", "shape": [4, 10], "classes": 10}
    for data in (uniform, onehot, Random(16, "normal", (1, 8, 8)).to_json()):
        check("random", data)


def test_ports() -> None:
    port = Port("x", "batch", (2, 1, 8, 8), "x", golden=("normal", 0, 1)).to_json()
    assert port == {"name": "x", "role": "batch", "shape": [2, 1, 8, 8], "dtype": "float32", "binds": "x"}
    assert "binds" not in Port("loss", "metric", ()).to_json()
    check("port", port)
