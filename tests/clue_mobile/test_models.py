"""The list of models, the precedence of what is known about one, and loading it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clue_mobile.errors import ClueError
from clue_mobile.models import BUILTIN, available, load, resolve_spec
from clue_mobile.models.weights import save_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def safetensors(tmp_path: Path) -> Path:
    """A file whose metadata says another mean and other classes than the built-in model does."""
    path = tmp_path / "weights.safetensors"
    metadata = {"mean": "0.1, 0.2, 0.3", "classes": "a, b, c"}
    save_weights(torch.nn.Linear(1, 1), path, metadata)
    return path


def write_card(folder: Path, **fields: Any) -> Path:
    path = folder / "card.json"
    path.write_text(json.dumps(fields))
    return path


def test_without_torch_all_but_loading_works(safetensors: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import clue_mobile.spec, clue_mobile.models as m, pathlib\n"
        "m.available(); spec = m.resolve_spec('resnet20', weights=pathlib.Path(sys.argv[1]))\n"
        "try: m.load(spec, None)\n"
        "except ValueError as error: print(spec.mean, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, safetensors], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert "(0.1, 0.2, 0.3) torch is not installed" in done.stdout
    assert "pip install 'clue-mobile[export]'" in done.stdout


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_model_is_what_its_entry_says(name: str) -> None:
    entry = BUILTIN[name]
    module = load(entry.spec, None)

    assert entry.spec.model == name
    assert sum(parameter.numel() for parameter in module.parameters()) == entry.parameters
    assert not module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert module(torch.zeros(2, *entry.spec.input_shape)).shape == (2, entry.spec.num_classes)


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_model_takes_other_classes_and_inputs(name: str) -> None:
    spec = resolve_spec(name, classes=["a", "b", "c"], input_shape=[2, 16, 12], mean=[0, 0], std=[1, 1])

    assert load(spec, None)(torch.zeros(1, 2, 16, 12)).shape == (1, 3)


def test_available_lists_builtin_models_and_the_other_forms() -> None:
    rows = available()

    assert [row.name for row in rows[: len(BUILTIN)]] == list(BUILTIN)
    assert rows[0].input == "3x32x32"
    assert rows[0].parameters == 269_722
    assert {row.name for row in rows[len(BUILTIN) :]} >= {"torchvision:NAME", "timm:NAME"}


def test_each_field_comes_from_the_first_source_that_has_it(tmp_path: Path, safetensors: Path) -> None:
    card = write_card(tmp_path, model="resnet20", mean=[0.4, 0.4, 0.4], input_shape=[3, 16, 16])

    spec = resolve_spec("resnet20", weights=safetensors, card=card, input_shape="3,24,24")

    assert spec.input_shape == (3, 24, 24)  # the option, not the card
    assert spec.mean == (0.4, 0.4, 0.4)  # the card, not the metadata
    assert spec.classes == ("a", "b", "c")  # the metadata, not the built-in model
    assert spec.std == BUILTIN["resnet20"].spec.std


def test_missing_fields_are_named_with_the_ways_to_give_them() -> None:
    with pytest.raises(ClueError) as caught:
        resolve_spec("net.py:make", classes=["a", "b"], std=[1.0])

    message = str(caught.value)
    assert message.startswith("net.py:make needs input_shape, mean:")
    assert "--input-shape 3,32,32" in message
    assert "--std" not in message


def test_card_of_another_model_is_refused(tmp_path: Path) -> None:
    card = write_card(tmp_path, model="digits_cnn")
    with pytest.raises(ClueError, match="is for 'digits_cnn', not 'resnet20'"):
        resolve_spec("resnet20", card=card)


def test_bad_metadata_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(torch.nn.Linear(1, 1), path, {"std": "large"})
    with pytest.raises(ClueError, match=f"std in the metadata of {path} is 'large'"):
        resolve_spec("resnet20", weights=path)


@pytest.mark.parametrize("name", ["resnet2", "timm:", ":make", ""])
def test_unknown_model_lists_what_exists(name: str) -> None:
    with pytest.raises(ClueError, match=r"Choices: digits_cnn, package\.module:factory"):
        resolve_spec(name)


def test_load_reads_the_weights(tmp_path: Path) -> None:
    spec = BUILTIN["digits_cnn"].spec
    trained = load(spec, None, seed=1)
    save_weights(trained, tmp_path / "w.safetensors", spec.to_metadata())

    loaded = load(spec, tmp_path / "w.safetensors", seed=2)

    assert torch.equal(loaded.fc.weight, trained.fc.weight)
    assert not torch.equal(load(spec, None, seed=2).fc.weight, trained.fc.weight)
