"""One model of each family through the conformance cell, and the table's own machinery."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cell
import conformance
import pytest
import torch
import zoo
from torch import nn

ONNX_FAMILIES = {name: f"torchvision:{name}" for name in zoo.FAMILIES.values()}
# deep in operators, rich in parameters, or fixed at a large input: too slow for every run of the tests
SLOW = {
    "alexnet", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "regnet_y_400mf", "resnext50_32x4d", "swin_v2_t", "vgg11_bn", "wide_resnet50_2",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.full] if n in SLOW else []) for n in ONNX_FAMILIES]
)
def test_a_family_agrees_with_eager_in_onnx_runtime(name: str) -> None:
    row = cell.run(ONNX_FAMILIES[name], "onnx", "shallow")
    assert row["status"] == "ok", row


@pytest.mark.full
@pytest.mark.parametrize("runtime", ["litert", "coreml", "executorch"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large", "vit_b_16", "convnext_tiny"])
def test_a_family_agrees_with_eager_on_the_other_runtimes(name: str, runtime: str) -> None:
    row = cell.run(f"torchvision:{name}", runtime, "shallow")
    assert row["status"] == "ok", row


# the models


def test_every_model_has_its_cells() -> None:
    cells = zoo.cells(conformance.RUNTIMES)
    assert len(cells) == len(set(cells)) == len(conformance.RUNTIMES) * (75 + len(zoo.TIMM))
    assert {size for _, runtime, size in cells if runtime == "onnx"} == {"full"}
    whole = {name for name, runtime, size in cells if runtime == "litert" and size == "full"}
    assert whole == set(ONNX_FAMILIES.values())
    names = set(zoo.torchvision_names())
    assert set(zoo.FAMILIES.values()) <= names
    assert {zoo.family(name) for name in names} == set(zoo.FAMILIES)
    assert "vit_l_16" not in names  # 304 million parameters


def test_a_shallow_twin_keeps_two_of_equal_blocks() -> None:
    def block(inside: int, out: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inside, out, 3, padding=1), nn.ReLU())

    stage = nn.Sequential(block(3, 8), *(block(8, 8) for _ in range(5)), nn.ReLU(), nn.ReLU(), nn.ReLU())
    module = nn.Sequential(stage, nn.Flatten(), nn.Linear(8 * 16, 2))
    x = torch.rand(1, 3, 4, 4)
    assert zoo.shallow(module, x) == 3
    assert [name for name, _ in module[0].named_children()] == ["0", "1", "2", "6", "7", "8"]
    assert module(x).shape == (1, 2)


# the runner


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conformance, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(conformance, "TABLE", tmp_path / "table.md")
    return tmp_path


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"runtime": ["onnx"], "model": None, "again": None, "jobs": 2, **given})


def test_a_cell_that_takes_too_long_is_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "SECONDS", 0)
    row = conformance.run_cell(("torchvision:squeezenet1_1", "onnx", "shallow"))
    assert row["status"] == "timeout"


def test_a_cell_that_takes_too_much_is_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "GIBIBYTES", 0.01)
    row = conformance.run_cell(("torchvision:squeezenet1_1", "onnx", "shallow"))
    assert row["status"] == "memory"


def test_a_refusal_is_a_row_with_its_reason(place: Path) -> None:
    row = conformance.run_cell(("torchvision:no_such_net", "onnx", "full"))
    assert row["status"] == "refused"
    assert row["reason"].startswith("unknown torchvision model 'no_such_net'")
    row = conformance.run_cell(("torchvision:squeezenet1_1", "nonsense", "full"))
    assert row["status"] == "refused"
    row = conformance.run_cell(("squeezenet1_1", "onnx", "full"))  # no SOURCE: before the name
    assert (row["status"], row["reason"][:10]) == ("failed", "ValueError")


def test_a_run_takes_up_where_it_stopped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [c for c in zoo.cells(("onnx",)) if c[0].startswith("torchvision:squeezenet")]
    assert len(cells) == 2
    done = {"model": cells[0][0], "runtime": "onnx", "size": "full", "status": "ok", "error": 1e-7}
    conformance.RESULTS.write_text(json.dumps(done) + "\n", encoding="utf-8")
    conformance.run(options(model="torchvision:squeezenet*"))
    rows = conformance.known()
    assert set(rows) == set(cells)
    assert rows[cells[0]] == done  # not run again
    assert rows[cells[1]]["status"] == "ok"
    assert "1/1 torchvision:squeezenet1_1 onnx full: ok" in capsys.readouterr().out
    conformance.run(options(model="torchvision:squeezenet*"))
    assert capsys.readouterr().out == ""

    conformance.table()
    text = conformance.TABLE.read_text(encoding="utf-8")
    assert "**2 of 2 cells are ok (100.0 %)" in text
    assert "| torchvision:squeezenet1_0 |  | ok 1e-07 | not run yet |" in text


def test_a_failure_is_told_by_the_line_of_its_exception() -> None:
    text = (
        "Traceback (most recent call last):\n  File x\nAssertionError: two modes\n\nallocated at:\n  File y\n"
    )
    assert conformance.reason(text) == "AssertionError: two modes"
    assert conformance.reason("killed\n") == "killed"
    assert conformance.reason("") == ""
