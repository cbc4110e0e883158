from __future__ import annotations

import copy
import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from tiny_models import SPEC, BatchNormNet, made

import clue_mobile
from clue_mobile import programs
from clue_mobile.bundle import manifest as manifests
from clue_mobile.flat import FlatModel
from clue_mobile.methods.clue import Config
from clue_mobile.spec import ModelSpec
from clue_mobile.study.demo import HYPERPARAMETERS
from pi_runtime.plan import total

FILE = {"file": "weights.safetensors", "sha256": "0" * 64, "bytes": 12}


@pytest.fixture(scope="module")
def digits(digits_bundle: Path) -> dict[str, Any]:
    """The manifest of a whole export."""
    data: dict[str, Any] = json.loads((digits_bundle / "manifest.json").read_bytes())
    return data


def assemble(spec: ModelSpec = SPEC, **changed: Any) -> dict[str, Any]:
    """A manifest without programs."""
    model = FlatModel(made(BatchNormNet), spec)
    config = Config(saliency_batch=8)
    given: dict[str, Any] = {
        "name": "t",
        "target": "host",
        "model": model,
        "method": "clue",
        "config": config,
        "batch": 4,
        "tuned_batch": 8,
        "recipe": programs.build(model, "clue", config, 4),
        "programs": {},
        "weights": FILE,
        "files": [FILE],
        "extra_versions": {"onnx": "1"},
        "licence": "MIT",
    }
    return manifests.assemble(**{**given, **changed})


def test_it_says_what_the_model_is(digits: dict[str, Any]) -> None:
    assert digits["schema_version"] == 1
    assert digits["name"] == "digits"
    assert digits["target"] == "pi5"
    assert digits["model"] == {"name": "digits_cnn", "classes": list("0123456789"), "parameters": 24_058}
    assert digits["input"] == {"shape": [1, 8, 8], "layout": "NCHW", "range": [0, 1], "color": "L"}
    assert digits["preprocessing"] == {
        "mean": [0.3053],
        "std": [0.376],
        "inside_programs": True,
        "fit": "stretch",
    }
    created = datetime.fromisoformat(digits["created"])
    assert created.tzinfo == UTC
    assert timedelta(0) <= datetime.now(UTC) - created < timedelta(hours=1)


def test_it_says_how_to_forget(digits: dict[str, Any]) -> None:
    method = digits["method"]
    assert (method["name"], method["batch"], method["tuned_batch"]) == ("clue", 32, 32)
    assert method["hyperparameters"].keys() == vars(Config()).keys()
    assert {name: method["hyperparameters"][name] for name in HYPERPARAMETERS} == HYPERPARAMETERS
    assert method["scalars"] == {
        "epochs": 10.0, "lr": 2e-4, "tau": 3e-4, "stop_every": 1.0, "stop_accuracy": 10.0,
    }  # fmt: skip
    assert method["verify"] == {
        "forget_accuracy_at_most": 50.0,
        "collapse": {"probes": 320, "kept_at_least": 30.0, "largest_share_at_most": 98.0},
    }
    assert method["needs_retain"] is False
    patent, *more = digits["notices"]
    assert "US 2026/0148064 A1" in patent
    assert not more or ["noisy grey images" in notice for notice in more] == [
        True
    ]  # by this machine's weights


def test_versions_are_on_record(digits: dict[str, Any]) -> None:
    versions = digits["versions"]
    assert versions["clue_mobile"] == clue_mobile.__version__
    assert versions["torch"] == torch.__version__
    assert versions["python"] == platform.python_version()
    assert {"onnx", "onnxscript", "opset"} <= versions.keys()


def test_the_table_of_tensors_covers_the_flat_vectors_without_gaps(digits: dict[str, Any]) -> None:
    ends: dict[str, int] = {}
    for row in digits["state"]:
        assert row["offset"] == ends.get(row["value"], 0), row["name"]
        ends[row["value"]] = row["offset"] + torch.Size(row["shape"]).numel()
        assert row["kind"] == {"params": "parameter", "buffers": "buffer"}[row["value"]]
        assert row["trainable"] == (row["kind"] == "parameter")
    assert {name: [size] for name, size in ends.items()} == {
        name: value["shape"] for name, value in digits["values"].items() if value["role"] == "state"
    }
    assert [row["name"] for row in digits["state"]][:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]


def test_the_plan_is_clues(digits: dict[str, Any]) -> None:
    (epochs,) = digits["plan"]
    assert (epochs["loop"], epochs["count"]) == ("epochs", "epochs")
    assert [node["phase"] for node in epochs["body"]] == ["saliency", "teacher", "step"]
    saliency, teacher, step = (node["body"] for node in epochs["body"])
    assert saliency == [
        {"reset": ["mask"]},
        {"loop": "batches", "size": 256, "augment": "none", "body": [
            {"reset": ["grad_sum"]},
            {"loop": "batches", "size": 32, "body": [{"run": "saliency"}]},
            {"run": "mask"},
        ]},
    ]  # fmt: skip
    assert teacher == [{"loop": "batches", "size": 32, "augment": "none", "body": [{"run": "teacher"}]}]
    (batches,) = step
    assert [next(iter(node)) for node in batches["body"]] == ["run", "stop"]
    assert batches["body"][1]["stop"]["accuracy_at_most"] == "stop_accuracy"


def test_the_runtime_counts_the_operations_of_the_plan(digits: dict[str, Any]) -> None:
    from pi_runtime.plan import parse

    # 300 samples: two saliency batches of eight parts each, ten batches of the others
    epoch = 1 + 2 * (1 + 8 + 1) + 10 + 10 * 2
    assert total(parse(digits["plan"]), 300, digits["method"]["scalars"]) == 10 * epoch


@pytest.mark.parametrize(("channels", "color"), [(1, "L"), (3, "RGB")])
def test_colours(channels: int, color: str) -> None:
    spec = ModelSpec("m", SPEC.classes, (channels, 4, 4), (0.5,) * channels, (0.5,) * channels)
    manifest = assemble(spec)
    assert manifest["input"]["color"] == color
    assert manifest["preprocessing"]["mean"] == [0.5] * channels


def test_what_was_asked_for() -> None:
    manifest = assemble(name="mine", licence="CC-BY-4.0")
    assert (manifest["name"], manifest["license"]) == ("mine", "CC-BY-4.0")
    assert manifest["method"]["tuned_batch"] == 8
    assert manifest["versions"]["onnx"] == "1"
    assert manifest["files"] == [FILE]
    cropped = assemble(fit="center-crop", least_images=36)
    assert cropped["preprocessing"]["fit"] == "center-crop"
    assert cropped["method"]["least_images"] == 36
    assert "least_images" not in manifest["method"]
    assert assemble(method="other")["notices"] == []  # the patent application is CLUE's


Edit = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize("edit", [
    lambda m: m.pop("plan"),
    lambda m: m.update(extra=1),
    lambda m: m.update(schema_version=3),
    lambda m: m["files"][0].update(file="../outside"),
    lambda m: m["files"][0].update(file="/absolute"),
    lambda m: m["weights"].update(sha256="abc"),
    lambda m: m["model"].update(classes=["one"]),
    lambda m: m["method"]["scalars"].update(lr="fast"),
    lambda m: m["method"]["verify"].update(forget_accuracy_at_most=200),
    lambda m: m["programs"]["step"]["inputs"][0].update(role="weights"),
    lambda m: m["programs"]["step"]["inputs"][0].update(dtype="float16"),
    lambda m: m["programs"]["step"]["golden"]["outputs"]["kl"].update(tolerance=0),
    lambda m: m["values"]["mask"].update(storage="float16"),
    lambda m: m["plan"].append({"jump": 3}),
])  # fmt: skip
def test_validation_refuses_mistakes(digits: dict[str, Any], edit: Edit) -> None:
    manifests.validate(digits)
    wrong = copy.deepcopy(digits)
    edit(wrong)
    with pytest.raises(jsonschema.ValidationError):
        manifests.validate(wrong)


def test_assemble_validates() -> None:
    with pytest.raises(jsonschema.ValidationError):
        assemble(name="")
