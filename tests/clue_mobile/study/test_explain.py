"""Which images are explained, and a picture of a transformer's attention before and after."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clue_mobile import models
from clue_mobile.data import Dataset, Split
from clue_mobile.errors import ClueError
from clue_mobile.study.explain import drawn, explain_forgetting


def numbered(counts: list[int], side: int = 1, channels: int = 1) -> Split:
    """Images of `counts[k]` of each label k, each with a number of its own as its pixels."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return Split(np.broadcast_to(images, (len(labels), side, side, channels)).copy(), labels)


def test_images_of_as_many_classes_as_possible() -> None:
    split = numbered([9, 9, 9, 1])
    found = drawn(split, 4, forget_class=1, forget=2, retain=3, seed=0)
    assert found.labels[:2].tolist() == [1, 1]
    assert sorted(found.labels[2:].tolist()) == [0, 2, 3]
    more = drawn(split, 4, forget_class=1, forget=2, retain=8, seed=0)
    assert np.bincount(more.labels, minlength=4).tolist() == [4, 2, 3, 1] or (
        np.bincount(more.labels, minlength=4).tolist() == [3, 2, 4, 1]
    )
    numbers = more.images.ravel().tolist()
    assert len(set(numbers)) == len(numbers)
    assert [split.labels[number] for number in numbers] == more.labels.tolist()
    assert np.array_equal(drawn(split, 4, 1, 2, 8, 0).images, more.images)
    assert not np.array_equal(drawn(split, 4, 1, 2, 8, 1).images, more.images)
    assert len(drawn(split, 4, 1, 99, 99, 0)) == 28
    assert len(drawn(split, 4, 1, 0, 0, 0)) == 0


def test_attention_before_and_after(tmp_path: Path) -> None:
    spec = dataclasses.replace(models.resolve_spec("vit_small_patch4"), classes=("a", "b", "c"))
    before, after = (models.load(spec, None, seed=seed) for seed in (0, 1))
    split = numbered([4, 4, 4], 32, 3)
    dataset = Dataset(spec.classes, split, split.take(0), split, "numbers")
    told = explain_forgetting(tmp_path / "m.png", before, after, spec, dataset, 1, forget=1, retain=1)
    assert json.loads(json.dumps(told)) == told
    assert (told["kind"], told["layer"]) == ("attention rollout", None)
    assert [image["class"] == "b" for image in told["images"]] == [True, False]
    assert [image["forgotten"] for image in told["images"]] == [True, False]
    for image in told["images"]:
        for moment in ("before", "after"):
            assert 1 / 3 <= image[moment]["probability"] <= 1
            assert image[moment]["true_class"] <= image[moment]["probability"]
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.size == (918, 784)
    with pytest.raises(ClueError, match="numbers has no validation images"):
        explain_forgetting(tmp_path / "n.png", before, after, spec, dataset, 1, split="validation")
    with pytest.raises(ClueError, match="no class 3"):
        explain_forgetting(tmp_path / "n.png", before, after, spec, dataset, 3)
    assert not (tmp_path / "n.png").exists()
